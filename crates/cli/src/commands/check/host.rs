//! What can be known of the machine alone.

use rustix::process::{Resource, getrlimit};

use super::{Finding, Outcome, bad, good};

/// Each connection costs a sidecar two descriptors.
const FEW_FILES: u64 = 4096;
/// Where public listeners take their ports.
const PUBLIC_PORTS: std::ops::Range<u32> = 20_000..21_000;

pub(super) fn checks() -> Vec<Finding> {
    vec![files(), ports()]
}

fn files() -> Finding {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < FEW_FILES => bad(
            405,
            Outcome::Warning,
            format!("{limit} open files allowed"),
            "a sidecar needs two for each connection",
            "ulimit -n 65536, or LimitNOFILE=65536 in the unit",
        ),
        Some(limit) => good(405, format!("{limit} open files allowed")),
        None => good(405, "open files are not limited"),
    }
}

fn ports() -> Finding {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first =
        range.ok().and_then(|text| text.split_ascii_whitespace().next()?.parse::<u32>().ok());
    match first {
        Some(first) if first < PUBLIC_PORTS.end => bad(
            408,
            Outcome::Warning,
            format!("the ephemeral ports begin at {first}"),
            format!("ports {PUBLIC_PORTS:?} of the sidecars may be busy when they start"),
            "sysctl net.ipv4.ip_local_port_range=\"32768 60999\", or give --listen",
        ),
        _ => good(408, "the sidecars' ports are outside of the ephemeral range"),
    }
}
