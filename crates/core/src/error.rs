//! What every error of the product can say about itself.

use std::fmt;

/// A stable error code, printed as `MX0204`. Ranges: 01 control plane, 02 connection, 03 exec,
/// 04 configuration, 05 certificates, 06 Erlang, 07 policy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MX{:04}", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An error that tells an operator what to do next.
pub trait Diagnostic: std::error::Error {
    /// The stable code.
    fn code(&self) -> Code;

    /// What to do next, without the word "hint".
    fn hint(&self) -> Option<String>;

    /// True when the same call may succeed later without any change by the operator.
    fn is_retryable(&self) -> bool {
        false
    }
}
