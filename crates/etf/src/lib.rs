//! Erlang's External Term Format: terms as values, bytes and text.
//!
//! This crate opens no sockets and reads no clock: bytes go in, values and bytes come out.
//!
//! * [`Term`]: a term that owns what it holds; [`term!`] writes one down; [`compare`] is Erlang's
//!   order; `Display` prints as `io:format("~0p")` does, and [`text::parse`] reads that again.
//! * [`decode`] and [`encode()`]: every tag of the format (`erl_ext_dist`), legacy ones included,
//!   under [`Limits`]; [`TermRef`] borrows from the input instead, and [`TermReader`] builds nothing.
//! * [`from_bytes`] and [`to_bytes`]: serde, straight between bytes and Rust types ([`typed`]); and
//!   [`macro@Etf`] for the shapes that Erlang and Elixir programs like.
//! * [`dist`]: the distribution header with its atom cache, and the layout of fragments.
//!
//! What every decoder guarantees: no panic on any bytes, no more memory than a small multiple of
//! the input (a container's count is believed only as far as the input can still hold that many
//! terms), no more of them than [`Limits::terms`], nesting no deeper than [`Limits::depth`], and no
//! compressed term larger than [`Limits::inflated`].
//!
//! ```
//! use meshx_etf::{Term, decode, encode, term};
//!
//! let reply = term!({ok, [1, 2, #{"name" => 1.5}]});
//! let bytes = encode(&reply)?;
//! assert_eq!(decode(&bytes)?, reply);
//! assert_eq!(reply.to_string(), r#"{ok,[1,2,#{<<"name">> => 1.5}]}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

mod atom;
mod bigint;
mod binary;
mod decode;
pub mod dist;
mod encode;
mod fun;
mod id;
#[doc(hidden)]
pub mod macros;
mod map;
mod order;
mod pieces;
mod tag;
mod term;
pub mod text;
pub mod typed;
mod wire;

pub use atom::{Atom, AtomTooLong};
pub use bigint::BigInt;
pub use binary::{Binary, BitString};
pub use decode::{
    AtomRef, DecodeError, Decoder, FunRef, Known, Limits, MapRef, PidRef, PortRef, RecordRef,
    ReferenceRef, TermReader, TermRef, decode, decode_ref,
};
pub use encode::{AtomForm, EncodeError, Encoder, encode};
pub use fun::{Export, Fun, Record};
pub use id::{Node, Pid, Port, Reference};
pub use map::{DuplicateKey, Map};
pub use meshx_etf_derive::Etf;
pub use order::compare;
pub use pieces::Pieces;
pub use term::{Improper, Term};
pub use typed::{TypedError, from_bytes, from_term, to_bytes, to_term, undefined};
