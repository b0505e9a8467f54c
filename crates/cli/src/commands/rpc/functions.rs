//! What `meshx rpc serve` offers.

use std::fmt;
use std::time::Duration;

use meshx_rpc::{Body, Context, Error, Executed, Functions, Kind};
use serde::Serialize;
use serde_json::Value;

use crate::args::rpc::Demo;

/// How many bytes `big` gives: what clients take, unless they say otherwise.
const BIGGEST: usize = 64 << 20;

/// How long `sleep` sleeps.
const LONGEST: Duration = Duration::from_hours(1);

/// These, and no others.
pub(super) fn functions(wanted: &[Demo]) -> Functions {
    wanted.iter().fold(Functions::new(), |functions, demo| match demo {
        Demo::Add => functions
            .add("add", async |(a, b): (i64, i64)| a.checked_add(b).ok_or("the sum is too large"))
            .about("add", "the sum of two integers: [A, B]"),
        Demo::Big => functions
            .add_raw("big", async |argument| {
                let size = argument.decode::<usize>().map_err(unreadable)?;
                match size {
                    0..=BIGGEST => Ok(Body::raw(vec![b'.'; size])),
                    _ => Err(Error::new(Kind::Value, Executed::Never, "at most 67108864 bytes")),
                }
            })
            .about("big", "so many bytes: N"),
        Demo::Echo => functions
            .add_raw("echo", async |argument| Ok(argument))
            .about("echo", "what it is given"),
        Demo::Fail => functions
            .add("fail", async |what: Value| Err::<(), _>(Failed(what)))
            .about("fail", "an error, with what it is given"),
        Demo::Sleep => functions
            .add("sleep", async |milliseconds: u64| {
                tokio::time::sleep(Duration::from_millis(milliseconds).min(LONGEST)).await;
                Ok::<_, Error>(milliseconds)
            })
            .about("sleep", "waits, an hour at most: MILLISECONDS"),
        Demo::Who => functions
            .add("who", async |()| Ok::<_, Error>(who()))
            .about("who", "who calls, and what travels with the call"),
    })
}

fn unreadable(error: impl fmt::Display) -> Error {
    let reason = format!("the argument cannot be read: {error}");
    Error::new(Kind::Value, Executed::Never, reason)
}

/// An error with a value of the caller's choice.
#[derive(Serialize)]
struct Failed(Value);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::String(reason) => f.write_str(reason),
            _ => f.write_str("it failed, as it was asked to"),
        }
    }
}

fn who() -> Value {
    let Some(context) = Context::current() else { return Value::Null };
    let peer = context.peer();
    serde_json::json!({
        "address": peer.address,
        "identity": peer.identity,
        "service": peer.remote.svc_ref,
        "node": peer.remote.node_ref,
        "metadata": context.metadata(),
    })
}
