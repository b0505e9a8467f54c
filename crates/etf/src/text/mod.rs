//! Terms as Erlang text: printed as `io:format` does, and read again.

mod float;
mod parse;
mod print;

pub use parse::{ParseError, parse};
pub(crate) use print::atom;
pub use print::{Print, Printable};
