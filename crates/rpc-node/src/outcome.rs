//! Arguments and results, as terms.

use bytes::Bytes;
use meshx_etf::{Decoder, Term, encode, term};
use meshx_rpc::{Body, Codec, Error, Executed, Kind};

/// The argument of a function: none is `nil`, one is itself, several are a tuple.
pub(crate) fn argument(arguments: &[Term]) -> Result<Body, Error> {
    match arguments {
        [] => body(&term!(nil)),
        [one] => body(one),
        _ => tuple(arguments),
    }
}

/// The arguments as a tuple, however many they are: what a function of a `#[service]` takes.
pub(crate) fn tuple(arguments: &[Term]) -> Result<Body, Error> {
    body(&Term::Tuple(arguments.to_vec()))
}

fn body(argument: &Term) -> Result<Body, Error> {
    let bytes = encode(argument).map_err(|error| {
        let reason = format!("the argument cannot be read: {error}");
        Error::new(Kind::Value, Executed::Never, reason)
    })?;
    Ok(Body { codec: Codec::Etf, bytes: bytes.into() })
}

/// What a function gave. What it wrote in another way than as a term is a binary.
pub(crate) fn value(body: &Body) -> Result<Term, Error> {
    if body.codec != Codec::Etf {
        return Ok(Term::Binary(meshx_etf::Binary::shared(body.bytes.clone())));
    }
    read(&body.bytes).map_err(|error| {
        let reason = format!("the result cannot be read: {error}");
        Error::new(Kind::Value, Executed::Yes, reason)
    })
}

fn read(bytes: &Bytes) -> Result<Term, meshx_etf::DecodeError> {
    Decoder::new().shared(bytes)
}

/// An error as a term that can be matched on: `{application, Value}` with the function's own, and
/// `{Kind, Text}` of all others.
pub(crate) fn reason(error: &Error) -> Term {
    let own =
        error.value().filter(|it| error.kind() == Kind::Application && it.codec == Codec::Etf);
    let detail = own.and_then(|own| read(&own.bytes).ok());
    let detail = detail.unwrap_or_else(|| Term::from(error.reason()));
    Term::Tuple(vec![Term::atom(error.kind().token()), detail])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_nothing_one_or_a_tuple() {
        let read = |arguments: Term| argument(arguments.as_list().unwrap()).unwrap();
        read(term!([])).decode::<()>().unwrap();
        assert_eq!(read(term!([7])).decode::<u8>().unwrap(), 7);
        assert_eq!(read(term!([{1, 2}])).decode::<(u8, u8)>().unwrap(), (1, 2));
        assert_eq!(read(term!([1, 2])).decode::<(u8, u8)>().unwrap(), (1, 2));
        assert_eq!(read(term!([[1, 2]])).decode::<Vec<u8>>().unwrap(), [1, 2]);
        assert_eq!(tuple(&[term!(7)]).unwrap().decode::<(u8,)>().unwrap(), (7,));
    }

    #[test]
    fn results_are_terms_or_binaries() {
        assert_eq!(value(&Body::encode(Codec::Etf, &(1, "a")).unwrap()).unwrap(), term!({1, "a"}));
        assert_eq!(value(&Body::raw("text")).unwrap(), term!("text"));
        let json = Body { codec: Codec::Json, bytes: "[1]".into() };
        assert_eq!(value(&json).unwrap(), term!("[1]"));
        let broken = Body { codec: Codec::Etf, bytes: Bytes::from_static(&[131]) };
        assert_eq!(value(&broken).unwrap_err().kind(), Kind::Value);
    }

    #[test]
    fn errors_can_be_matched_on() {
        let error = Error::new(Kind::Application, Executed::Yes, "too large");
        assert_eq!(reason(&error), term!({application, "too large"}));
        let own = Body::encode(Codec::Etf, &("limit", 7)).unwrap();
        assert_eq!(reason(&error.with_value(own)), term!({application, {"limit", 7}}));
        let late = Error::new(Kind::Deadline, Executed::Yes, "late");
        assert_eq!(reason(&late), term!({deadline, "late"}));
    }
}
