//! Asking the sidecars of this machine what they see.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use meshx_consul::Client;
use meshx_core::ServiceName;
use meshx_proxy::{ConnectionFacts, Direction};
use meshx_workload::admin::{self, SidecarReport};
use tokio::task::JoinSet;

use crate::failure::Failure;

/// A sidecar that does not answer by then is not waited for: it may be stopped, and one must not keep
/// the answers of all others away.
const ANSWER_LIMIT: Duration = Duration::from_millis(300);

/// What the sidecars told, and how many could not be asked.
#[derive(Debug, Default)]
pub(crate) struct Sidecars {
    pub(crate) reports: Vec<SidecarReport>,
    /// Instances whose sidecar is on another machine, of another user, stopped, or gone.
    pub(crate) silent: Vec<String>,
    sockets: Vec<PathBuf>,
}

impl Sidecars {
    /// Asks every sidecar that the agent of this machine knows, all at once.
    pub(crate) async fn ask(client: &Client) -> Result<Self, Failure> {
        let mut asked = BTreeMap::new();
        for (id, service) in client.agent_services().await? {
            if service.kind != "connect-proxy"
                && let Some(socket) = service.meta.get(admin::META_ADMIN)
            {
                asked.insert(id, PathBuf::from(socket));
            }
        }
        let mut answers = JoinSet::new();
        for (id, socket) in asked.clone() {
            answers.spawn(async move {
                let answer = match is_ours(&socket) {
                    true => tokio::time::timeout(ANSWER_LIMIT, admin::ask(&socket)).await.ok(),
                    false => None,
                };
                (id, answer.and_then(Result::ok))
            });
        }
        let mut sidecars = Self { sockets: asked.into_values().collect(), ..Self::default() };
        while let Some(answer) = answers.join_next().await {
            match answer {
                Ok((_, Some(report))) => sidecars.reports.push(report),
                Ok((id, None)) => sidecars.silent.push(id),
                Err(_ended) => {}
            }
        }
        sidecars.reports.sort_by(|a, b| a.id.cmp(&b.id));
        sidecars.silent.sort();
        Ok(sidecars)
    }

    /// Asks those that answered once more.
    pub(crate) async fn ask_again(&self) -> Vec<SidecarReport> {
        let mut answers = JoinSet::new();
        for socket in self.sockets.iter().filter(|socket| is_ours(socket)) {
            let socket = socket.clone();
            answers.spawn(async move {
                tokio::time::timeout(ANSWER_LIMIT, admin::ask(&socket)).await.ok()?.ok()
            });
        }
        answers.join_all().await.into_iter().flatten().collect()
    }

    /// The report of a service's sidecar.
    pub(crate) fn of(&self, service: &str) -> Option<&SidecarReport> {
        self.reports.iter().find(|report| report.service == service)
    }

    /// Every link of this machine once. A link whose both sidecars were asked shows twice.
    pub(crate) fn links(&self) -> impl Iterator<Item = &ConnectionFacts> {
        let all = self.reports.iter().flat_map(|report| &report.connections);
        all.filter(|c| self.counts(c.direction, &c.destination))
    }

    /// True when a connection stands for its link: at the side that accepted it, or at the other if
    /// that one cannot be asked.
    pub(crate) fn counts(&self, direction: Direction, destination: &ServiceName) -> bool {
        direction == Direction::Inbound || self.of(destination.as_str()).is_none()
    }
}

/// True for a socket of this user (or any, for root): what the control plane says is not trusted.
fn is_ours(socket: &Path) -> bool {
    let us = rustix::process::getuid().as_raw();
    std::fs::symlink_metadata(socket)
        .is_ok_and(|meta| meta.file_type().is_socket() && (us == 0 || meta.uid() == us))
}
