//! What of a trait can be called: what it exports, and nothing else.

use std::sync::Arc;

use meshx_core::Action;
use meshx_rpc::transport::Memory;
use meshx_rpc::{Kind, Policy, Rule, Server};

use crate::pair;

/// The trait's own bounds, constants of names and conditions.
#[meshx_rpc::service(name = "stock")]
pub(crate) trait Stock: std::fmt::Debug {
    /// How many there are.
    ///
    ///     and a second part
    async fn count(&self, article: String) -> Result<u32, String>;

    #[doc = "Empties it."]
    async fn clear(&self) -> Result<(), String> {
        Ok(())
    }

    async fn r#move(&self) -> Result<(), String> {
        Err(self.inner().to_string())
    }

    /// Not there.
    #[cfg(not(test))]
    async fn gone(&self, strange: Nowhere) -> Result<(), String>;

    /// Here.
    #[cfg(test)]
    async fn here(&self) -> Result<(), String> {
        Ok(())
    }

    #[rpc(skip)]
    fn inner(&self) -> u8 {
        1
    }

    #[rpc(skip)]
    fn borrowed<'s, T: ?Sized>(&'s self, other: &'s T) -> &'s T {
        other
    }

    #[rpc(skip)]
    async fn waits(self: Arc<Self>) -> u8
    where
        Self: Sized,
    {
        self.inner()
    }

    #[rpc(skip)]
    fn empty() -> Result<(), String>
    where
        Self: Sized,
    {
        Ok(())
    }
}

#[derive(Debug)]
struct Shelf;

impl Stock for Shelf {
    async fn count(&self, article: String) -> Result<u32, String> {
        Ok(article.len().try_into().unwrap())
    }

    fn inner(&self) -> u8 {
        2
    }
}

/// Without a name in front, and without functions.
#[meshx_rpc::service]
trait Bare {
    async fn ping(&self) -> Result<(), String>;
}

impl Bare for Shelf {
    async fn ping(&self) -> Result<(), String> {
        Ok(())
    }
}

#[meshx_rpc::service]
trait Nothing {}

impl Nothing for Shelf {}

const ALL: [&str; 4] = ["stock.count", "stock.clear", "stock.move", "stock.here"];

#[test]
fn the_trait_is_the_allow_list() {
    let functions = StockFunctions::of(Arc::new(Shelf));
    let mut sorted = ALL;
    sorted.sort_unstable();
    assert_eq!(functions.names().collect::<Vec<_>>(), sorted);
    assert_eq!(StockFunctions::names(), ALL);
    assert_eq!(
        [StockFunctions::COUNT, StockFunctions::CLEAR, StockFunctions::MOVE, StockFunctions::HERE],
        ALL
    );
    assert_eq!(BareFunctions::of(Arc::new(Shelf)).names().collect::<Vec<_>>(), ["ping"]);
    assert_eq!(NothingFunctions::of(Arc::new(Shelf)).names().count(), 0);
}

#[tokio::test]
async fn what_is_skipped_cannot_be_called() {
    let (client, _server) = pair(StockFunctions::of(Arc::new(Shelf)));
    for name in ["inner", "stock.inner", "stock.waits", "stock.empty", "stock.gone", "count", ""] {
        let error = client.call::<_, u8>(name, &()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::UnknownFunction, "{name}");
    }
    let stock = StockClient::new(client);
    assert_eq!(stock.count("tea".to_owned()).await.unwrap(), 3);
    stock.clear().await.unwrap();
    stock.here().await.unwrap();
    // Here it can be, and what is called may do so.
    assert_eq!(stock.r#move().await.unwrap_err().to_string(), "2");
    assert_eq!((Shelf.borrowed("it"), Arc::new(Shelf).waits().await), ("it", 2));
    Shelf::empty().unwrap();
}

#[test]
fn doc_comments_say_what_it_is_for() {
    let functions = StockFunctions::of(Arc::new(Shelf));
    let about = |name| functions.get(name).unwrap().about();
    let text = "How many there are.\n\n    and a second part";
    assert_eq!((about(StockFunctions::COUNT), about("stock.clear")), (text, "Empties it."));
    assert_eq!(about(StockFunctions::MOVE), "");
}

#[tokio::test]
async fn it_can_be_narrowed_by_names() {
    let functions = StockFunctions::of(Arc::new(Shelf)).and(BareFunctions::of(Arc::new(Shelf)));
    let functions = functions.only(&[StockFunctions::COUNT, StockFunctions::CLEAR]);
    let rules = vec![Rule::allow([StockFunctions::COUNT], ["*"])];
    let (dial, listen) = Memory::pair();
    let policy = Policy::new(rules, Action::Deny).unwrap();
    let _server = Server::new(functions).policy(policy).listen(listen).start();
    let stock = StockClient::new(meshx_rpc::Client::to(dial).start());
    assert_eq!(stock.count(String::new()).await.unwrap(), 0);
    assert_eq!(stock.clear().await.unwrap_err().kind(), Kind::Denied);
    assert_ne!(stock.here().await.unwrap_err().kind(), Kind::Application);
}
