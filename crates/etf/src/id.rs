//! Pids, ports and references.

use std::sync::Arc;

use crate::Atom;

/// A node of which something is: its name, and which of its lives is meant.
///
/// Held behind one pointer, so that an identifier is small; a decoder shares it between
/// identifiers that follow each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(Arc<(Atom, u32)>);

/// A process identifier. It is displayed as the term is.
///
/// ```
/// use meshx_etf::{Atom, Node, Pid, Port, Reference};
/// let node = Node::new(Atom::cut("shop@host"), 7);
/// let pid = Pid { node: node.clone(), id: 9, serial: 0 };
/// assert_eq!(pid.to_string(), "<shop@host.9.0>");
/// assert_eq!(format!("{pid:?}"), "<shop@host.9.0!7>");
/// assert_eq!(Port { node: node.clone(), id: 3 }.to_string(), "#Port<shop@host.3>");
/// let reference = Reference::new(node, &[1, 2, 3]).ok_or("too long")?;
/// assert_eq!(reference.to_string(), "#Ref<shop@host.3.2.1>");
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pid {
    /// Its node.
    pub node: Node,
    /// Its number.
    pub id: u32,
    /// Counts how often that number was used.
    pub serial: u32,
}

/// A port identifier. Displayed as in text: `#Port<shop@host.7>`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Port {
    /// Its node.
    pub node: Node,
    /// Its number; above 2²⁸ since OTP 24.
    pub id: u64,
}

/// A reference: up to [`Reference::MAX`] words. Displayed as in text: `#Ref<shop@host.3.2.1>`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    node: Node,
    words: [u32; Self::MAX],
    len: u8,
}

impl Node {
    /// The node of this name with this creation.
    pub fn new(name: Atom, creation: u32) -> Self {
        Self(Arc::new((name, creation)))
    }

    /// Its name, `name@host`.
    pub fn name(&self) -> &Atom {
        &self.0.0
    }

    /// Its creation: changes with every start of the node.
    pub fn creation(&self) -> u32 {
        self.0.1
    }
}

impl Pid {
    /// Whether every release can read it: numbers of 15 and 13 bits (`erl_ext_dist`, `NEW_PID_EXT`;
    /// more only with `DFLAG_V4_NC`).
    pub fn is_narrow(&self) -> bool {
        self.id < 1 << 15 && self.serial < 1 << 13
    }
}

impl Port {
    /// Whether every release can read it: a number of 28 bits (`erl_ext_dist`, `NEW_PORT_EXT`).
    pub fn is_narrow(&self) -> bool {
        self.id < 1 << 28
    }
}

impl Reference {
    /// Whether every release can read it: three words at most, of the first 18 bits
    /// (`erl_ext_dist`, `NEWER_REFERENCE_EXT`).
    pub fn is_narrow(&self) -> bool {
        self.len <= 3 && self.words().first().is_none_or(|&word| word < 1 << 18)
    }

    /// The most words of a reference: 3 of an ordinary one, 5 of an alias since OTP 27.
    pub const MAX: usize = 5;

    /// The reference of these words; `None` for more than [`Reference::MAX`].
    pub fn new(node: Node, words: &[u32]) -> Option<Self> {
        let mut held = [0; Self::MAX];
        held.get_mut(..words.len())?.copy_from_slice(words);
        Some(Self { node, words: held, len: u8::try_from(words.len()).ok()? })
    }

    /// Its node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its words, in the order of the wire.
    pub fn words(&self) -> &[u32] {
        self.words.get(..usize::from(self.len)).unwrap_or_default()
    }
}
