//! `meshx exec`: a command as a member of the mesh, from start to exit.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use meshx_consul::Client;
use meshx_core::{NodeName, ServiceId, ServiceName};
use meshx_proxy::{Direction, Protocol};
use meshx_rt::net;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::child::Signals;
use crate::front_door::FrontDoor;
use crate::member::journal;
use crate::naming::{self, Naming, NodePlan};
use crate::rundir::RunDir;
use crate::{
    Member, MemberConfig, NamesMode, Notice, Notify, UpstreamGuard, UpstreamSpec, WorkloadError,
    admin, child, variables, vm,
};

/// How long a control plane that answers, but is not ready, is waited for in any case.
const STARTING: Duration = Duration::from_secs(5);
/// How long `--wait-for` waits where `--wait` says nothing.
const WAIT_FOR: Duration = Duration::from_secs(30);
/// Time for the connections of an Erlang node to end after its VM has: they end with it.
const NODE_DRAIN: Duration = Duration::from_millis(500);

/// The port that the program listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Port {
    /// This one.
    Fixed(u16),
    /// A free one, told to the program as `PORT`.
    Auto,
}

/// What to run, and as what.
#[derive(Clone)]
#[non_exhaustive]
pub struct ExecConfig {
    /// The command with its arguments; not empty.
    pub command: Vec<OsString>,
    /// How to call ourselves for [`crate::launch`]: our program and the words before the parent's
    /// process id.
    pub launcher: Vec<OsString>,
    /// `--name`.
    pub name: Option<String>,
    /// `--names`.
    pub names: NamesMode,
    /// `--id`: the instance, where it is not the name.
    pub id: Option<ServiceId>,
    /// `--port`.
    pub port: Option<Port>,
    /// `--upstream`.
    pub upstreams: Vec<UpstreamSpec>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--advertise`.
    pub advertise: Option<IpAddr>,
    /// `--tag`.
    pub tags: Vec<String>,
    /// `--meta`.
    pub meta: BTreeMap<String, String>,
    /// `--hidden`.
    pub hidden: bool,
    /// `--replace`.
    pub replace: bool,
    /// `--wait-for`.
    pub wait_for: Vec<ServiceName>,
    /// `--wait`: how long to wait for the control plane, and for `wait_for` (there 30 s if zero).
    pub wait: Duration,
    /// `--drain`.
    pub drain: Duration,
    /// `--kill-after`.
    pub kill_after: Duration,
    /// Where lines for a person go.
    pub notify: Notify,
    /// The environment, read through this.
    pub variable: fn(&str) -> Option<String>,
}

impl ExecConfig {
    /// The command with everything else as is usual.
    pub fn new(
        command: Vec<OsString>,
        launcher: Vec<OsString>,
        variable: fn(&str) -> Option<String>,
        notify: Notify,
    ) -> Self {
        Self {
            command,
            launcher,
            name: None,
            names: NamesMode::Auto,
            id: None,
            port: None,
            upstreams: Vec::new(),
            listen: None,
            advertise: None,
            tags: Vec::new(),
            meta: BTreeMap::new(),
            hidden: false,
            replace: false,
            wait_for: Vec::new(),
            wait: Duration::ZERO,
            drain: Duration::from_secs(10),
            kill_after: Duration::from_secs(30),
            notify,
            variable,
        }
    }
}

impl std::fmt::Debug for ExecConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecConfig")
            .field("command", &self.command)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Runs the command to its end. Returns the status to exit with: the child's own, or 128 + N when
/// signal N ended it.
///
/// Must be awaited on the main thread: the kernel ties the child's life to the thread that starts
/// it. Errors are of the time before the child started.
pub async fn exec(client: Client, config: ExecConfig) -> Result<u8, WorkloadError> {
    let naming =
        naming::decide(config.name.as_deref(), config.names, &config.command, &config.variable)?;
    wait_for_control_plane(&client, config.wait).await?;
    wait_for_services(&client, &config).await?;
    let runtime_dir = (config.variable)("XDG_RUNTIME_DIR").map(PathBuf::from);
    let folder = RunDir::create(runtime_dir.as_deref())?;
    if let Naming::Service(name) = &naming
        && config.port.is_none()
        && naming::is_nameless_vm(&config.command)
    {
        (config.notify)(Notice::Warning(format!(
            "{name} has no @HOST, so this VM is not a node of the mesh; write --name {name}@myhost"
        )));
    }
    let signals = Signals::listen()?;
    match naming {
        Naming::Service(name) => exec_service(client, config, name, &folder, signals).await,
        Naming::Node(plan) => exec_node(client, config, plan, &folder, signals).await,
    }
}

/// Any TCP program, or a client of upstreams without a port of its own.
async fn exec_service(
    client: Client,
    config: ExecConfig,
    name: ServiceName,
    folder: &RunDir,
    mut signals: Signals,
) -> Result<u8, WorkloadError> {
    let local = match config.port {
        None => None,
        Some(Port::Fixed(port)) => Some(SocketAddr::from(([127, 0, 0, 1], port))),
        Some(Port::Auto) => {
            let port = net::free_port().map_err(WorkloadError::io("no free port"))?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        }
    };
    let mut member_config = template(&config, name.clone(), Protocol::Tcp, folder);
    member_config.id = match (&config.id, &config.name) {
        (Some(id), _) => id.clone(),
        (None, Some(_)) => ServiceId::from(&name),
        // Nobody chose this name; another `exec` of the same command is no conflict.
        (None, None) => format!("{name}-{}", std::process::id()).parse()?,
    };
    member_config.offers = local.is_some();
    let (stop, done) = (CancellationToken::new(), CancellationToken::new());
    let done_guard = done.clone().drop_guard();
    let seat: Arc<OnceLock<Arc<Member>>> = Arc::default();
    let reporting = Arc::clone(&seat);
    let report = move || reporting.get().map(|member| member.report());
    // Before the registration names the socket: whoever finds the one finds the other.
    admin::serve(&folder.admin_socket(), report, stop.clone(), done)?;
    let member = Member::join(&client, member_config, journal(Arc::clone(&config.notify))).await?;
    let member = Arc::new(member);
    drop(seat.set(Arc::clone(&member)));
    let run = async {
        joined(&member, &client, &config.notify);
        let (upstreams, mut environment) =
            open_all(&member, &config.upstreams, &config.notify).await?;
        if let (Some(local), Some(Port::Auto)) = (local, config.port) {
            environment.push(("PORT".to_owned(), local.port().to_string()));
        }
        if let Some(status) = signals.early().await {
            return Ok(status);
        }
        let mut child = child::spawn(&config.launcher, &config.command, environment)?;
        let drain = async || {
            member.retire("the program is about to end");
            let deadline = Instant::now() + config.drain;
            while member.sidecar().connections().count(Direction::Inbound) > 0
                && Instant::now() < deadline
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let status = tokio::select! {
            status = signals.supervise(&mut child, config.kill_after, stop, drain) => status?,
            never = follow(&member, local) => match never {},
        };
        drop(upstreams);
        Ok(child::exit_code(status))
    };
    let status = run.await;
    drop(done_guard);
    leave(&member, Duration::from_secs(1)).await;
    status
}

/// Follows the program's port, if it has one, for ever.
pub(crate) async fn follow(member: &Member, local: Option<SocketAddr>) -> std::convert::Infallible {
    match local {
        Some(local) => member.follow_port(local).await,
        None => std::future::pending().await,
    }
}

/// An Erlang VM, or the script that starts one.
async fn exec_node(
    client: Client,
    config: ExecConfig,
    plan: NodePlan,
    folder: &RunDir,
    signals: Signals,
) -> Result<u8, WorkloadError> {
    if config.port.is_some() {
        return Err(WorkloadError::Config(
            "--port does not apply to an Erlang node: its port is known when it registers"
                .to_owned(),
        ));
    }
    if plan.expected.is_none() && !config.upstreams.is_empty() {
        return Err(WorkloadError::Config(
            "--upstream needs to know who asks: give the node's --name".to_owned(),
        ));
    }
    // Replaced by the node's name when it is known.
    let unnamed = plan.expected.as_ref().map_or_else(|| "erlang".parse(), |n| Ok(n.service()))?;
    let door = Arc::new(FrontDoor::new(
        client,
        template(&config, unnamed, Protocol::Erlang, folder),
        plan.expected.clone(),
        journal(Arc::clone(&config.notify)),
        Arc::clone(&config.notify),
    ));
    let (stop, done) = (CancellationToken::new(), CancellationToken::new());
    let done_guard = done.clone().drop_guard();
    let reporting = Arc::downgrade(&door);
    let report = move || {
        let door = reporting.upgrade()?;
        let seat = door.member.try_read().ok()?;
        seat.as_ref().map(Member::report)
    };
    admin::serve(&folder.admin_socket(), report, stop.clone(), done)?;
    let status = run_node(&door, &config, &plan, folder, signals, stop).await;
    drop(done_guard);
    let member = door.member.write().await.take();
    if let Some(member) = member {
        leave(&member, NODE_DRAIN).await;
    }
    status
}

async fn run_node(
    door: &Arc<FrontDoor>,
    config: &ExecConfig,
    plan: &NodePlan,
    folder: &RunDir,
    mut signals: Signals,
    stop: CancellationToken,
) -> Result<u8, WorkloadError> {
    let mut environment = vm::environment(
        plan,
        config.hidden,
        &folder.epmd_socket(),
        folder.epmd_module()?,
        &config.command,
        &config.variable,
    );
    let mut upstreams = Vec::new();
    if let Some(expected) = &plan.expected {
        door.become_member(expected).await?;
        if let Some(member) = door.member.read().await.as_ref() {
            let opened = open_all(member, &config.upstreams, &config.notify).await?;
            upstreams = opened.0;
            environment.extend(opened.1);
        }
    }
    door.serve(&folder.epmd_socket())?;
    if let Some(status) = signals.early().await {
        return Ok(status);
    }
    let mut child = child::spawn(&config.launcher, &config.command, environment)?;
    // The links of a node live as long as the node; there is nothing to wait for.
    let retire = async || {
        if let Some(member) = door.member.read().await.as_ref() {
            member.retire("the node is about to end");
        }
    };
    let status = signals.supervise(&mut child, config.kill_after, stop, retire).await?;
    drop(upstreams);
    Ok(child::exit_code(status))
}

fn template(
    config: &ExecConfig,
    name: ServiceName,
    protocol: Protocol,
    folder: &RunDir,
) -> MemberConfig {
    MemberConfig {
        listen: config.listen,
        advertise: config.advertise,
        tags: config.tags.clone(),
        meta: config.meta.clone(),
        replace: config.replace,
        admin: Some(folder.admin_socket()),
        ..MemberConfig::new(name, protocol)
    }
}

/// Says that a member is in.
pub(crate) fn joined(member: &Member, client: &Client, notify: &Notify) {
    notify(Notice::Joined {
        service: member.name().to_string(),
        public: member.public(),
        control_plane: client.address().to_string(),
    });
}

type OpenedUpstreams = (Vec<UpstreamGuard>, Vec<(String, String)>);

pub(crate) async fn open_all(
    member: &Member,
    specs: &[UpstreamSpec],
    notify: &Notify,
) -> Result<OpenedUpstreams, WorkloadError> {
    let (mut opened, mut environment) = (Vec::new(), Vec::new());
    for spec in specs {
        let is_node = spec.destination.as_str().parse::<NodeName>().is_ok();
        let protocol = if is_node { Protocol::Erlang } else { Protocol::Tcp };
        let (open, local, _) = member.open(&spec.upstream(), protocol).await?;
        notify(Notice::Upstream { destination: spec.destination.to_string(), local });
        environment.extend(variables(&spec.destination, local));
        opened.push(open);
    }
    Ok((opened, environment))
}

/// Leaves the mesh. The program has ended by now; a control plane that is away is no reason to
/// change its exit status: the registration expires by itself.
pub(crate) async fn leave(member: &Member, drain: Duration) {
    if let Err(error) = member.leave(drain).await {
        tracing::debug!(%error, "the registration is left to expire");
    }
}

/// Waits until the control plane answers and can issue certificates, for as long as was asked. One
/// that answers that it is not ready is given a moment even where no waiting was asked for: a Consul
/// that has just started has no root certificate yet.
pub(crate) async fn wait_for_control_plane(
    client: &Client,
    limit: Duration,
) -> Result<(), WorkloadError> {
    let begun = Instant::now();
    loop {
        let ready = async {
            client.agent_self().await?;
            client.ca_roots().await
        };
        match ready.await {
            Ok(_) => return Ok(()),
            Err(error) => {
                let starting = error.status().is_some_and(|status| status >= 500);
                let limit = if starting { limit.max(STARTING) } else { limit };
                if begun.elapsed() >= limit {
                    return Err(error.into());
                }
                tracing::info!(%error, "waiting for the control plane");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn wait_for_services(client: &Client, config: &ExecConfig) -> Result<(), WorkloadError> {
    let limit = if config.wait.is_zero() { WAIT_FOR } else { config.wait };
    let deadline = Instant::now() + limit;
    for service in &config.wait_for {
        loop {
            let entries = client.health_connect(service.as_str()).await?;
            let critical = meshx_consul_api::CheckStatus::Critical;
            if entries.iter().any(|entry| entry.status() != critical) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(WorkloadError::NotReady { service: service.to_string(), limit });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
