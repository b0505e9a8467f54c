//! Functions behind a name, as a `gen_server`.

use std::sync::Arc;

use meshx_etf::{Atom, Term, term};
use meshx_node::{Answer, Caller, GenServer, Mailbox, Next, Signal};
use meshx_rpc::event::Way;
use meshx_rpc::{Error, Executed, Kind};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::offer::{Asked, Offer};
use crate::outcome::reason;
use crate::places::{Place, Places};

/// A server that calls functions of an [`Offer`] for others ([`Offer::server`]).
///
/// It takes `{Function, Arguments}`, with an atom and a list, and answers `{ok, Value}` or
/// `{error, Reason}`; a cast of the same is answered by nobody. Anything else ends the caller's call with
/// `{bad_request, Text}`. Each call runs in a process of its own, which ends when the caller does, or this
/// server; the server itself is free for the next at once.
#[derive(Debug)]
pub struct Desk {
    offer: Arc<Offer>,
    service: Arc<str>,
    places: Arc<Places>,
    /// Ends what runs when this is dropped.
    closed: DropGuard,
}

/// What is asked for: `{Function, Arguments}`.
type Request = (Atom, Vec<Term>);

impl Desk {
    pub(crate) fn new(offer: Offer, service: &str) -> Self {
        let (offer, places) = (Arc::new(offer), Arc::default());
        Self {
            offer,
            service: service.into(),
            places,
            closed: CancellationToken::new().drop_guard(),
        }
    }

    /// Room for a call of the node of this process.
    fn place(&self, node: &Atom) -> Result<Place, Error> {
        self.places.take(node).ok_or_else(|| overloaded("the node has too many calls in flight"))
    }
}

impl GenServer for Desk {
    type Call = Request;
    type Reply = Term;
    type Cast = Request;
    type Info = Term;

    async fn handle_call(
        &mut self,
        (function, arguments): Request,
        caller: Caller,
        process: &Mailbox,
    ) -> Answer<Term> {
        if !self.offer.has(function.as_str()) {
            return Answer::Reply(term!({error, undef}));
        }
        // Who says that he is elsewhere is not answered, and nobody is dialled to watch him.
        let from = caller.pid().node.name();
        if !process.node().is_connected(from.as_str()) {
            tracing::debug!(caller = %caller.pid(), "a call of a node that is not connected");
            return Answer::Later;
        }
        let place = match self.place(from) {
            Ok(place) => place,
            Err(error) => return Answer::Reply(failed(&error)),
        };
        let (offer, service) = (Arc::clone(&self.offer), Arc::clone(&self.service));
        let closed = self.closed.token().clone();
        let node = process.node();
        let started = process.node().spawn(|mut mailbox| async move {
            // Until the answer is sent.
            let _place = place;
            let watched = mailbox.monitor(caller.pid()).await;
            let asked = Asked {
                way: Way::Call,
                function: function.as_str(),
                arguments: &arguments,
                service: &service,
                caller: caller.pid(),
                node: &node,
            };
            let left =
                |signal: &Signal| matches!(signal, Signal::Down(it) if it.reference == watched);
            let answer = tokio::select! {
                answer = offer.answer(asked) => answer,
                _ = mailbox.receive_where(left) => return,
                () = closed.cancelled() => return,
            };
            mailbox.demonitor(&watched);
            let answer = answer.map_or_else(|error| failed(&error), |value| term!({ok, (value)}));
            if let Err(error) = caller.reply(&mailbox, &answer).await {
                tracing::debug!(caller = %caller.pid(), %error, "the result of a call was lost");
                // Unless the connection is lost, it is one that the caller's node could not read.
                let reason = format!("the result cannot be sent: {error}");
                let error = Error::new(Kind::Value, Executed::Yes, reason);
                drop(caller.reply(&mailbox, &failed(&error)).await);
            }
        });
        match started {
            Ok(_) => Answer::Later,
            Err(error) => Answer::Reply(failed(&overloaded(&error.to_string()))),
        }
    }

    async fn handle_cast(&mut self, (function, arguments): Request, process: &Mailbox) -> Next {
        if !self.offer.has(function.as_str()) {
            let reason = "no such function is offered";
            let error = Error::new(Kind::UnknownFunction, Executed::Never, reason);
            self.offer.lost(function.as_str(), &error);
            return Next::Continue;
        }
        // Who casts does not say so.
        let place = match self.place(process.node().name()) {
            Ok(place) => place,
            Err(error) => {
                self.offer.lost(function.as_str(), &error);
                return Next::Continue;
            }
        };
        let (offer, service) = (Arc::clone(&self.offer), Arc::clone(&self.service));
        let (node, caller) = (process.node(), process.pid().clone());
        let name = function.clone();
        let started = process.node().spawn(|mailbox| async move {
            let (_place, _mailbox) = (place, mailbox);
            let asked = Asked {
                way: Way::Cast,
                function: function.as_str(),
                arguments: &arguments,
                service: &service,
                caller: &caller,
                node: &node,
            };
            if let Err(error) = offer.answer(asked).await {
                offer.lost(function.as_str(), &error);
            }
        });
        if let Err(error) = started {
            self.offer.lost(name.as_str(), &overloaded(&error.to_string()));
        }
        Next::Continue
    }
}

fn failed(error: &Error) -> Term {
    term!({error, (reason(error))})
}

fn overloaded(why: &str) -> Error {
    Error::new(Kind::Overloaded, Executed::Never, why)
}
