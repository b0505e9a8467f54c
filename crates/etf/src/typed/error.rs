//! Why a value and a term do not fit.

use std::fmt::Display;

use crate::{DecodeError, EncodeError};

/// Why a value could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The bytes are not a term.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The value has no encoding.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The bytes are a term, but not one that the type can be.
    #[error("{wanted} was wanted, and there is {found}")]
    Shape {
        /// What the type wants.
        wanted: &'static str,
        /// What kind of term there is.
        found: &'static str,
    },
    /// What the type itself said.
    #[error("{0}")]
    Message(String),
}

impl serde::ser::Error for TypedError {
    fn custom<T: Display>(message: T) -> Self {
        Self::Message(message.to_string())
    }
}

impl serde::de::Error for TypedError {
    fn custom<T: Display>(message: T) -> Self {
        Self::Message(message.to_string())
    }
}
