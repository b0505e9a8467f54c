//! How OTP's generic servers wrap what they are told, and sending without ever waiting.

use std::sync::Arc;

use meshx_dist::Payload;
use meshx_dist::control::Target;
use meshx_etf::{Atom, DecodeError, Pid, Reference, Term, term};

use crate::call::Caller;
use crate::node::Inner;
use crate::process::Mailbox;
use crate::to::To;

/// So many terms may be in a message to a server of the node itself (`pg`, `global`, `net_kernel`),
/// which take 128 MiB; a message of 1 GiB could have as many as it has bytes. More is as good as no
/// message.
pub(crate) const TERMS: usize = 1 << 22;

/// A message as a `gen_server` tells them apart.
#[derive(Debug)]
pub(crate) enum Envelope {
    /// `{'$gen_call', From, Request}`.
    Call(Caller, Term),
    /// `{'$gen_cast', Request}`.
    Cast(Term),
    /// Anything else.
    Other(Term),
}

impl Envelope {
    pub(crate) fn open(body: &Payload) -> Result<Self, DecodeError> {
        body.term().map(Self::of)
    }

    /// As [`Envelope::open`], of at most [`TERMS`]; what is kept of it holds no buffer of the connection.
    pub(crate) fn open_small(body: &Payload) -> Result<Self, DecodeError> {
        body.clone().compact().term_up_to(TERMS).map(Self::of)
    }

    fn of(mut term: Term) -> Self {
        if let Term::Tuple(elements) = &mut term {
            match &mut elements[..] {
                [Term::Atom(kind), from, request] if *kind == "$gen_call" => {
                    if let Some(from) = Caller::of(from) {
                        return Self::Call(from, std::mem::replace(request, Term::nil()));
                    }
                }
                [Term::Atom(kind), request] if *kind == "$gen_cast" => {
                    return Self::Cast(std::mem::replace(request, Term::nil()));
                }
                _ => {}
            }
        }
        Self::Other(term)
    }
}

/// `{'$gen_cast', Request}`.
pub(crate) fn cast(request: Term) -> Term {
    term!({atom "$gen_cast", (request)})
}

impl Inner {
    /// Sends over the connection that is there, however much waits for it already; without one, the
    /// message is lost. For servers that may not be held up by one peer; a peer that takes nothing at
    /// all is given up by its connection.
    pub(crate) fn post(self: &Arc<Self>, from: &Pid, to: &To, message: &Term) {
        let sent = match self.elsewhere(to) {
            None => self.try_send(from, to, message),
            Some(node) => match self.peers.up_to(&node) {
                Some(connection) => connection.post(from, to, message),
                None => return,
            },
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a message of a server of this node was lost");
        }
    }

    /// Watches a process of which a peer has told. No node is dialled for that: one that is not connected
    /// is lost, or never was there.
    pub(crate) async fn watch(self: &Arc<Self>, by: &Mailbox, of: &Pid) -> Reference {
        let reference = self.reference(by.pid());
        self.watch_by(by, of, reference.clone()).await;
        reference
    }

    /// As [`Inner::watch`], by this reference.
    pub(crate) async fn watch_by(self: &Arc<Self>, by: &Mailbox, of: &Pid, reference: Reference) {
        let node = of.node.name();
        if self.is_there(node) {
            return self.monitor(by.cell(), To::from(of), reference).await;
        }
        // No connection has the number 0.
        let (cell, via, target) = (by.cell(), Some(0), Target::Pid(of.clone()));
        cell.watch(reference.clone(), target, node.clone(), via);
        cell.watched_ended(&reference, via, term!(noconnection));
    }

    /// Watches a process by this reference, of a node that is to be connected in any case; waits for no
    /// connection that is not there yet.
    pub(crate) async fn watch_soon(self: &Arc<Self>, by: &Mailbox, of: &Pid, reference: Reference) {
        let (inner, cell) = (Arc::clone(self), Arc::clone(by.cell()));
        let (is_there, of) = (self.is_there(of.node.name()), To::from(of));
        let watch = async move { inner.monitor(&cell, of, reference).await };
        if is_there {
            watch.await;
        } else {
            tokio::spawn(watch);
        }
    }

    fn is_there(&self, node: &Atom) -> bool {
        node == self.id.name() || self.peers.up_to(node).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What takes a byte on its way takes 32 in memory.
    #[test]
    fn servers_of_the_node_read_no_list_of_millions() {
        let nils = |count: usize| {
            let length = u32::try_from(count).unwrap().to_be_bytes();
            let bytes = [&[108][..], &length, &vec![106; count], &[106]].concat();
            Payload::new(bytes.into(), Arc::default())
        };
        assert!(Envelope::open_small(&nils(TERMS - 1)).is_ok());
        let limit = DecodeError::Terms { limit: TERMS };
        assert_eq!(Envelope::open_small(&nils(TERMS)).unwrap_err(), limit);
        assert!(Envelope::open(&nils(TERMS)).is_ok());
    }

    /// The name of a group, or a lock, is kept for long.
    #[test]
    fn servers_of_the_node_keep_no_buffers() {
        let name = Payload::of(&Term::from(&[7_u8; 100][..])).unwrap();
        let buffer = bytes::Bytes::from([name.bytes().as_ref(), &[0; 8 * 1024]].concat());
        let body = Payload::new(buffer.slice(..name.bytes().len()), Arc::default());
        let Ok(Envelope::Other(Term::Binary(kept))) = Envelope::open_small(&body) else { panic!() };
        assert!(!buffer.as_ptr_range().contains(&kept.as_ptr()));
        assert_eq!(kept.len(), 100);
    }
}
