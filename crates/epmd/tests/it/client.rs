//! Our client with OTP's daemon.

use std::time::{Duration, Instant};

use meshx_core::Diagnostic as _;
use meshx_dist::epmd::{Alive, KillReply, NodeType, StopReply};
use meshx_epmd::{Client, Error, Standing};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::otp::{self, Otp};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn speaks_with_otps_daemon() {
    if otp::is_missing() {
        return;
    }
    let epmd = Otp::start(&["-relaxed_command_check"]);
    let client = epmd.client();
    let mut alive = Alive::new("shop", 40123);
    alive.node_type = NodeType::HIDDEN;
    alive.extra = vec![7, 0, 255];
    let lease = client.register(&alive).await.unwrap();
    assert!(lease.creation() >= 4);
    assert_eq!(client.lookup("shop").await.unwrap(), Some(alive.clone()));
    assert_eq!(client.lookup("till").await.unwrap(), None);
    let error = client.register(&alive).await.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "{error}");
    let names = client.names().await.unwrap();
    assert_eq!(names.port, u32::from(epmd.address().port()));
    assert_eq!(names.nodes, [("shop".to_owned(), 40123)]);
    assert_eq!(client.dump().await.unwrap().active[0].name, "shop");
    assert_eq!(client.stop("till").await.unwrap(), StopReply::NoExist);
    assert_eq!(client.stop("shop").await.unwrap(), StopReply::Stopped);
    timeout(SOON, lease.lost()).await.unwrap();
    let again = client.register(&alive).await.unwrap();
    assert_ne!(again.creation(), lease.creation());
    drop(again);
    assert_eq!(client.kill().await.unwrap(), KillReply::Ok);
}

#[tokio::test]
async fn a_stopped_daemon_is_an_error_in_less_than_five_seconds() {
    if otp::is_missing() {
        return;
    }
    let epmd = Otp::start(&[]);
    let client = epmd.client();
    let kept = client.keep(Alive::new("kept", 1));
    timeout(SOON, kept.registered()).await.unwrap();
    epmd.signal(Signal::STOP);
    let begun = Instant::now();
    let alive = Alive::new("shop", 1);
    let (found, listed, lease) =
        tokio::join!(client.lookup("kept"), client.names(), client.register(&alive));
    let took = begun.elapsed();
    for error in [found.unwrap_err(), listed.unwrap_err(), lease.unwrap_err()] {
        assert!(matches!(error, Error::Silent { .. }), "{error}");
        assert!(error.is_retryable() && error.hint().is_some());
    }
    assert!(took < Duration::from_secs(5), "{took:?}");
    // The daemon that wakes up has kept the name.
    assert!(matches!(kept.standing(), Standing::Registered { .. }));
    epmd.signal(Signal::CONT);
    assert!(client.lookup("kept").await.unwrap().is_some());
}

#[tokio::test]
async fn a_kept_name_survives_daemons() {
    if otp::is_missing() {
        return;
    }
    let epmd = Otp::start(&[]);
    let port = epmd.address().port();
    let client = Client::local_at(port);
    let lease = client.register(&Alive::new("shop", 40123)).await.unwrap();
    let kept = lease.keep();
    let mut standing = kept.watch();
    epmd.kill();
    let is_absent = |standing: &Standing| matches!(standing, Standing::Absent { .. });
    drop(timeout(SOON, standing.wait_for(is_absent)).await.unwrap().unwrap());
    // Long enough for the waits between tries to have grown.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let _epmd = Otp::start_at(port, &[]);
    let begun = Instant::now();
    timeout(SOON, kept.registered()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(client.lookup("shop").await.unwrap().unwrap().port, 40123);
    drop(kept);
    let begun = Instant::now();
    while client.lookup("shop").await.unwrap().is_some() {
        assert!(begun.elapsed() < SOON, "the name is given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
