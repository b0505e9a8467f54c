//! What traits that are services become.

use std::fmt;
#[doc(hidden)]
pub use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[doc(hidden)]
pub use meshx_rpc_derive::service;

use crate::client::{Call, Client};
use crate::codec::Codec;
use crate::error::{Error, Kind};
use crate::functions::Failure;

/// Why a call of a typed client failed.
///
/// It is made of an [`Error`] also where there is no typed client:
///
/// ```
/// use meshx_rpc::{Body, CallError, Codec, Error, Executed, Kind};
///
/// let error = Error::new(Kind::Application, Executed::Yes, "no lines")
///     .with_value(Body::encode(Codec::Json, &("empty", 3))?);
/// let error = CallError::<(String, u8)>::from(error);
/// assert_eq!(error, CallError::Application(("empty".to_owned(), 3)));
/// # Ok::<(), meshx_rpc::CodecError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError<E> {
    /// The function ran, and this is its own error.
    Application(E),
    /// There was no answer, or none that is one: whether the function ran is in it. Of
    /// [`Kind::Application`] it is if the function failed, and its error cannot be read as this one.
    Rpc(Error),
}

impl<E: DeserializeOwned> From<Error> for CallError<E> {
    fn from(error: Error) -> Self {
        match error.application() {
            Some(own) => Self::Application(own),
            None => Self::Rpc(error),
        }
    }
}

impl<E> CallError<E> {
    /// What kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Application(_) => Kind::Application,
            Self::Rpc(error) => error.kind(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application(error) => error.fmt(f),
            Self::Rpc(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for CallError<E> {}

/// What a function of a service gives.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a function of a service gives a `Result`, not `{Self}`",
    label = "this is no `Result`",
    note = "one that cannot fail gives `Result<_, String>`"
)]
pub trait Outcome {
    type Value;
    type Error;
}

impl<T, E> Outcome for Result<T, E> {
    type Value = T;
    type Error = E;
}

/// Compiles for what can be an argument, or a message of an exchange.
#[doc(hidden)]
pub const fn argument<T: Serialize + DeserializeOwned + Send + Sync + 'static>() {}

/// Compiles for what a function can give.
#[doc(hidden)]
pub const fn outcome<T: Outcome>() {}

/// Compiles for what an exchange can give.
#[doc(hidden)]
pub const fn ending<T: Outcome<Value = ()>>() {}

/// Compiles for what an exchange can fail with: it is read where it is wanted.
#[doc(hidden)]
pub const fn reason<E: Failure + Send>() {}

/// Compiles for what can be a result.
#[doc(hidden)]
pub const fn value<T: Serialize + DeserializeOwned + Send>() {}

/// Compiles for what can be the error of an application.
#[doc(hidden)]
pub const fn failure<E: Serialize + DeserializeOwned + fmt::Display + Send>() {}

/// A call as a typed client makes it: both sides have the same types.
#[doc(hidden)]
pub fn function<'c>(client: &'c Client, name: &'c str) -> Call<'c> {
    client.function(name).codec(Codec::Postcard)
}

#[doc(hidden)]
pub async fn call<A, T, E>(call: Call<'_>, arguments: &A) -> Result<T, CallError<E>>
where
    A: Serialize,
    T: DeserializeOwned,
    E: DeserializeOwned,
{
    call.call(arguments).await.map_err(CallError::from)
}

#[doc(hidden)]
pub async fn cast<A: Serialize>(call: Call<'_>, arguments: &A) -> Result<(), Error> {
    call.cast(arguments).await
}
