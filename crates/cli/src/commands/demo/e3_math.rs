//! The service of the story E3.

use std::fmt;
use std::sync::Arc;

use meshx_core::Service;
use meshx_rpc::{Context, Policy, Server, v1};
use serde::{Deserialize, Serialize};

use super::member::{named, serve};
use crate::failure::Failure;

/// Arithmetic, for those who may.
#[meshx_rpc::service(name = "math")]
pub(super) trait Math {
    /// The sum of two numbers.
    #[rpc(idempotent)]
    async fn add(&self, a: i64, b: i64) -> Result<i64, MathError>;

    /// How often `b` goes into `a`, and what is left.
    #[rpc(idempotent)]
    async fn divide(&self, a: i64, b: i64) -> Result<(i64, i64), MathError>;

    /// Who calls, as was proven.
    #[rpc(idempotent)]
    async fn caller(&self) -> Result<Option<String>, String>;
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum MathError {
    /// Nothing goes into this by zero.
    DivisionByZero { dividend: i64 },
    /// It needs more than 64 bits.
    TooLarge,
}

/// Who may call what; as in a file for `meshx rpc serve --policy`.
pub(super) const POLICY: &str = r#"{"rules": [
  {"functions": ["math.caller"],       "callers": ["web", "guest"], "action": "allow"},
  {"functions": ["math.*", "meshx.*"], "callers": ["web"],          "action": "allow"}],
 "default": "deny"}"#;

struct Arithmetic;

impl Math for Arithmetic {
    async fn add(&self, a: i64, b: i64) -> Result<i64, MathError> {
        a.checked_add(b).ok_or(MathError::TooLarge)
    }

    async fn divide(&self, a: i64, b: i64) -> Result<(i64, i64), MathError> {
        if b == 0 {
            return Err(MathError::DivisionByZero { dividend: a });
        }
        a.checked_div(b).zip(a.checked_rem(b)).ok_or(MathError::TooLarge)
    }

    async fn caller(&self) -> Result<Option<String>, String> {
        Ok(Context::current().and_then(|context| context.peer().identity.clone()))
    }
}

impl fmt::Display for MathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DivisionByZero { dividend } => write!(f, "{dividend} cannot be divided by zero"),
            Self::TooLarge => f.write_str("the result is too large"),
        }
    }
}

/// Serves them, in a process of its own.
pub(super) async fn play() -> Result<u8, Failure> {
    let policy: Policy = serde_json::from_str(POLICY)
        .map_err(|error| Failure::internal("read the demo's policy", &error))?;
    let server = Server::new(MathFunctions::of(Arc::new(Arithmetic)))
        .named("math", "demo")
        .policy(policy)
        .listing(true)
        .also_v1(v1::ServerOptions::default())?;
    serve(Service::named(named("math")?), server).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_may_ask_who_they_are_and_nothing_else() {
        let policy: Policy = serde_json::from_str(POLICY).unwrap();
        let identity = |service| format!("spiffe://a.consul/ns/default/dc/dc1/svc/{service}");
        let (web, guest) = (identity("web"), identity("guest"));
        for name in MathFunctions::names() {
            assert!(policy.allows(Some(&web), name), "{name}");
            assert_eq!(policy.allows(Some(&guest), name), **name == *"math.caller", "{name}");
            assert!(!policy.allows(None, name), "{name}");
        }
    }
}
