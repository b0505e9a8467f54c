//! Bodies and errors as version 1 carries them.

use std::fmt::{self, Write as _};

use bytes::Bytes;
use meshx_etf::{Atom, Binary, Encoder, Map, Term, decode};

use super::wire::Fault;
use crate::codec::{Body, Codec, CodecError};
use crate::error::{Error, Executed, Kind};

/// A longer error is not looked into.
const LOOKED_INTO: usize = 64 * 1024;
/// So much of a term is repeated in words.
const WORDS: usize = 300;

/// A body and how it is serialised: bytes as they are (0) or a term (1). A term that is a binary goes
/// as its bytes, as from Elixir.
pub(super) fn to_wire(body: &Body) -> Result<(u8, Bytes), CodecError> {
    match (body.codec, &body.bytes[..]) {
        (Codec::Raw, _) => Ok((0, body.bytes.clone())),
        (Codec::Etf, [131, 109, a, b, c, d, rest @ ..])
            if usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])) == Ok(rest.len()) =>
        {
            Ok((0, body.bytes.slice(6..)))
        }
        (Codec::Etf, _) => Ok((1, body.bytes.clone())),
        (codec, _) => {
            let reason = "version 1 of the protocol carries only bytes and terms".to_owned();
            Err(CodecError { codec, reason })
        }
    }
}

/// The other way round.
pub(super) fn from_wire(flag: u8, bytes: Bytes) -> Body {
    Body { codec: if flag == 0 { Codec::Raw } else { Codec::Etf }, bytes }
}

/// An argument as another caller would have written it: a tuple for a list, and `nil` for `[]`. An
/// Elixir program calls a function of several arguments with a list, and one of none with `[]`.
pub(super) fn unlisted(argument: &Body) -> Option<Body> {
    // A list of any form.
    if argument.codec != Codec::Etf || !matches!(&argument.bytes[..], [131, 106..=108, ..]) {
        return None;
    }
    let Ok(Term::List(elements)) = decode(&argument.bytes) else { return None };
    let term = if elements.is_empty() { Term::atom("nil") } else { Term::Tuple(elements) };
    Some(Body { codec: Codec::Etf, bytes: written(&term) })
}

/// What a caller is told of a function's failure. What fails with a term of its own, other than text,
/// tells that, as `exit` in Elixir does; any other failure is told as an Elixir exception.
pub(super) fn told(error: &Error) -> Bytes {
    match error.value() {
        Some(Body { codec: Codec::Etf, bytes })
            if error.kind() == Kind::Application && !matches!(&bytes[..], [131, 109, ..]) =>
        {
            bytes.clone()
        }
        _ if error.kind() == Kind::Value && error.is_surely_not_executed() => {
            exception("Elixir.ArgumentError", error.reason())
        }
        _ => exception("Elixir.RuntimeError", error.reason()),
    }
}

/// There is no such function: as the VM tells it, `{undef, [{Module, Function, Arguments, []}]}`. The
/// second form has only the number of arguments.
pub(super) fn undefined(service: &str, function: &str, argument: &Body) -> [Bytes; 2] {
    let arguments = match argument.codec {
        Codec::Raw => Some(Term::Binary(Binary::shared(argument.bytes.clone()))),
        _ => Some(&argument.bytes)
            .filter(|it| it.len() <= LOOKED_INTO)
            .and_then(|it| decode(it).ok()),
    };
    let arguments = arguments.map_or(Term::Integer(1), |it| Term::List(vec![it]));
    let told = |arguments| {
        let place = match Atom::new(function) {
            Ok(function) => {
                let function = Term::Atom(function);
                vec![Term::Tuple(vec![Term::atom(service), function, arguments, Term::nil()])]
            }
            // No Elixir program can have called that.
            Err(_) => Vec::new(),
        };
        written(&Term::Tuple(vec![Term::atom("undef"), Term::List(place)]))
    };
    [told(arguments), told(Term::Integer(1))]
}

/// An atom.
pub(super) fn atom(text: &str) -> Bytes {
    written(&Term::atom(text))
}

/// What a violation is called towards a client, and whether that is said at all.
pub(super) fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Malformed => "invalid_state",
        Fault::Reference => "invalid_ref",
        Fault::Checksum => "invalid_cks",
        Fault::TooLong { .. } => TOO_LARGE,
    }
}

/// Our own: the Elixir package has no limit.
const TOO_LARGE: &str = "message_too_large";

fn exception(module: &str, message: &str) -> Bytes {
    let mut map = Map::new();
    map.insert(Term::atom("__exception__"), Term::atom("true"));
    map.insert(Term::atom("__struct__"), Term::atom(module));
    map.insert(Term::atom("message"), Term::Binary(Binary::copy(message.as_bytes())));
    written(&Term::Map(map))
}

/// With atoms that every release of Erlang/OTP reads.
fn written(term: &Term) -> Bytes {
    let encoder = Encoder::new().atoms(meshx_etf::AtomForm::Latin1);
    // Only a term with more elements than can be counted has no form; none is made here.
    encoder.term(term).unwrap_or_default().into()
}

/// The error that a server told of a call of `function`.
pub(super) fn read_error(flag: u8, bytes: Bytes, function: &str) -> Error {
    let value = from_wire(flag, bytes);
    let application = |reason: String| {
        Error::new(Kind::Application, Executed::Yes, reason).with_value(value.clone())
    };
    if value.bytes.len() > LOOKED_INTO {
        return application(format!("an error of {} bytes", value.bytes.len()));
    }
    if value.codec == Codec::Raw {
        return application(short(&String::from_utf8_lossy(&value.bytes)));
    }
    match decode(&value.bytes) {
        Ok(Term::Atom(name)) => {
            let (kind, executed, reason) = match name.as_str() {
                "killed" | "timeout_call_exec" => {
                    (Kind::Deadline, Executed::Yes, "the server's limit of time was reached")
                }
                "invalid_cks" => (
                    Kind::Integrity,
                    Executed::Never,
                    "the server misses a checksum or finds a wrong one; \
                     are checksums configured alike at both ends?",
                ),
                "timeout_cks" => {
                    (Kind::Integrity, Executed::Maybe, "the server was too slow to make checksums")
                }
                "invalid_ref" | "invalid_state" => {
                    (Kind::Protocol, Executed::Never, "the server did not take the request")
                }
                TOO_LARGE => {
                    (Kind::Value, Executed::Never, "the argument is larger than the server takes")
                }
                "invalid_pkt_size" => (
                    Kind::Value,
                    Executed::Maybe,
                    "the server's blocks are too small for its answer",
                ),
                "badarg" | "serialization_fail" => {
                    (Kind::Value, Executed::Maybe, "the server cannot read the argument")
                }
                "error_too_long" => (
                    Kind::Application,
                    Executed::Maybe,
                    "it failed with an error longer than a block",
                ),
                _ => return application(format!("it exited: {}", short(&name))),
            };
            Error::new(kind, executed, reason).with_value(value)
        }
        Ok(Term::Map(map)) => match (map.get_atom("__struct__"), map.get_atom("message")) {
            (Some(Term::Atom(module)), Some(Term::Binary(message))) => {
                let message = String::from_utf8_lossy(message.as_slice());
                let message = short(&message);
                application(match module.as_str().trim_start_matches("Elixir.") {
                    "RuntimeError" => message,
                    module => format!("{module}: {message}"),
                })
            }
            _ => application(short(&Term::Map(map))),
        },
        Ok(Term::Tuple(parts)) => match &parts[..] {
            [Term::Atom(reason), Term::List(stack)]
                if reason.as_str() == "undef" && is_of(stack, function) =>
            {
                let reason = "the server has no such function of one argument";
                Error::new(Kind::UnknownFunction, Executed::Never, reason).with_value(value)
            }
            [reason, Term::List(_)] => application(format!("it failed: {}", short(reason))),
            _ => application(short(&Term::Tuple(parts))),
        },
        Ok(term) => application(short(&term)),
        Err(_) => application("an error that is no term".to_owned()),
    }
}

/// Whether the function itself is what does not exist, and not one that it called.
fn is_of(stack: &[Term], function: &str) -> bool {
    let Some(first) = stack.first() else { return true };
    let Term::Tuple(place) = first else { return false };
    match &place[..] {
        [_, Term::Atom(name), arguments, ..] => {
            let one = match arguments {
                Term::Integer(count) => *count == 1,
                Term::List(arguments) => arguments.len() == 1,
                _ => false,
            };
            one && name.as_str() == function
        }
        _ => false,
    }
}

/// The first characters of it.
fn short(what: &dyn fmt::Display) -> String {
    struct Short(String);
    impl fmt::Write for Short {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for letter in text.chars() {
                if self.0.len() >= WORDS {
                    self.0.push('…');
                    return Err(fmt::Error);
                }
                self.0.push(letter);
            }
            Ok(())
        }
    }
    let mut short = Short(String::new());
    // An error is where it ends.
    _ = write!(short, "{what}");
    short.0
}
