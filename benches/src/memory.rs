//! What an idle sidecar takes.

use std::fs;
use std::thread;
use std::time::Duration;

use meshx_e2e::{Need, skips};

use crate::echo;
use crate::sample::say;
use crate::traffic::{Route, through_consul_proxies, through_meshx};

pub(crate) fn idle_sidecar() {
    let port = echo::serve();
    report(&through_meshx(port), "15 MB");
    if !skips(&[Need::Consul]) {
        report(&through_consul_proxies(port), "");
    }
}

/// The larger of the two, after it has carried something.
fn report(route: &Route, aim: &str) {
    thread::sleep(Duration::from_secs(1));
    let largest = route.processes.iter().map(|process| resident(process.pid())).fold(0.0, f64::max);
    say(&format!(
        "| idle sidecar, resident memory | {} | {:.1} MB | | {aim} |",
        route.peer, largest
    ));
}

/// `VmRSS` of a process, in MB (`proc_pid_status(5)`).
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024.0 / 1e6
}
