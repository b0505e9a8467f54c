//! `idempotent`, `timeout` and `cast`.

use std::sync::Arc;
use std::time::Duration;

use meshx_rpc::transport::{Dial, Listen, Memory};
use meshx_rpc::{CallError, Client, Executed, Functions, Kind, Server};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::{Count, OrderError, pair};

#[meshx_rpc::service(name = "manners")]
pub(crate) trait Manners {
    #[rpc(idempotent)]
    async fn again(&self) -> Result<usize, String>;

    async fn once(&self) -> Result<usize, String>;

    #[rpc(cast, idempotent)]
    async fn cast_again(&self, event: String);

    #[rpc(timeout = "250ms")]
    async fn short(&self) -> Result<(), String>;

    #[rpc(idempotent)]
    #[rpc(timeout = "2m")]
    async fn long(&self) -> Result<(), String>;

    #[rpc(cast)]
    async fn audit(&self, event: String, count: u8);

    #[rpc(cast)]
    async fn fails(&self) -> Result<(), OrderError>;

    #[rpc(cast, timeout = "1s")]
    async fn lost(&self) -> Result<(), OrderError> {
        std::future::pending().await
    }
}

/// The first call of each kind loses its connection.
#[derive(Debug)]
struct Clumsy {
    runs: Count,
    cut: Arc<Notify>,
    events: mpsc::UnboundedSender<String>,
}

impl Clumsy {
    async fn stumble(&self) -> usize {
        let runs = self.runs.add();
        if runs == 1 {
            self.cut.notify_one();
            std::future::pending::<()>().await;
        }
        runs
    }
}

impl Manners for Clumsy {
    async fn again(&self) -> Result<usize, String> {
        Ok(self.stumble().await)
    }

    async fn once(&self) -> Result<usize, String> {
        Ok(self.stumble().await)
    }

    async fn cast_again(&self, event: String) {
        self.runs.add();
        self.events.send(event).unwrap();
    }

    async fn short(&self) -> Result<(), String> {
        std::future::pending().await
    }

    async fn long(&self) -> Result<(), String> {
        std::future::pending().await
    }

    async fn audit(&self, event: String, count: u8) {
        self.events.send(format!("{count} {event}")).unwrap();
    }

    async fn fails(&self) -> Result<(), OrderError> {
        self.events.send("fails".to_owned()).unwrap();
        Err(OrderError::Closed)
    }
}

fn clumsy() -> (Arc<Clumsy>, mpsc::UnboundedReceiver<String>) {
    let (events, received) = mpsc::unbounded_channel();
    let (runs, cut) = (Count::default(), Arc::default());
    (Arc::new(Clumsy { runs, cut, events }), received)
}

/// A way to the functions on which connections can be cut.
fn relay(functions: Functions, cut: Arc<Notify>) -> Client {
    let (dial, mut listen) = Memory::pair();
    let (onward, inner) = Memory::pair();
    let server = Server::new(functions).listen(inner).start();
    tokio::spawn(async move {
        let _server = server;
        loop {
            let (here, there) = (listen.accept().await.unwrap(), onward.dial().await.unwrap());
            let mut left = tokio::io::join(here.read, here.write);
            let mut right = tokio::io::join(there.read, there.write);
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut left, &mut right) => {}
                () = cut.notified() => {}
            }
        }
    });
    Client::to(dial).connections(1).start()
}

#[tokio::test]
async fn what_is_idempotent_is_called_again_when_the_connection_is_lost() {
    let (service, _events) = clumsy();
    let client = relay(MannersFunctions::of(Arc::clone(&service)), Arc::clone(&service.cut));
    assert_eq!(MannersClient::new(client).again().await.unwrap(), 2);
    assert_eq!(service.runs.get(), 2);
}

#[tokio::test]
async fn what_is_not_is_not() {
    let (service, _events) = clumsy();
    let client = relay(MannersFunctions::of(Arc::clone(&service)), Arc::clone(&service.cut));
    let manners = MannersClient::new(client);
    let CallError::Rpc(error) = manners.once().await.unwrap_err() else { panic!("cut") };
    assert_eq!((error.kind(), error.executed()), (Kind::Transport, Executed::Maybe));
    assert_eq!(service.runs.get(), 1);
    // The next call makes a connection again.
    assert_eq!(manners.once().await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_time_of_its_own_is_that_of_its_calls() {
    let (service, _events) = clumsy();
    let (client, _server) = pair(MannersFunctions::of(service));
    let manners = MannersClient::new(client);
    let begun = Instant::now();
    let error = manners.short().await.unwrap_err();
    let waited = begun.elapsed();
    assert_eq!(error.kind(), Kind::Deadline);
    assert!((250..300).contains(&waited.as_millis()), "{waited:?}");
    // Longer than usual.
    let begun = Instant::now();
    assert_eq!(manners.long().await.unwrap_err().kind(), Kind::Deadline);
    let waited = begun.elapsed();
    assert!((120..121).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cast_waits_for_no_result() {
    let (service, mut events) = clumsy();
    let (client, _server) = pair(MannersFunctions::of(service));
    let manners = MannersClient::new(client);
    manners.audit("sold".to_owned(), 3).await.unwrap();
    assert_eq!(events.recv().await.unwrap(), "3 sold");
    manners.cast_again("kept".to_owned()).await.unwrap();
    assert_eq!(events.recv().await.unwrap(), "kept");
    // Its failure is nobody's either.
    manners.fails().await.unwrap();
    assert_eq!(events.recv().await.unwrap(), "fails");
    let begun = Instant::now();
    manners.lost().await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_cast_that_nobody_accepts_is_an_error() {
    let (client, _server) = pair(Functions::new());
    let manners = MannersClient::new(client);
    let error: meshx_rpc::Error = manners.audit("lost".to_owned(), 1).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::UnknownFunction, Executed::Never));
}
