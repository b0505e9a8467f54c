//! Names of the surroundings do not matter.

use ::std::sync as actual;

use crate::pair;

/// What generated code could mean instead of what it means.
#[expect(dead_code, reason = "they only lie in the way")]
mod surroundings {
    pub(super) struct Result;
    pub(super) struct Option;
    pub(super) struct String;
    pub(super) struct Send;
    pub(super) struct Sync;
    pub(super) struct Arc;
    pub(super) struct Functions;
    pub(super) struct Client;
    pub(super) struct Future;
    pub(super) struct Clone;
    pub(super) struct Incoming;
    pub(super) struct Outgoing;
    pub(super) mod std {}
}

#[expect(unused_imports, reason = "nothing may mean one of these")]
use surroundings::*;

type Text = ::std::string::String;

#[meshx_rpc::service(name = "odd")]
pub(super) trait Odd {
    /// As generated code may call its own.
    #[allow(clippy::too_many_arguments, reason = "as many as there may be")]
    async fn names(
        &self,
        service: u8,
        functions: u8,
        client: u8,
        call: u8,
        name: u8,
        arguments: u8,
        own: u8,
        r#type: u8,
        drop: u8,
        future: u8,
        all: u8,
        task: u8,
        made: u8,
        left: u8,
        right: u8,
        _last: u8,
    ) -> ::core::result::Result<u8, Text>;

    async fn of(&self) -> ::core::result::Result<Text, Text>;

    async fn clone(&self, all: Text) -> ::core::result::Result<Text, Text>;

    async fn open(
        &self,
        service: ::meshx_rpc::Incoming<u8>,
        functions: ::meshx_rpc::Outgoing<u8>,
    ) -> ::core::result::Result<(), ::meshx_rpc::Error>;
}

#[derive(Debug)]
struct Real;

impl Odd for Real {
    async fn names(
        &self,
        service: u8,
        functions: u8,
        client: u8,
        call: u8,
        name: u8,
        arguments: u8,
        own: u8,
        r#type: u8,
        drop: u8,
        future: u8,
        all: u8,
        task: u8,
        made: u8,
        left: u8,
        right: u8,
        last: u8,
    ) -> ::core::result::Result<u8, Text> {
        let sum = [service, functions, client, call, name, arguments, own, r#type, drop];
        Ok(sum.iter().sum::<u8>() + future + all + task + made + left + right + last)
    }

    async fn of(&self) -> ::core::result::Result<Text, Text> {
        Ok("of".to_owned())
    }

    async fn clone(&self, all: Text) -> ::core::result::Result<Text, Text> {
        Ok(all)
    }

    async fn open(
        &self,
        mut service: ::meshx_rpc::Incoming<u8>,
        mut functions: ::meshx_rpc::Outgoing<u8>,
    ) -> ::core::result::Result<(), ::meshx_rpc::Error> {
        while let Some(number) = service.next().await {
            functions.send(&number?).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn names_of_arguments_and_surroundings_are_free() {
    let (client, _server) = pair(OddFunctions::of(actual::Arc::new(Real)));
    let odd = OddClient::new(client);
    let sum = odd.names(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16).await.unwrap();
    assert_eq!(sum, 136);
    assert_eq!(odd.of().await.unwrap(), "of");
    assert_eq!(odd.clone("it".to_owned()).await.unwrap(), "it");
    let (mut out, mut back) = odd.open().await.unwrap();
    out.send(&7).await.unwrap();
    assert_eq!(back.next().await.unwrap().unwrap(), 7);
    let [names, of, clone, open] = OddFunctions::names() else { panic!("four") };
    assert_eq!([*names, *of], [OddFunctions::NAMES, OddFunctions::OF]);
    assert_eq!([*clone, *open], [OddFunctions::CLONE, OddFunctions::OPEN]);
}
