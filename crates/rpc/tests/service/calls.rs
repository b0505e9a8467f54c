//! Arguments, results and errors.

use std::sync::{Arc, Mutex};

use meshx_etf::{Term, term};
use meshx_rpc::transport::Memory;
use meshx_rpc::{Body, CallError, Codec, Executed, Kind, v1};
use tokio_util::sync::CancellationToken;

use crate::{Order, OrderError, pair};

type Answer<T> = Result<T, OrderError>;

#[meshx_rpc::service(name = "orders")]
pub(crate) trait Orders {
    async fn ping(&self) -> Result<String, String>;

    async fn get(&self, id: u64, with_lines: bool) -> Result<Order, OrderError>;

    /// A result by another name, and arguments of many kinds.
    async fn put(&self, order: Order, tags: Vec<(String, Option<i8>)>) -> Answer<u64>;

    async fn close(&self) -> Result<(), OrderError>;

    /// Has a body, which an implementation may leave as it is.
    async fn get_all(&self, mut ids: Vec<u64>) -> Result<Vec<Order>, OrderError> {
        ids.sort_unstable();
        let mut orders = Vec::new();
        for id in ids {
            orders.push(self.get(id, true).await?);
        }
        if orders.is_empty() {
            return Err(OrderError::Closed);
        }
        Ok(orders)
    }
}

#[derive(Debug, Default)]
struct Shop(Mutex<Vec<Order>>);

impl Orders for Shop {
    async fn ping(&self) -> Result<String, String> {
        Ok("pong".to_owned())
    }

    async fn get(&self, id: u64, with_lines: bool) -> Result<Order, OrderError> {
        tokio::task::yield_now().await;
        let orders = self.0.lock().unwrap();
        let mut order = orders.iter().find(|order| order.id == id).cloned();
        if let Some(order) = order.as_mut().filter(|_| !with_lines) {
            order.lines.clear();
        }
        order.ok_or(OrderError::Unknown { id })
    }

    async fn put(&self, order: Order, tags: Vec<(String, Option<i8>)>) -> Answer<u64> {
        let id = order.id;
        self.0.lock().unwrap().push(order);
        Ok(id + tags.len() as u64)
    }

    async fn close(&self) -> Result<(), OrderError> {
        Err(OrderError::Closed)
    }
}

fn order(id: u64) -> Order {
    Order { id, lines: vec!["tea".to_owned(), "milk".to_owned()] }
}

#[tokio::test]
async fn a_call_is_a_function_call() {
    let (client, _server) = pair(OrdersFunctions::of(Arc::new(Shop::default())));
    let orders = OrdersClient::new(client);
    assert_eq!(orders.ping().await.unwrap(), "pong");
    let tags = vec![("new".to_owned(), None), ("hot".to_owned(), Some(-1))];
    assert_eq!(orders.put(order(7), tags).await.unwrap(), 9);
    assert_eq!(orders.get(7, true).await.unwrap(), order(7));
    assert_eq!(orders.get(7, false).await.unwrap().lines, [""; 0]);
    assert_eq!(orders.put(order(3), vec![]).await.unwrap(), 3);
    // Both are one client, in any task.
    let other = orders.clone();
    let both = tokio::spawn(async move { other.get_all(vec![7, 3]).await });
    assert_eq!(both.await.unwrap().unwrap(), [order(3), order(7)]);
}

#[tokio::test]
async fn the_application_s_errors_are_values() {
    let (client, _server) = pair(OrdersFunctions::of(Arc::new(Shop::default())));
    let orders = OrdersClient::new(client.clone());
    let error = orders.get(7, true).await.unwrap_err();
    assert_eq!(error, CallError::Application(OrderError::Unknown { id: 7 }));
    assert_eq!((error.kind(), &*error.to_string()), (Kind::Application, "there is no order 7"));
    let error = orders.get_all(vec![]).await.unwrap_err();
    assert_eq!(error, CallError::Application(OrderError::Closed));
    assert_eq!(orders.close().await, Err(CallError::Application(OrderError::Closed)));
}

#[tokio::test]
async fn whatever_else_goes_wrong_is_an_error_of_the_call() {
    let functions = OrdersFunctions::of(Arc::new(Shop::default())).only(&[OrdersFunctions::PING]);
    // A function of this name that is another one, and gives another error.
    let functions = functions.add(OrdersFunctions::CLOSE, async |()| Err::<(), _>("no"));
    let (client, server) = pair(functions);
    let orders = OrdersClient::new(client);
    let CallError::Rpc(error) = orders.get(7, true).await.unwrap_err() else { panic!("no answer") };
    assert_eq!((error.kind(), error.executed()), (Kind::UnknownFunction, Executed::Never));
    assert_eq!(error.function(), Some("orders.get"));
    let CallError::Rpc(error) = orders.close().await.unwrap_err() else {
        panic!("no `OrderError`")
    };
    assert_eq!((error.kind(), error.reason()), (Kind::Application, "no"));
    drop(server);
    let CallError::Rpc(error) = orders.ping().await.unwrap_err() else { panic!("nobody there") };
    assert_eq!(error.kind(), Kind::Transport);
}

/// Callers in other languages, and without the types.
#[tokio::test]
async fn arguments_are_a_tuple_in_every_codec() {
    let shop = Shop(Mutex::new(vec![order(7)]));
    let (client, _server) = pair(OrdersFunctions::of(Arc::new(shop)));
    for codec in [Codec::Etf, Codec::Postcard, Codec::Json, Codec::Cbor, Codec::MessagePack] {
        let call = |name| client.function(name).codec(codec);
        let pong: String = call(OrdersFunctions::PING).call(&()).await.unwrap();
        let found: Order = call("orders.get").call(&(7_u64, true)).await.unwrap();
        let all: Vec<Order> = call("orders.get_all").call(&(vec![7_u64],)).await.unwrap();
        assert_eq!((&*pong, &found, &all[..]), ("pong", &order(7), &[order(7)][..]), "{codec}");
        let error = call("orders.get").call::<_, Order>(&(8_u64, true)).await.unwrap_err();
        let own = CallError::<OrderError>::from(error);
        assert_eq!(own, CallError::Application(OrderError::Unknown { id: 8 }), "{codec}");
    }
    let error = client.call::<_, Order>("orders.get", &(7_u64,)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
}

/// As the Elixir package sends them: `[7, true]`, and `[]` for none.
#[tokio::test]
async fn in_version_1_arguments_may_be_a_list() {
    let shop = Shop(Mutex::new(vec![order(7)]));
    let (dial, listen) = Memory::pair();
    let functions = OrdersFunctions::of(Arc::new(shop));
    let server = v1::Server::new(functions, v1::ServerOptions::default()).unwrap();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let serving = tokio::spawn(async move { server.run(listen, stopped).await });
    let client = v1::Client::new(dial, v1::ClientOptions::default()).unwrap();
    let call = async |name: &str, arguments: Term| {
        let bytes = meshx_etf::encode(&arguments).unwrap().into();
        client.request(name).call_raw(Body { codec: Codec::Etf, bytes }).await.unwrap()
    };
    let pong = call(OrdersFunctions::PING, term!([])).await;
    let found = call(OrdersFunctions::GET, term!([7, true])).await;
    let all = call(OrdersFunctions::GET_ALL, term!([[7]])).await;
    assert_eq!(pong.decode::<String>().unwrap(), "pong");
    assert_eq!(found.decode::<Order>().unwrap(), order(7));
    assert_eq!(all.decode::<Vec<Order>>().unwrap(), [order(7)]);
    client.close().await;
    stop.cancel();
    serving.await.unwrap();
}
