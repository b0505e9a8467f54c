//! The fixture of VMs without the product: what tests of Rust nodes build on.

use std::time::{Duration, Instant};

use meshx_e2e::{Epmd, PlainVm, Release, skips};

#[test]
fn plain_vms_of_the_machines_own_release_meet() {
    two_plain_vms(Release::Machine);
}

#[test]
fn plain_vms_of_otp_23_meet() {
    two_plain_vms(Release::Otp23);
}

#[test]
fn plain_vms_of_otp_27_meet() {
    two_plain_vms(Release::Otp27);
}

#[test]
fn plain_vms_of_otp_29_meet() {
    two_plain_vms(Release::Otp29);
}

fn two_plain_vms(release: Release) {
    if skips(release.needs()) {
        return;
    }
    let epmd = Epmd::start(release);
    let mut a = PlainVm::start(release, "a@127.0.0.1", "one cookie", epmd.port());
    let mut b =
        PlainVm::builder(release, "b@127.0.0.1", "one cookie", epmd.port()).hidden().start();
    assert_eq!(a.eval("os:getpid()"), format!("\"{}\"", a.pid()));
    assert_eq!(b.connect("a@127.0.0.1"), "true", "{}", b.stderr());
    assert_eq!(a.eval("{nodes(), nodes(hidden)}"), "{[],['b@127.0.0.1']}");
    let other = PlainVm::start(release, "c@127.0.0.1", "another", epmd.port());
    assert_eq!(a.connect("c@127.0.0.1"), "false");
    // Bindings and mailbox are those of one process.
    b.eval("Me = self(), register(me, Me)");
    a.eval("{me, 'b@127.0.0.1'} ! {hello, self()}");
    assert_eq!(b.eval("receive {hello, P} -> node(P) after 5000 -> timeout end"), "'a@127.0.0.1'");
    assert_eq!(b.try_eval("exit(oops)"), Err("exit oops".to_owned()));
    // A dropped one is gone without a word.
    drop(other);
    a.eval("erlang:monitor_node('b@127.0.0.1', true)");
    let start = Instant::now();
    drop(b);
    assert_eq!(a.eval("receive {nodedown, N} -> N after 5000 -> timeout end"), "'b@127.0.0.1'");
    assert!(start.elapsed() < Duration::from_secs(4));
}
