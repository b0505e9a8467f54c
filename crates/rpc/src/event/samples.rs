//! Events to try the sinks with.

use std::time::Duration;

use super::{Amount, Called, Side, Times, Way};
use crate::context::{Peer, Protocol, Refs};
use crate::error::{Error, Executed, Kind};

/// With both sides' references as in the documentation of `MeshxRpc`.
pub(super) fn peer() -> Peer {
    let refs = |conn_ref: [u8; 4], svc_ref: &str| Refs {
        conn_ref: conn_ref.into(),
        node_ref: "nonode@nohost".into(),
        svc_ref: svc_ref.into(),
    };
    Peer {
        address: "127.0.0.1:4000".into(),
        identity: Some("spiffe://ab.consul/ns/default/dc/dc1/svc/web".into()),
        remote: refs([66, 9, 108, 5], "Elixir.Example2.Server"),
        local: refs([123, 219, 9, 168], "Elixir.Example2.Client"),
        hsk_ref: 4034,
        protocol: Protocol::V1,
    }
}

pub(super) fn called<'a>(function: &'a str, result: Result<(), &'a Error>) -> Called<'a> {
    let micros = Duration::from_micros;
    Called {
        side: Side::Client,
        way: Way::Call,
        function,
        peer: None,
        req_ref: 4066,
        trace: None,
        result,
        attempt: 1,
        times: Times {
            idle: Duration::from_nanos(17_547_272),
            queue: micros(1),
            ser: micros(3),
            send: micros(105),
            exec: micros(2002),
            recv: micros(36),
            dser: micros(6),
        },
        sent: Amount { bytes: 31, blocks: 1 },
        received: Amount { bytes: 1_572_864, blocks: 96 },
    }
}

/// One of that kind, whose reason repeats a secret.
pub(super) fn error(kind: Kind) -> Error {
    Error::new(kind, Executed::Maybe, "it is hunter2")
}
