//! How sockets are opened.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use meshx_rt::net;
use socket2::SockRef;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn any_port() -> SocketAddr {
    SocketAddr::new(LOOPBACK, 0)
}

#[tokio::test]
async fn both_ends_are_tuned() {
    let listener = net::listen(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    let dialled = net::dial(address, Duration::from_secs(1)).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    assert!(!accepted.nodelay().unwrap(), "tuning is what sets it");
    net::tune(&accepted).unwrap();
    for stream in [&dialled, &accepted] {
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error() {
    let first = net::listen(any_port()).unwrap();
    let taken = first.local_addr().unwrap();
    assert_eq!(net::listen(taken).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(first);
    net::listen(taken).unwrap();
}

#[tokio::test]
async fn a_range_that_is_taken_gives_any_other_port() {
    let first = net::listen(any_port()).unwrap();
    let port = first.local_addr().unwrap().port();
    let second = net::listen_in(LOOPBACK, port..port + 1, 3).unwrap();
    assert_ne!(second.local_addr().unwrap().port(), port);
    let third = net::listen_in(LOOPBACK, 0..0, 0).unwrap();
    assert_ne!(third.local_addr().unwrap().port(), 0);
}

#[tokio::test]
async fn a_port_in_the_range_is_taken_where_one_is_free() {
    let free = net::free_port().unwrap();
    let listener = net::listen_in(LOOPBACK, free..free + 1, 7).unwrap();
    assert_eq!(listener.local_addr().unwrap().port(), free);
}

#[tokio::test]
async fn ipv6_listens_and_is_dialled() {
    let Ok(listener) = net::listen(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)) else {
        println!("skipped: no IPv6 on this machine");
        return;
    };
    net::dial(listener.local_addr().unwrap(), Duration::from_secs(1)).await.unwrap();
}

#[tokio::test]
async fn a_dial_to_nobody_is_refused_at_once() {
    let nobody = SocketAddr::new(LOOPBACK, net::free_port().unwrap());
    let error = net::dial(nobody, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_dial_to_one_that_never_answers_ends() {
    // A full backlog is the one address on loopback that says nothing at all.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&any_port().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fills = Vec::new();
    for _ in 0..8 {
        match net::dial(address, Duration::from_millis(200)).await {
            Ok(stream) => fills.push(stream),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                assert!(error.to_string().contains("200ms"), "{error}");
                return;
            }
        }
    }
    panic!("the backlog never filled");
}
