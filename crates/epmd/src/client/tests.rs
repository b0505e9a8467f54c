//! A client against daemons that hang, lie and break.

use std::net::SocketAddr;

use meshx_core::Diagnostic as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;

/// What a fake daemon does with a connection after a request of this length was read.
fn daemon<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> (Client, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = meshx_rt::net::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let client = Client::at(listener.local_addr().unwrap());
    (client, tokio::spawn(accept(listener, serve)))
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream));
    }
}

/// Reads the request, says this and closes.
async fn says(mut stream: TcpStream, bytes: &'static [u8]) {
    let length = stream.read_u16().await.unwrap();
    let mut body = vec![0; length.into()];
    stream.read_exact(&mut body).await.unwrap();
    // Once the client has heard enough it closes.
    drop(stream.write_all(bytes).await);
}

/// The code and text of the error of a lookup.
async fn failed_lookup(client: &Client) -> (u16, String) {
    let error = client.lookup("shop").await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot look up shop: "), "{text}");
    assert!(text.contains(&client.addresses()[0].to_string()), "{text}");
    assert!(error.hint().is_some());
    (error.code().0, text)
}

const FOUND: &[u8] = b"w\x00\x9c\xbbM\x00\x00\x06\x00\x05\x00\x04shop\x00\x00";

#[tokio::test]
async fn answers_are_believed_only_about_the_node_that_was_asked_for() {
    let (client, _daemon) = daemon(|stream| says(stream, FOUND));
    assert_eq!(client.lookup("shop").await.unwrap(), Some(Alive::new("shop", 40123)));
    let error = client.lookup("till").await.unwrap_err();
    assert!(matches!(&error, Error::OtherNode { found, .. } if found == "shop"), "{error}");
    let (client, _daemon) = daemon(|stream| says(stream, b"w\x01"));
    assert_eq!(client.lookup("shop").await.unwrap(), None);
}

#[tokio::test]
async fn every_other_answer_is_an_error_that_says_who() {
    for (answer, code) in [
        (b"".as_slice(), 623),
        (b"w", 623),
        (&FOUND[..12], 623),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 625),
        (b"w\x00\x9c\xbbM\x00\x00\x06\x00\x05\xff\xff", 625),
    ] {
        let (client, _daemon) = daemon(move |stream| says(stream, answer));
        assert_eq!(failed_lookup(&client).await.0, code, "{answer:?}");
    }
}

#[tokio::test]
async fn nobody_there() {
    let port = meshx_rt::net::free_port().unwrap();
    let client = Client::local_at(port);
    let (code, text) = failed_lookup(&client).await;
    assert_eq!(code, 620);
    assert!(text.contains(&format!("no EPMD answers at 127.0.0.1:{port}")), "{text}");
    let error = client.register(&Alive::new("shop", 1)).await.unwrap_err();
    assert!(error.hint().unwrap().contains(&format!("meshx epmd -daemon -port {port}")));
}

#[tokio::test]
async fn a_daemon_that_hangs_is_an_error_in_less_than_five_seconds() {
    let (client, _daemon) = daemon(|stream| async move {
        sleep(Duration::from_hours(1)).await;
        drop(stream);
    });
    let (slow, _slow) = daemon(|mut stream| async move {
        for byte in b"w\x00\x9c\xbbM\x00\x00\x06\x00\x05\x00\x04shop\x00\x00" {
            drop(stream.write_all(&[*byte]).await);
            sleep(Duration::from_millis(900)).await;
        }
    });
    let begun = Instant::now();
    let alive = Alive::new("shop", 1);
    let (asked, listed, registered, trickled) =
        tokio::join!(client.lookup("shop"), client.names(), client.register(&alive), slow.names());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for error in
        [asked.unwrap_err(), listed.unwrap_err(), registered.unwrap_err(), trickled.unwrap_err()]
    {
        assert_eq!(error.code().0, 621, "{error}");
    }
}

#[tokio::test]
async fn a_text_without_end_is_cut() {
    let (client, _daemon) = daemon(|mut stream| async move {
        let line = "name shop at port 40123\n".repeat(4096);
        while stream.write_all(line.as_bytes()).await.is_ok() {}
    });
    let error = client.names().await.unwrap_err();
    assert_eq!(error.code().0, 625, "{error}");
}

#[tokio::test]
async fn names_that_cannot_be_are_not_asked_for() {
    let client = Client::at(SocketAddr::from(([127, 0, 0, 1], 1)));
    for name in ["", "a b", "evil\nname x at port 1", "å"] {
        let error = client.lookup(name).await.unwrap_err();
        assert!(matches!(error, Error::Request { .. }), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn a_refused_registration_says_so() {
    let (client, _daemon) = daemon(|stream| says(stream, b"v\x01\x00\x00\x00\x63"));
    let error = client.register(&Alive::new("shop", 1)).await.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "{error}");
}

/// A daemon that grants once for each number and drops the lease after some time.
fn granting(holds: Duration) -> (Client, JoinHandle<()>) {
    daemon(move |mut stream| async move {
        drop(stream.read(&mut [0; 512]).await);
        drop(stream.write_all(b"v\x00\x00\x00\x01\x00").await);
        sleep(holds).await;
    })
}

#[tokio::test]
async fn a_lease_is_lost_when_its_connection_ends() {
    let (client, _daemon) = granting(Duration::from_millis(50));
    let lease = client.register(&Alive::new("shop", 1)).await.unwrap();
    assert_eq!(lease.creation(), 256);
    // Cancelled and called again.
    assert!(tokio::time::timeout(Duration::from_millis(1), lease.lost()).await.is_err());
    tokio::time::timeout(Duration::from_secs(5), lease.lost()).await.unwrap();
}

#[tokio::test]
async fn a_kept_name_comes_back_and_never_in_a_tight_loop() {
    let (client, daemon) = granting(Duration::ZERO);
    let kept = client.keep(Alive::new("shop", 1));
    assert_eq!(kept.standing(), Standing::Absent { because: None });
    assert_eq!(kept.registered().await, 256);
    let mut standing = kept.watch();
    let mut granted = 0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        drop(tokio::time::timeout(Duration::from_millis(500), standing.changed()).await);
        if matches!(*standing.borrow_and_update(), Standing::Registered { .. }) {
            granted += 1;
        }
    }
    assert!((1..=10).contains(&granted), "{granted} registrations in half a second");

    daemon.abort();
    drop(daemon.await);
    let absent = |standing: &Standing| matches!(standing, Standing::Absent { because: Some(why) } if why.contains("no EPMD answers"));
    let limit = Duration::from_secs(10);
    drop(tokio::time::timeout(limit, standing.wait_for(absent)).await.unwrap().unwrap());
    let listener = meshx_rt::net::listen(client.addresses()[0]).unwrap();
    let begun = Instant::now();
    let _daemon = tokio::spawn(accept(listener, |mut stream| async move {
        drop(stream.read(&mut [0; 512]).await);
        drop(stream.write_all(b"v\x00\x00\x00\x02\x00").await);
        sleep(Duration::from_hours(1)).await;
    }));
    assert_eq!(tokio::time::timeout(limit, kept.registered()).await.unwrap(), 512);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn the_usual_addresses_are_those_of_loopback() {
    let client = Client::local_at(4370);
    let addresses: Vec<String> = client.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:4370", "[::1]:4370"]);
    let other = client.on(IpAddr::from([192, 0, 2, 7]));
    assert_eq!(other, Client::at(SocketAddr::from(([192, 0, 2, 7], 4370))));
}
