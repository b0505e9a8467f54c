//! Functions that take and give messages.

use std::sync::Arc;
use std::time::Duration;

use meshx_core::Action;
use meshx_rpc::transport::{Memory, Tcp};
use meshx_rpc::{
    CallError, Client, Codec, Context, Error, Executed, Incoming, Kind, Outgoing, Policy, Rule,
    Server,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{Order, OrderError, pair};

/// By another name, as results have them.
type Ends = Result<(), Failed>;

#[meshx_rpc::service(name = "ledger")]
pub(crate) trait Ledger {
    /// The sum so far, after each number.
    async fn sums(&self, numbers: Incoming<i64>, sums: Outgoing<i64>) -> Result<(), Error>;

    async fn book(&self, orders: Incoming<Order>, counts: Outgoing<Option<u32>>) -> Ends;

    /// Has a body, which an implementation may leave as it is.
    async fn echo(&self, mut said: Incoming<String>, mut back: Outgoing<String>) -> Ends {
        while let Some(text) = said.next().await {
            back.send(&text?).await?;
        }
        Ok(())
    }

    #[rpc(timeout = "250ms")]
    async fn short(&self, said: Incoming<u8>, heard: Outgoing<u8>) -> Result<(), Failed>;

    /// Says what it knows of its caller, and waits.
    async fn who(&self, said: Incoming<()>, heard: Outgoing<Caller>) -> Result<(), Failed>;

    /// A call beside them, which is itself the caller of `who`.
    async fn ask(&self) -> Result<Caller, String>;
}

/// Which function was opened, and how long the caller waits.
type Caller = (String, Option<Duration>);

/// Why an exchange ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Failed {
    Order(OrderError),
    Elsewhere(String),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Order(error) => error.fmt(f),
            Self::Elsewhere(reason) => f.write_str(reason),
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Elsewhere(error.to_string())
    }
}

/// Says of each exchange how it ended, as far as it knows.
#[derive(Debug)]
struct Books {
    ended: mpsc::UnboundedSender<&'static str>,
    /// Where `ask` asks.
    next: Option<LedgerClient>,
}

/// Says it also if the function is dropped.
struct Says<'b>(&'b Books, &'static str);

impl Drop for Says<'_> {
    fn drop(&mut self) {
        self.0.ended.send(self.1).unwrap_or_default();
    }
}

impl Ledger for Books {
    async fn sums(&self, mut numbers: Incoming<i64>, mut sums: Outgoing<i64>) -> Result<(), Error> {
        let mut says = Says(self, "sums stopped");
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number?;
            sums.send(&sum).await?;
        }
        says.1 = "sums ended";
        Ok(())
    }

    async fn book(&self, mut orders: Incoming<Order>, mut counts: Outgoing<Option<u32>>) -> Ends {
        while let Some(order) = orders.next().await {
            let order = order?;
            if order.lines.is_empty() {
                return Err(Failed::Order(OrderError::Unknown { id: order.id }));
            }
            counts.send(&order.lines.len().try_into().ok()).await?;
        }
        Ok(())
    }

    async fn short(&self, _said: Incoming<u8>, _heard: Outgoing<u8>) -> Result<(), Failed> {
        let _says = Says(self, "short stopped");
        std::future::pending().await
    }

    async fn who(&self, mut said: Incoming<()>, mut heard: Outgoing<Caller>) -> Result<(), Failed> {
        let context = Context::current().unwrap();
        heard.send(&(context.function().to_owned(), context.remaining())).await?;
        let _says = Says(self, "who stopped");
        while said.next().await.is_some() {}
        std::future::pending().await
    }

    async fn ask(&self) -> Result<Caller, String> {
        let (_said, mut heard) =
            self.next.as_ref().unwrap().who().await.map_err(|error| error.to_string())?;
        heard.next().await.unwrap().map_err(|error| error.to_string())
    }
}

fn books() -> (Arc<Books>, mpsc::UnboundedReceiver<&'static str>) {
    let (ended, said) = mpsc::unbounded_channel();
    (Arc::new(Books { ended, next: None }), said)
}

#[tokio::test]
async fn messages_go_both_ways_over_tcp() {
    let (books, mut ended) = books();
    let listener = Tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().to_string();
    let server = Server::new(LedgerFunctions::of(books)).listen(listener).start();
    // The client's time is that for a connection.
    let client = Client::to(Tcp::to(address)).connections(1).timeout(Duration::from_millis(500));
    let ledger = LedgerClient::new(client.start());
    let (mut numbers, mut sums) = ledger.sums().await.unwrap();
    let (mut orders, mut counts) = ledger.book().await.unwrap();
    // Two at a time on one connection, and each has its own messages.
    for (number, sum) in [(1, 1), (2, 3), (-5, -2), (i64::MAX, i64::MAX - 2)] {
        numbers.send(&number).await.unwrap();
        let order = Order { id: 1, lines: vec![String::new(); if sum > 0 { 2 } else { 1 }] };
        orders.send(&order).await.unwrap();
        assert_eq!(sums.next().await.unwrap().unwrap(), sum);
        assert_eq!(counts.next().await.unwrap().unwrap(), u32::try_from(order.lines.len()).ok());
    }
    drop(numbers);
    assert!(sums.next().await.is_none());
    assert_eq!(ended.recv().await.unwrap(), "sums ended");
    // One direction without the other, in another task, and a body that the trait has.
    let (mut said, mut back) = ledger.echo().await.unwrap();
    let saying = tokio::spawn(async move {
        for number in 0..3000 {
            said.send(&number.to_string()).await.unwrap();
        }
    });
    for number in 0..3000 {
        assert_eq!(back.next().await.unwrap().unwrap(), number.to_string());
    }
    saying.await.unwrap();
    assert!(back.next().await.is_none());
    drop((orders, counts));
    server.stop().await;
    assert_eq!(ledger.sums().await.unwrap_err().kind(), Kind::Transport);
}

#[tokio::test]
async fn who_stops_listening_stops_the_function() {
    let (books, mut ended) = books();
    let (client, _server) = pair(LedgerFunctions::of(books));
    let ledger = LedgerClient::new(client);
    let (mut numbers, mut sums) = ledger.sums().await.unwrap();
    numbers.send(&7).await.unwrap();
    assert_eq!(sums.next().await.unwrap().unwrap(), 7);
    drop(sums);
    assert_eq!(ended.recv().await.unwrap(), "sums stopped");
}

#[tokio::test]
async fn the_application_s_error_ends_it_and_is_a_value() {
    let (client, _server) = pair(LedgerFunctions::of(books().0));
    let ledger = LedgerClient::new(client);
    let (mut orders, mut counts) = ledger.book().await.unwrap();
    orders.send(&Order { id: 7, lines: Vec::new() }).await.unwrap();
    let error = counts.next().await.unwrap().unwrap_err();
    let own = CallError::from(error);
    assert_eq!(own, CallError::Application(Failed::Order(OrderError::Unknown { id: 7 })));
    assert!(counts.next().await.is_none());
    orders.send(&Order { id: 8, lines: Vec::new() }).await.unwrap_err();
    // The connection, and with it others, is not concerned.
    let (mut said, mut back) = ledger.echo().await.unwrap();
    said.send(&"still".to_owned()).await.unwrap();
    assert_eq!(back.next().await.unwrap().unwrap(), "still");
}

/// What is not there, or not for this caller, says so where the first message would have come.
#[tokio::test]
async fn it_is_one_of_the_allow_list_like_any_other() {
    let (books, _ended) = books();
    let functions = LedgerFunctions::of(books);
    let all = ["ledger.sums", "ledger.book", "ledger.echo", "ledger.short", "ledger.who"];
    assert_eq!(LedgerFunctions::names()[..5], all);
    let exchanges = functions.names().filter(|name| functions.get(name).unwrap().is_exchange());
    assert_eq!(exchanges.count(), all.len());
    let about = |name| functions.get(name).unwrap().about();
    assert_eq!(about(LedgerFunctions::SUMS), "The sum so far, after each number.");
    let functions = functions.only(&[LedgerFunctions::SUMS, LedgerFunctions::ECHO]);
    let rules = vec![Rule::allow([LedgerFunctions::ECHO], ["*"])];
    let (dial, listen) = Memory::pair();
    let policy = Policy::new(rules, Action::Deny).unwrap();
    let _server = Server::new(functions).policy(policy).listen(listen).start();
    let client = Client::to(dial).start();
    let ledger = LedgerClient::new(client.clone());
    let (_numbers, mut sums) = ledger.sums().await.unwrap();
    let error = sums.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Denied, Executed::Never));
    let (_orders, mut counts) = ledger.book().await.unwrap();
    let error = counts.next().await.unwrap().unwrap_err();
    assert!([Kind::Denied, Kind::UnknownFunction].contains(&error.kind()), "{error}");
    let (mut said, mut back) = ledger.echo().await.unwrap();
    said.send(&"allowed".to_owned()).await.unwrap();
    assert_eq!(back.next().await.unwrap().unwrap(), "allowed");
    // Opened, and not called.
    let error = client.call::<_, ()>(LedgerFunctions::ECHO, &()).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
}

#[tokio::test]
async fn others_take_part_in_every_codec_and_typed_clients_in_postcard() {
    let (client, _server) = pair(LedgerFunctions::of(books().0));
    for codec in [Codec::Etf, Codec::Postcard, Codec::Json, Codec::Cbor, Codec::MessagePack] {
        let call = client.function(LedgerFunctions::BOOK).codec(codec);
        let (mut orders, mut counts) = call.open::<Order, Option<u32>>().await.unwrap();
        orders.send(&Order { id: 1, lines: vec!["tea".to_owned()] }).await.unwrap();
        assert_eq!(counts.next().await.unwrap().unwrap(), Some(1), "{codec}");
        orders.send(&Order { id: 2, lines: vec![] }).await.unwrap();
        let error = counts.next().await.unwrap().unwrap_err();
        let own = CallError::<Failed>::from(error);
        assert_eq!(own, CallError::Application(Failed::Order(OrderError::Unknown { id: 2 })));
    }
    // No other codec reads -1 as something else.
    let functions = meshx_rpc::Functions::new().add_exchange(
        LedgerFunctions::SUMS,
        async |mut numbers: Incoming<u64>, mut sums: Outgoing<u64>| {
            while let Some(number) = numbers.next().await {
                sums.send(&number?).await?;
            }
            Ok::<_, Error>(())
        },
    );
    let (client, _server) = pair(functions);
    let ledger = LedgerClient::new(client);
    let (mut numbers, mut sums) = ledger.sums().await.unwrap();
    numbers.send(&-1).await.unwrap();
    assert_eq!(sums.next().await.unwrap().unwrap(), -1);
    numbers.send(&-200).await.unwrap();
    assert_eq!(sums.next().await.unwrap().unwrap(), -200);
}

#[tokio::test(start_paused = true)]
async fn its_time_is_that_of_the_whole_and_there_is_none_unless_it_was_said() {
    let (books, mut ended) = books();
    let (client, _server) = pair(LedgerFunctions::of(books));
    let ledger = LedgerClient::new(client);
    let (_said, mut heard) = ledger.short().await.unwrap();
    let (mut numbers, mut sums) = ledger.sums().await.unwrap();
    let begun = Instant::now();
    let last = tokio::time::timeout(Duration::from_secs(1), heard.next()).await.unwrap();
    assert_eq!(last.unwrap().unwrap_err().kind(), Kind::Deadline);
    let waited = begun.elapsed();
    assert!((250..300).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(ended.recv().await.unwrap(), "short stopped");
    // Longer than any call.
    tokio::time::sleep(Duration::from_hours(1)).await;
    numbers.send(&7).await.unwrap();
    assert_eq!(sums.next().await.unwrap().unwrap(), 7);
}

/// A part of a call that is being made: it has no more time than that.
#[tokio::test]
async fn within_a_call_it_has_the_call_s_time() {
    let (inner, mut ended) = books();
    let (client, _inner) = pair(LedgerFunctions::of(inner));
    let ledger = LedgerClient::new(client);
    let (_said, mut heard) = ledger.who().await.unwrap();
    assert_eq!(heard.next().await.unwrap().unwrap(), (LedgerFunctions::WHO.to_owned(), None));
    drop(heard);
    assert_eq!(ended.recv().await.unwrap(), "who stopped");
    let (outer, _ended) = mpsc::unbounded_channel();
    let outer = Books { ended: outer, next: Some(ledger) };
    let (client, _outer) = pair(LedgerFunctions::of(Arc::new(outer)));
    let (_, remaining) = LedgerClient::new(client).ask().await.unwrap();
    let remaining = remaining.unwrap();
    assert!((1..=10).contains(&remaining.as_secs()), "{remaining:?}");
    // Who asked has gone.
    assert_eq!(ended.recv().await.unwrap(), "who stopped");
}
