//! Funs, exports and native records.

use crate::{Atom, Pid, Term};

/// A fun: code of a module together with the values that it closed over.
///
/// Nothing here can call one. It is held in parts, so that it can be written again on another
/// connection, where its atoms have other numbers in the cache (`erl_ext_dist`, `NEW_FUN_EXT`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fun {
    /// How many arguments it takes.
    pub arity: u8,
    /// The MD5 digest of the significant parts of its module's object code.
    pub uniq: [u8; 16],
    /// Its number in the module.
    pub index: u32,
    /// Its module.
    pub module: Atom,
    /// Its number in the module, the older way.
    pub old_index: i32,
    /// A hash of its parse tree.
    pub old_uniq: i32,
    /// The process that made it.
    pub pid: Pid,
    /// The values of its free variables, at most 255.
    pub free: Vec<Term>,
}

/// `fun Module:Function/Arity`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Export {
    /// Its module.
    pub module: Atom,
    /// Its function.
    pub function: Atom,
    /// How many arguments it takes.
    pub arity: u32,
}

/// A native record of OTP 29 (`RECORD_EXT`, seen with 29.0).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Whether other modules may name its fields.
    pub exported: bool,
    /// The module that defines it.
    pub module: Atom,
    /// Its name.
    pub name: Atom,
    /// Names and values of its fields.
    pub fields: Vec<(Atom, Term)>,
}
