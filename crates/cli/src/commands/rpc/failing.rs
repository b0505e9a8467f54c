//! What a call that failed means at the command line.

use meshx_rpc::{Error, Executed, Kind};
use serde_json::json;

use super::json;
use crate::failure::{Failure, exit};

/// The failure of a command that called.
pub(super) fn failure(error: &Error) -> Failure {
    let exit = match error.kind() {
        Kind::Application => exit::NEGATIVE,
        Kind::UnknownFunction => exit::NOT_FOUND,
        Kind::Denied => exit::DENIED,
        Kind::Deadline => exit::TIMED_OUT,
        Kind::Transport | Kind::Protocol => exit::UNREACHABLE,
        _ => exit::REMOTE,
    };
    let value = error.value().map(json::value);
    let mut document = json!({
        "kind": error.kind().token(),
        "executed": executed(error.executed()),
        "reason": error.reason(),
        "function": error.function(),
        "peer": error.peer(),
    });
    let mut failure = Failure { exit, ..Failure::of(error) };
    if let Some(value) = value {
        // A text says no more than the reason does, as a rule.
        if value.as_str() != Some(error.reason()) {
            failure.message.push_str(&format!("\n  value: {value}"));
        }
        document["value"] = value;
    }
    if let Some(pause) = error.pause() {
        document["retry_after_seconds"] = json!(pause.as_secs_f64());
    }
    // Only a handshake is denied without a function.
    if error.kind() == Kind::Denied && error.function().is_none() {
        failure.hint = Some("--key-file names a file with the key of the server".to_owned());
    }
    failure.rpc = Some(document);
    failure
}

/// Whether the function ran, in a word.
fn executed(executed: Executed) -> &'static str {
    match executed {
        Executed::Never => "never",
        Executed::Maybe => "maybe",
        Executed::Yes => "yes",
    }
}

#[cfg(test)]
mod tests {
    use meshx_rpc::{Body, Codec};

    use super::*;

    #[test]
    fn each_kind_has_its_exit_status() {
        for (kind, exit) in [
            (Kind::Application, 1),
            (Kind::UnknownFunction, 4),
            (Kind::Denied, 5),
            (Kind::Deadline, 6),
            (Kind::Overloaded, 8),
            (Kind::Cancelled, 8),
            (Kind::Value, 8),
            (Kind::Integrity, 8),
            (Kind::Draining, 8),
            (Kind::Panic, 8),
            (Kind::Protocol, 3),
            (Kind::Transport, 3),
        ] {
            let failure = failure(&Error::new(kind, Executed::Maybe, "why").of("f"));
            assert_eq!(failure.exit, exit, "{kind:?}");
            assert_eq!(failure.code.0, 850 + u16::from(kind.number()));
            assert_eq!(failure.rpc.unwrap()["kind"], kind.token());
        }
    }

    #[test]
    fn the_value_of_a_function_is_shown_where_it_says_more() {
        let error = |value: &str| {
            let body = Body { codec: Codec::Json, bytes: value.to_owned().into() };
            failure(&Error::new(Kind::Application, Executed::Yes, "empty").with_value(body))
        };
        assert_eq!(error("\"empty\"").message, "empty");
        assert_eq!(error("{\"cart\": 7}").message, "empty\n  value: {\"cart\":7}");
        assert_eq!(error("{\"cart\": 7}").rpc.unwrap()["value"]["cart"], 7);
    }
}
