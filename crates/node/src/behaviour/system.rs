//! What `sys` asks any process that follows its rules (OTP, `sys`).

use meshx_etf::{Atom, Pid, Term, term};

/// What a system message does.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing but to be answered.
    Answer(Term),
    Suspend,
    Resume,
    Terminate(Term),
}

/// Who is asked.
#[derive(Debug)]
pub(super) struct Subject<'s> {
    pub(super) pid: &'s Pid,
    pub(super) name: Option<&'s Atom>,
    /// In the place of the callback module: the Rust type.
    pub(super) module: Atom,
    pub(super) suspended: bool,
    pub(super) state: Option<Term>,
}

impl Subject<'_> {
    pub(super) fn take(&self, request: Term) -> Step {
        let unknown = |request| Step::Answer(term!({error, {unknown_system_msg, (request)}}));
        match &request {
            Term::Atom(name) => match name.as_str() {
                "suspend" => Step::Suspend,
                "resume" => Step::Resume,
                // An error with this reason in whoever asked.
                "get_state" => {
                    Step::Answer(self.state.clone().unwrap_or_else(|| term!({error, notsup})))
                }
                "get_status" => Step::Answer(self.status()),
                _ => unknown(request),
            },
            Term::Tuple(pair) => match &pair[..] {
                [Term::Atom(name), reason] if *name == "terminate" => {
                    Step::Terminate(reason.clone())
                }
                [Term::Atom(name), what] if *name == "debug" => Step::Answer(debug(what)),
                _ => unknown(request),
            },
            _ => unknown(request),
        }
    }

    /// As that of a `gen_server` with nobody above it.
    fn status(&self) -> Term {
        let running = Term::atom(if self.suspended { "suspended" } else { "running" });
        let header = match self.name {
            Some(name) => format!("Status for generic server {}", name.as_str()),
            None => "Status for generic server".to_owned(),
        };
        let parent = Term::Pid(self.pid.clone());
        let mut shown = vec![
            term!({header, (Term::charlist(&header))}),
            term!({data, [
                {charlist "Status", (running.clone())},
                {charlist "Parent", (parent.clone())},
                {charlist "Logged events", []}
            ]}),
        ];
        if let Some(state) = &self.state {
            shown.push(term!({data, [{charlist "State", (state.clone())}]}));
        }
        let module = Term::Atom(self.module.clone());
        let items = term!([[], (running), (parent.clone()), [], (Term::List(shown))]);
        term!({status, (parent), {module, (module)}, (items)})
    }
}

/// Nothing is traced, logged or counted, and nothing can be.
fn debug(what: &Term) -> Term {
    let off = term!(false);
    match what {
        Term::Atom(name) if *name == "no_debug" => term!(ok),
        Term::Tuple(pair) => match &pair[..] {
            [Term::Atom(name), flag] => match name.as_str() {
                "remove" => term!(ok),
                "trace" | "log" | "log_to_file" | "statistics" if *flag == off => term!(ok),
                "log" if flag.is_atom("get") => term!({ok, []}),
                "statistics" if flag.is_atom("get") => term!({ok, no_statistics}),
                _ => term!(unknown_debug),
            },
            _ => term!(unknown_debug),
        },
        _ => term!(unknown_debug),
    }
}
