//! Asking the sidecars of this machine what they see.

use std::path::Path;

use meshx_consul::Client;
use meshx_workload::admin::{self, SidecarReport};

use crate::failure::Failure;

/// What the sidecars told, and how many could not be asked.
#[derive(Debug, Default)]
pub(crate) struct Sidecars {
    pub(crate) reports: Vec<SidecarReport>,
    /// Instances whose sidecar is on another machine, of another user, or gone.
    pub(crate) silent: Vec<String>,
}

impl Sidecars {
    /// Asks every sidecar that the agent of this machine knows.
    pub(crate) async fn ask(client: &Client) -> Result<Self, Failure> {
        let mut sidecars = Self::default();
        for (id, service) in client.agent_services().await? {
            let Some(socket) = service.meta.get(admin::META_ADMIN) else { continue };
            if service.kind == "connect-proxy" {
                continue;
            }
            match admin::ask(Path::new(socket)).await {
                Ok(report) => sidecars.reports.push(report),
                Err(_) => sidecars.silent.push(id),
            }
        }
        Ok(sidecars)
    }

    /// The report of a service's sidecar.
    pub(crate) fn of(&self, service: &str) -> Option<&SidecarReport> {
        self.reports.iter().find(|report| report.service == service)
    }
}
