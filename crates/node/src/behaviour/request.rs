//! What a message asks for.

use meshx_dist::Payload;
use meshx_etf::Term;

use crate::call::Caller;

/// A message, by its form.
#[derive(Debug)]
pub(super) enum Request {
    /// `{'$gen_call', From, Request}`, and `{Pid, From, Request}` as `gen_event` has it.
    Call(Caller, Payload),
    /// `{'$gen_cast', Request}`.
    Cast(Payload),
    /// `{system, From, Request}`.
    System(Caller, Payload),
    /// None of them.
    Other(Payload),
}

#[derive(Clone, Copy)]
enum Label {
    Call,
    System,
}

impl Request {
    pub(super) fn of(body: Payload) -> Self {
        if let Some((label, caller, request)) = call(&body) {
            return match label {
                Label::Call => Self::Call(caller, request),
                Label::System => Self::System(caller, request),
            };
        }
        match cast(&body) {
            Some(request) => Self::Cast(request),
            None => Self::Other(body),
        }
    }

    /// Whether it is `{system, From, Request}`, without a look at the rest.
    pub(super) fn is_system(body: &Payload) -> bool {
        let decoder = body.decoder();
        let Ok(mut reader) = decoder.reader(body.bytes()) else { return false };
        reader.tuple() == Ok(3) && reader.at_atom() && reader.atom().is_ok_and(|it| it == "system")
    }
}

fn call(body: &Payload) -> Option<(Label, Caller, Payload)> {
    let decoder = body.decoder();
    let mut reader = decoder.reader(body.bytes()).ok()?;
    if reader.tuple().ok()? != 3 {
        return None;
    }
    let mut pid = None;
    let label = if reader.at_atom() {
        match reader.atom().ok()? {
            it if it == "$gen_call" => Label::Call,
            it if it == "system" => Label::System,
            _ => return None,
        }
    } else {
        let Term::Pid(caller) = decoder.bare(reader.skip().ok()?).ok()?.0 else { return None };
        pid = Some(caller);
        Label::Call
    };
    let caller = Caller::of(&decoder.bare(reader.skip().ok()?).ok()?.0)?;
    if pid.is_some_and(|pid| pid != *caller.pid()) {
        return None;
    }
    let at = body.bytes().len().checked_sub(reader.rest().len())?;
    Some((label, caller, body.slice(at)))
}

fn cast(body: &Payload) -> Option<Payload> {
    let decoder = body.decoder();
    let mut reader = decoder.reader(body.bytes()).ok()?;
    if reader.tuple().ok()? != 2 || !reader.at_atom() || reader.atom().ok()? != "$gen_cast" {
        return None;
    }
    let at = body.bytes().len().checked_sub(reader.rest().len())?;
    Some(body.slice(at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use meshx_etf::{Node, Pid, Reference, Term, term};

    use super::*;

    fn of(term: &Term) -> Request {
        Request::of(Payload::of(term).unwrap())
    }

    #[test]
    fn tells_calls_from_casts_and_the_rest() {
        let node = Node::new("a@h".parse().unwrap(), 7);
        let pid = Term::Pid(Pid { node: node.clone(), id: 1, serial: 0 });
        let other = Term::Pid(Pid { node: node.clone(), id: 2, serial: 0 });
        let tag = Term::from(Reference::new(node, &[1, 2, 3]).unwrap());
        let from = term!({(pid.clone()), [alias | (tag.clone())]});
        let call = term!({atom "$gen_call", (from.clone()), {add, 3}});
        assert!(matches!(of(&call), Request::Call(_, request)
            if request.term().unwrap() == term!({add, 3})));
        let event = term!({(pid), (from.clone()), which_handlers});
        assert!(matches!(of(&event), Request::Call(..)));
        let forged = term!({(other), (from.clone()), which_handlers});
        assert!(matches!(of(&forged), Request::Other(_)));
        let system = term!({system, (from), get_state});
        assert!(Request::is_system(&Payload::of(&system).unwrap()));
        assert!(!Request::is_system(&Payload::of(&call).unwrap()));
        assert!(matches!(of(&system), Request::System(..)));
        let cast = term!({atom "$gen_cast", reset});
        assert!(matches!(of(&cast), Request::Cast(request)
            if request.term().unwrap() == term!(reset)));
        for other in [
            term!(hello),
            term!({hello, world}),
            term!({atom "$gen_call", not_a_from, next}),
            term!({atom "$gen_call", {1, 2}, next}),
            term!({1, 2, 3}),
            term!([atom "$gen_cast", 2]),
        ] {
            assert!(matches!(of(&other), Request::Other(_)), "{other}");
        }
    }

    #[test]
    fn no_bytes_do_harm() {
        let bytes = Payload::of(&term!({atom "$gen_call", {1, [alias | 2]}, 3})).unwrap();
        for end in 0..bytes.bytes().len() {
            let cut = Payload::new(bytes.bytes().slice(..end), std::sync::Arc::default());
            assert!(matches!(Request::of(cut), Request::Other(_)));
        }
    }
}
