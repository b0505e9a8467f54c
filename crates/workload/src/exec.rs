//! `meshx exec`: a command as a member of the mesh, from start to exit.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use meshx_consul::Client;
use meshx_core::{NodeName, ServiceId, ServiceName};
use meshx_proxy::{OpenUpstream, Protocol};
use meshx_rt::net;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::front_door::FrontDoor;
use crate::member::journal;
use crate::naming::{self, Naming, NodePlan};
use crate::rundir::RunDir;
use crate::{
    Member, MemberConfig, NamesMode, Notice, Notify, UpstreamSpec, WorkloadError, admin, child,
    variables, vm,
};

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
    /// `--wait`: how long to wait for the control plane and for `wait_for`.
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
    match naming {
        Naming::Service(name) => exec_service(client, config, name, &folder).await,
        Naming::Node(plan) => exec_node(client, config, plan, &folder).await,
    }
}

/// Any TCP program, or a client of upstreams without a port of its own.
async fn exec_service(
    client: Client,
    config: ExecConfig,
    name: ServiceName,
    folder: &RunDir,
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
    member_config.id = config.id.clone().unwrap_or_else(|| ServiceId::from(&name));
    member_config.offers = local.is_some();
    let member = Member::join(&client, member_config, journal(Arc::clone(&config.notify))).await?;
    (config.notify)(Notice::Joined {
        service: member.name().to_string(),
        public: member.public(),
        control_plane: client.address().to_string(),
    });
    let (upstreams, mut environment) = open_upstreams(&member, &config).await?;
    if let (Some(local), Some(Port::Auto)) = (local, config.port) {
        environment.push(("PORT".to_owned(), local.port().to_string()));
    }
    let member = Arc::new(member);
    let (stop, done) = (CancellationToken::new(), CancellationToken::new());
    let done_guard = done.clone().drop_guard();
    let reporting = Arc::downgrade(&member);
    let report = move || reporting.upgrade().map(|member| member.report());
    admin::serve(&folder.admin_socket(), report, stop.clone(), done)?;

    let mut child = child::spawn(&config.launcher, &config.command, environment)?;
    let drain = async || {
        member.retire("the program is about to end");
        let deadline = Instant::now() + config.drain;
        while !member.sidecar().connections().is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let status = {
        let follow = async {
            match local {
                Some(local) => member.follow_port(local).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child::supervise(&mut child, config.kill_after, stop, drain) => status,
            () = follow => unreachable_follow(),
        }
    };
    drop(done_guard);
    drop(upstreams);
    leave(member, Duration::from_secs(1)).await;
    status.map(child::exit_code)
}

/// An Erlang VM, or the script that starts one.
async fn exec_node(
    client: Client,
    config: ExecConfig,
    plan: NodePlan,
    folder: &RunDir,
) -> Result<u8, WorkloadError> {
    if config.port.is_some() {
        return Err(WorkloadError::Config(
            "--port does not apply to an Erlang node: its port is known when it registers"
                .to_owned(),
        ));
    }
    let journal = journal(Arc::clone(&config.notify));
    // Replaced by the node's name when it is known.
    let unnamed = plan.expected.as_ref().map_or_else(|| "erlang".parse(), |n| Ok(n.service()))?;
    let door = Arc::new(FrontDoor::new(
        client,
        template(&config, unnamed, Protocol::Erlang, folder),
        plan.expected.clone(),
        journal,
        Arc::clone(&config.notify),
    ));
    let mut environment = vm::environment(
        &plan,
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
            let opened = open_upstreams(member, &config).await?;
            upstreams = opened.0;
            environment.extend(opened.1);
        }
    } else if !config.upstreams.is_empty() {
        return Err(WorkloadError::Config(
            "--upstream needs to know who asks: give the node's --name".to_owned(),
        ));
    }
    door.serve(&folder.epmd_socket())?;
    let (stop, done) = (CancellationToken::new(), CancellationToken::new());
    let done_guard = done.clone().drop_guard();
    let reporting = Arc::downgrade(&door);
    let report = move || {
        let door = reporting.upgrade()?;
        let seat = door.member.try_read().ok()?;
        seat.as_ref().map(Member::report)
    };
    admin::serve(&folder.admin_socket(), report, stop.clone(), done)?;

    let mut child = child::spawn(&config.launcher, &config.command, environment)?;
    // The links of a node live as long as the node; there is nothing to wait for.
    let retire = async || {
        if let Some(member) = door.member.read().await.as_ref() {
            member.retire("the node is about to end");
        }
    };
    let status = child::supervise(&mut child, config.kill_after, stop, retire).await;
    drop(done_guard);
    drop(upstreams);
    let member = door.member.write().await.take();
    if let Some(member) = member {
        leave(Arc::new(member), NODE_DRAIN).await;
    }
    status.map(child::exit_code)
}

fn unreachable_follow() -> Result<std::process::ExitStatus, WorkloadError> {
    Err(WorkloadError::Config("the program's port is no longer followed".to_owned()))
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

type OpenedUpstreams = (Vec<OpenUpstream>, Vec<(String, String)>);

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

async fn open_upstreams(
    member: &Member,
    config: &ExecConfig,
) -> Result<OpenedUpstreams, WorkloadError> {
    open_all(member, &config.upstreams, &config.notify).await
}

/// Leaves the mesh. The program has ended by now; a control plane that is away is no reason to
/// change its exit status: the registration expires by itself.
pub(crate) async fn leave(member: Arc<Member>, drain: Duration) {
    let Ok(member) = Arc::try_unwrap(member) else { return };
    if let Err(error) = member.leave(drain).await {
        tracing::debug!(%error, "the registration is left to expire");
    }
}

/// Waits until the control plane answers, for as long as was asked.
pub(crate) async fn wait_for_control_plane(
    client: &Client,
    limit: Duration,
) -> Result<(), WorkloadError> {
    let deadline = Instant::now() + limit;
    loop {
        match client.agent_self().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(error) => tracing::info!(%error, "waiting for the control plane"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn wait_for_services(client: &Client, config: &ExecConfig) -> Result<(), WorkloadError> {
    let deadline = Instant::now() + config.wait.max(Duration::from_secs(30));
    for service in &config.wait_for {
        loop {
            let entries = client.health_connect(service.as_str()).await?;
            let critical = meshx_consul_api::CheckStatus::Critical;
            if entries.iter().any(|entry| entry.status() != critical) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(WorkloadError::Config(format!(
                    "--wait-for {service}: it has no passing instance after {:?}",
                    config.wait.max(Duration::from_secs(30))
                )));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
