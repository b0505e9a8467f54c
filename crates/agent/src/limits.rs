//! Every bound of the agent, in one place.

use std::time::Duration;

/// Services, over all nodes.
pub(crate) const SERVICES: usize = 10_000;
/// Checks, over all nodes.
pub(crate) const CHECKS: usize = 20_000;
/// Nodes of the catalog, the agent's own included.
pub(crate) const NODES: usize = 10_000;
/// Intentions.
pub(crate) const INTENTIONS: usize = 10_000;
/// Leaf certificates that are kept ready, each with the index of its service. The one that is
/// renewed first makes room, one that nobody waits for before one that somebody does.
pub(crate) const LEAVES: usize = if cfg!(test) { 64 } else { 16_384 };
/// Roots that are trusted at once.
pub(crate) const ROOTS: usize = 16;

/// Bytes of a request body; Consul 2.1 has the same bound.
pub(crate) const BODY: usize = 512 * 1024;
/// Bytes of a request's line and headers.
pub(crate) const HEADERS: usize = 64 * 1024;
/// HTTP connections.
pub(crate) const CONNECTIONS: usize = 2_048;
/// Blocking queries that wait.
pub(crate) const BLOCKING_QUERIES: usize = 4_096;
/// Patience for the first byte of a connection.
pub(crate) const FIRST_BYTE: Duration = Duration::from_secs(10);
/// Patience for the headers of a request, and for the next request of an idle connection.
pub(crate) const IDLE: Duration = Duration::from_mins(1);
/// Patience for a request body.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(10);
/// Patience for connections that still answer when the agent stops.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// How long a blocking query waits when it does not say (Consul: 5 min).
pub(crate) const WAIT_DEFAULT: Duration = Duration::from_mins(5);
/// How long a blocking query may wait (Consul: 10 min).
pub(crate) const WAIT_MAX: Duration = Duration::from_mins(10);
/// A blocking query waits up to a sixteenth longer, so that a herd disperses (Consul's fraction).
pub(crate) const WAIT_JITTER: u32 = 16;

/// Shortest interval of a probe (Consul: 1 s).
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A check that is critical is probed again after this long, then twice as long, up to its
/// interval: whoever comes up is seen at once, not an interval later.
pub(crate) const PROBE_AGAIN: Duration = Duration::from_millis(100);
/// Patience of one probe when it does not say (Consul: 10 s).
pub(crate) const PROBE_TIME: Duration = Duration::from_secs(10);
/// Longest patience of one probe; what asks for more gets this. Consul has no such bound.
pub(crate) const PROBE_TIME_MAX: Duration = Duration::from_mins(1);
/// Bytes of a probe's output that are kept (Consul: 4096).
pub(crate) const CHECK_OUTPUT: usize = 4_096;
/// Probes at one time, of all checks. More of them wait for their turn, first come first served: each
/// ends within its patience, so none waits longer than [`PROBE_TIME_MAX`] for every 256 before it.
pub(crate) const PROBES: usize = 256;
/// Shortest `DeregisterCriticalServiceAfter` (Consul: 1 min).
pub(crate) const DEREGISTER_AFTER: Duration = Duration::from_mins(1);

/// Ports given to sidecars that ask for none (Consul: 21000 to 21255).
pub(crate) const SIDECAR_PORTS: std::ops::RangeInclusive<u16> = 21_000..=21_255;

/// Metadata of a service or an intention: entries, bytes of a key, bytes of a value (Consul's).
pub(crate) const META: (usize, usize, usize) = (64, 128, 512);
/// Bytes of an intention's description (Consul: 512).
pub(crate) const DESCRIPTION: usize = 512;
/// Tags of a service.
pub(crate) const TAGS: usize = 256;
/// Bytes of any single text in a registration.
pub(crate) const TEXT: usize = 4_096;
/// Of an http check: bytes of its body, header lines, bytes of a line and of the method.
pub(crate) const PROBE_BODY: usize = 16 * 1024;
pub(crate) const PROBE_HEADERS: usize = 64;
pub(crate) const PROBE_HEADER: usize = 4_096;
pub(crate) const PROBE_METHOD: usize = 32;
/// Bytes of JSON that the agent keeps without reading it: a `Config`, a definition in the catalog.
pub(crate) const OPAQUE: usize = 16 * 1024;
/// Bytes of JSON of everything that a sidecar says under `Proxy`.
pub(crate) const PROXY: usize = 256 * 1024;
/// Addresses of a service or a node beside the first.
pub(crate) const TAGGED_ADDRESSES: usize = 64;
/// Checks that one registration brings.
pub(crate) const CHECKS_AT_ONCE: usize = 256;
/// Upstreams of a sidecar.
pub(crate) const UPSTREAMS: usize = 1_024;

/// How long a leaf lives when the configuration does not say (Consul: 72 h).
pub(crate) const LEAF_LIFE: Duration = Duration::from_hours(72);
/// Shortest life of a leaf (Consul: 1 h).
pub(crate) const LEAF_LIFE_MIN: Duration = Duration::from_hours(1);
/// Longest life of a leaf (Consul: 1 year).
pub(crate) const LEAF_LIFE_MAX: Duration = Duration::from_hours(365 * 24);
/// A retired root is trusted for this many lives of a leaf (Consul: twice).
pub(crate) const RETIRED_LIVES: u32 = 2;
/// How often retired roots are looked at (Consul: 1 h).
pub(crate) const ROOTS_LOOKED_AT: Duration = Duration::from_hours(1);

/// Bytes of a state file that are read.
pub(crate) const STATE_FILE: u64 = 64 * 1024 * 1024;

/// DNS: connections over TCP, bytes of a message over UDP without EDNS, answers over UDP without
/// EDNS (Consul: 3), idle time of a TCP connection.
pub(crate) const DNS_CONNECTIONS: usize = 256;
pub(crate) const DNS_PLAIN: u16 = 512;
pub(crate) const DNS_UDP_MAX: u16 = 4_096;
pub(crate) const DNS_UDP_ANSWERS: usize = 3;
pub(crate) const DNS_IDLE: Duration = Duration::from_secs(10);
/// Instances that a DNS answer is made of, over UDP and over TCP: more cannot fit.
pub(crate) const DNS_INSTANCES: (usize, usize) = (256, 4_096);
