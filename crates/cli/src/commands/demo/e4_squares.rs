//! The service of the story E4.

use std::sync::Arc;

use meshx_core::{Service, ServiceId};
use meshx_rpc::Server;
use serde::{Deserialize, Serialize};

use super::member::{named, serve};
use crate::failure::{Failure, exit};

/// What can be computed anywhere, and again.
#[meshx_rpc::service(name = "squares")]
pub(super) trait Squares {
    /// A number times itself.
    #[rpc(idempotent, timeout = "5s")]
    async fn square(&self, number: u32) -> Result<Square, String>;
}

/// The result, and who computed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Square {
    pub(super) value: u64,
    pub(super) instance: String,
}

/// One of the instances.
struct Instance(ServiceId);

impl Squares for Instance {
    async fn square(&self, number: u32) -> Result<Square, String> {
        let number = u64::from(number);
        Ok(Square { value: number * number, instance: self.0.to_string() })
    }
}

/// Serves it, in a process of its own.
pub(super) async fn play(id: Option<ServiceId>) -> Result<u8, Failure> {
    let Some(id) = id else {
        return Err(Failure::new(309, exit::USAGE, "an instance of squares needs an --id"));
    };
    let server = Server::new(SquaresFunctions::of(Arc::new(Instance(id.clone()))))
        .named("squares", "demo")
        .listing(true);
    serve(Service::named(named("squares")?).id(id), server).await
}
