//! `meshx proxy`: the sidecar alone, for a program that is started elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use meshx_consul::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exec::{follow, joined, leave, open_all, wait_for_control_plane};
use crate::member::journal;
use crate::rundir::RunDir;
use crate::{Member, MemberConfig, Notify, UpstreamSpec, WorkloadError, admin};

/// What the sidecar stands beside.
#[non_exhaustive]
pub struct ProxyConfig {
    /// The service.
    pub member: MemberConfig,
    /// Where the program listens; `None` for a client without a port.
    pub local: Option<SocketAddr>,
    /// Upstreams to open.
    pub upstreams: Vec<UpstreamSpec>,
    /// How long to wait for the control plane.
    pub wait: Duration,
    /// How long connections may take to end when we are asked to.
    pub drain: Duration,
    /// `SIGHUP` ends the sidecar: it was started in a terminal, which is closed now.
    pub hangup_ends: bool,
    /// Where lines for a person go.
    pub notify: Notify,
    /// Where private folders may be made.
    pub runtime_dir: Option<PathBuf>,
}

impl ProxyConfig {
    /// A sidecar for this member, with everything else as is usual.
    pub fn new(member: MemberConfig, notify: Notify) -> Self {
        let (local, upstreams, runtime_dir) = (None, Vec::new(), None);
        let (wait, drain) = (Duration::ZERO, Duration::from_secs(10));
        let hangup_ends = false;
        Self { member, local, upstreams, wait, drain, hangup_ends, notify, runtime_dir }
    }
}

impl std::fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyConfig").field("member", &self.member).finish_non_exhaustive()
    }
}

/// Runs the sidecar until `SIGTERM` or `SIGINT`, then drains: out of the control plane first, no
/// new connections, those that live may end within the limit. A second signal does not wait.
/// `SIGHUP` has nothing to reload (the token file is read at each request); it ends the sidecar only
/// where [`ProxyConfig::hangup_ends`] says so.
pub async fn proxy(client: Client, config: ProxyConfig) -> Result<(), WorkloadError> {
    wait_for_control_plane(&client, config.wait).await?;
    let folder = RunDir::create(config.runtime_dir.as_deref())?;
    let listen = |kind| signal(kind).map_err(WorkloadError::io("cannot listen for signals"));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hup = listen(SignalKind::hangup())?;
    let (stop, done) = (CancellationToken::new(), CancellationToken::new());
    let _done = done.clone().drop_guard();
    let seat: Arc<OnceLock<Arc<Member>>> = Arc::default();
    let reporting = Arc::clone(&seat);
    let report = move || reporting.get().map(|member| member.report());
    admin::serve(&folder.admin_socket(), report, stop.clone(), done)?;
    let mut member_config = config.member;
    member_config.admin = Some(folder.admin_socket());
    member_config.offers = config.local.is_some();
    let member = Member::join(&client, member_config, journal(Arc::clone(&config.notify))).await?;
    let member = Arc::new(member);
    drop(seat.set(Arc::clone(&member)));
    let run = async {
        joined(&member, &client, &config.notify);
        let (_upstreams, _) = open_all(&member, &config.upstreams, &config.notify).await?;
        loop {
            tokio::select! {
                _ = term.recv() => return Ok(()),
                _ = int.recv() => return Ok(()),
                _ = hup.recv() => if config.hangup_ends { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
                never = follow(&member, config.local) => match never {},
            }
        }
    };
    let ran = run.await;
    tokio::select! {
        () = leave(&member, config.drain) => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    ran
}
