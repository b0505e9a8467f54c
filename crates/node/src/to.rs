//! To whom a message goes, and what it says.

use meshx_dist::Payload;
use meshx_dist::control::Recipient;
use meshx_etf::dist::Draft;
use meshx_etf::{Atom, Pid, Reference, Term, TypedError};
use serde::Serialize;

use crate::connection::{Connection, Turn, Unsent};
use crate::error::{ConnectError, SendError};
use crate::process::sender;

/// To whom a message goes.
///
/// Made from what Erlang's `!` takes: a [`Pid`], a name of this node (`"counter"`), a name of
/// another (`("counter", "shop@10.0.0.9")`), an alias ([`Reference`]). Text that is too long for an
/// atom is cut, and so names nobody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum To {
    /// A process.
    Pid(Pid),
    /// A registered name of this node.
    Name(Atom),
    /// A registered name of that node.
    NameAt(Atom, Atom),
    /// The process that made this alias.
    Alias(Reference),
}

impl To {
    /// The node of it, if it says one.
    pub(crate) fn node(&self) -> Option<&Atom> {
        match self {
            Self::Pid(pid) => Some(pid.node.name()),
            Self::Name(_) => None,
            Self::NameAt(_, node) => Some(node),
            Self::Alias(alias) => Some(alias.node().name()),
        }
    }
}

/// Something that can be a message.
pub(crate) trait Content {
    fn write(&self, draft: &mut Draft) -> Result<(), TypedError>;
    fn payload(&self) -> Result<Payload, TypedError>;
}

pub(crate) struct Typed<'t, T: ?Sized>(pub(crate) &'t T);

impl<T: Serialize + ?Sized> Content for Typed<'_, T> {
    fn write(&self, draft: &mut Draft) -> Result<(), TypedError> {
        draft.payload_typed(self.0)
    }

    fn payload(&self) -> Result<Payload, TypedError> {
        Payload::of_typed(self.0)
    }
}

impl Content for Term {
    fn write(&self, draft: &mut Draft) -> Result<(), TypedError> {
        Ok(draft.payload(self)?)
    }

    fn payload(&self) -> Result<Payload, TypedError> {
        Ok(Payload::of(self)?)
    }
}

impl Connection {
    /// Sends to a process of the peer when there is room, which there was not; for a `large` message it
    /// takes more.
    pub(crate) async fn deliver(
        &self,
        from: &Pid,
        to: &To,
        content: &(dyn Content + Sync),
        mut large: bool,
    ) -> Result<(), SendError> {
        loop {
            self.room(sender(from), large).await;
            match self.deliver_now(from, to, content) {
                Err(Unsent::Busy { large: still, .. }) => large = still,
                done => return Ok(done?),
            }
        }
    }

    /// Sends to a process of the peer if there is room.
    pub(crate) fn deliver_now(
        &self,
        from: &Pid,
        to: &To,
        content: &dyn Content,
    ) -> Result<(), Unsent> {
        self.send_to(from, recipient(to), Turn::Room, |draft| content.write(draft))
    }

    /// Sends to a process of the peer, room or not.
    pub(crate) fn post(&self, from: &Pid, to: &To, content: &dyn Content) -> Result<(), SendError> {
        self.send_to(from, recipient(to), Turn::Urgent, |draft| content.write(draft))?;
        Ok(())
    }
}

fn recipient(to: &To) -> Recipient<'_> {
    match to {
        To::Pid(to) => Recipient::Pid(to),
        To::Name(to) | To::NameAt(to, _) => Recipient::Name(to),
        To::Alias(to) => Recipient::Alias(to),
    }
}

impl From<Unsent> for SendError {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Busy { node, .. } => Self::Busy(node),
            Unsent::Closed { node, reason } => Self::Connect(ConnectError::Lost { node, reason }),
            Unsent::Encode(error) => Self::Encode(error),
            Unsent::Incapable { node, lacks } => Self::Incapable { node, lacks },
        }
    }
}

impl From<&To> for To {
    fn from(to: &To) -> Self {
        to.clone()
    }
}

impl From<Pid> for To {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}

impl From<&Pid> for To {
    fn from(pid: &Pid) -> Self {
        Self::Pid(pid.clone())
    }
}

impl From<Reference> for To {
    fn from(alias: Reference) -> Self {
        Self::Alias(alias)
    }
}

impl From<&Reference> for To {
    fn from(alias: &Reference) -> Self {
        Self::Alias(alias.clone())
    }
}

impl From<&str> for To {
    fn from(name: &str) -> Self {
        Self::Name(Atom::cut(name))
    }
}

impl From<(&str, &str)> for To {
    fn from((name, node): (&str, &str)) -> Self {
        Self::NameAt(Atom::cut(name), Atom::cut(node))
    }
}
