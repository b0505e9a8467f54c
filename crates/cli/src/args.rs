//! The definitions of the command line, apart from what the commands do.
#![allow(clippy::doc_markdown, rustdoc::bare_urls, reason = "these comments are the help text")]

mod etf;
mod node;
pub(crate) mod rpc;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use etf::{Etf, EtfAction, EtfDecode, EtfEncode, EtfFilter, Reading, Writing};
use meshx_core::{IntentionName, ServiceId, ServiceName};
use meshx_workload::UpstreamSpec;
pub(crate) use node::{
    Ask, Call, ListNodes, Matrix, Node, Nodes, NodesAction, Ping, Ports, Shell, ShowNode, Way,
};

/// Runs any Elixir, Erlang, Rust or other TCP program as a service in an encrypted mesh, without
/// changing the program.
#[derive(Debug, Parser)]
#[command(
    name = "meshx",
    version,
    after_help = "Begin with:\n  meshx demo                                  see it work\n  \
        meshx agent                                 a control plane for this machine\n  \
        meshx exec --name node1@myhost -- iex       a program in the mesh"
)]
pub(crate) struct Arguments {
    /// Data as JSON on stdout, errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No banner, no progress
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// More log on stderr; twice for even more [env: MESHX_LOG]
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a story once, for real, and explain it: the main one, or one of RPC
    Demo(Demo),
    /// Run a control plane for one machine (Consul-compatible HTTP and DNS API)
    Agent(Agent),
    /// Run a program as a service in the mesh
    Exec(Exec),
    /// Run the sidecar alone, for a program that is started elsewhere
    Proxy(Proxy),
    /// Who may talk to whom
    #[command(alias = "intention")]
    Intentions(Intentions),
    /// The services of the mesh
    #[command(alias = "service")]
    Services(Services),
    /// The state of this machine's part of the mesh on one screen
    Status(Status),
    /// Why two services can, or cannot, talk: step by step
    Why(Why),
    /// Look for what is wrong, or will be
    Check(Check),
    /// Run an EPMD in the place of OTP's, or ask the one that runs
    Epmd(Epmd),
    /// Terms in Erlang's external format: read, write, test
    Etf(Etf),
    /// Run an Erlang node in Rust, to be tried
    Node(Node),
    /// Erlang nodes, and what they say of themselves
    Nodes(Nodes),
    /// Ask a node whether it is there
    Ping(Ping),
    /// Call a function on a node
    Call(Call),
    /// Open a shell on a node: the machine's own erl or iex
    Shell(Shell),
    /// Call functions of RPC servers, or run one to be tried
    Rpc(rpc::Rpc),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the version
    Version,
    /// Start a program tied to the life of its wrapper
    #[command(hide = true)]
    Launch(Launch),
    /// One of the demo's own programs
    #[command(hide = true)]
    DemoPeer(DemoPeer),
}

/// How to reach the control plane: Consul's own variables.
#[derive(Clone, Debug, Args)]
pub(crate) struct ControlPlane {
    /// Address of the control plane: host:port, https://… or unix:///path
    #[arg(long, value_name = "ADDR", env = "CONSUL_HTTP_ADDR")]
    pub(crate) http_addr: Option<String>,
    /// File that holds the ACL token [env: CONSUL_HTTP_TOKEN_FILE; or CONSUL_HTTP_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  meshx demo                 a link between two nodes: cut, and healed\n  \
    meshx demo e3              functions: who may call what, and who called\n  \
    meshx demo e4              a server is killed among many calls, and none of them fails\n\n\
    Of e3 and e4, --json has the results on stdout and the story on stderr; of the main story --json \
    changes nothing. The exit status is 0 only if every step came out as told."
)]
pub(crate) struct Demo {
    /// Which story, if not the main one
    #[arg(value_enum, conflicts_with = "with")]
    pub(crate) story: Option<DemoStory>,
    /// Leave the mesh running afterwards, to play with, until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// What to run: Erlang VMs, or the demo's own nodes in Rust or TCP programs
    #[arg(long, value_enum, default_value_t = DemoMode::Auto)]
    pub(crate) with: DemoMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoStory {
    /// RPC between services: typed functions, proven callers, a policy, an intention
    E3,
    /// 20 workers call two servers, and one of these is killed
    E4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoMode {
    /// Erlang VMs where Erlang is installed, nodes in Rust elsewhere
    Auto,
    /// Two Erlang VMs
    Erlang,
    /// Two Erlang nodes in Rust
    Node,
    /// Two small TCP programs
    Tcp,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// Where the HTTP API listens; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "MESHX_AGENT_HTTP_ADDR",
        default_value = "127.0.0.1:8500"
    )]
    pub(crate) http_addr: SocketAddr,
    /// Where DNS listens, UDP and TCP: an address, or `none`; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR|none",
        env = "MESHX_AGENT_DNS_ADDR",
        default_value = "127.0.0.1:8600"
    )]
    pub(crate) dns_addr: OffOr<SocketAddr>,
    /// Keep the certificate authority and the intentions here; without it they are lost on exit
    #[arg(long, value_name = "DIR", env = "MESHX_AGENT_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// What holds where no intention matches
    #[arg(long, value_enum, env = "MESHX_AGENT_DEFAULT_INTENTION", default_value_t = Policy::Allow)]
    pub(crate) default_intention: Policy,
    /// Name of this machine in the catalog [default: its host name]
    #[arg(long, value_name = "NAME", env = "MESHX_AGENT_NODE")]
    pub(crate) node: Option<String>,
    /// Name of the datacenter
    #[arg(long, env = "MESHX_AGENT_DATACENTER", default_value = "dc1")]
    pub(crate) datacenter: String,
    /// Address of this machine: where its services are when they do not say
    #[arg(long, value_name = "IP", env = "MESHX_AGENT_ADVERTISE", default_value = "127.0.0.1")]
    pub(crate) advertise: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Everybody may talk to everybody
    Allow,
    /// Nobody may talk to anybody
    Deny,
}

/// A value, or `none`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OffOr<T>(pub(crate) Option<T>);

impl<T: std::str::FromStr> std::str::FromStr for OffOr<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  meshx exec --name node1@myhost -- iex\n  \
    meshx exec --name app@10.0.0.5 -- bin/app start\n  \
    meshx exec --name web --port 8080 --upstream db:5432 -- ./server\n  \
    meshx exec -- iex --remsh node1@myhost\n\n\
    The exit status is the program's own; 128 + N when signal N ended it; 125 when meshx failed \
    before it started (3: no control plane, 7: the name is taken), 126 not executable, 127 not found.")]
pub(crate) struct Exec {
    /// Service name; with @HOST an Erlang node [default: what the command calls itself]
    #[arg(long, value_name = "NAME[@HOST]", env = "MESHX_NAME")]
    pub(crate) name: Option<String>,
    /// TCP port that the program listens on; `auto` takes a free one and exports PORT
    #[arg(long, value_name = "P|auto", env = "MESHX_APP_PORT")]
    pub(crate) port: Option<PortArg>,
    /// Open a local address for service S, exported as `MESHX_UPSTREAM_S`; repeatable
    #[arg(long = "upstream", value_name = "S[:PORT]")]
    pub(crate) upstreams: Vec<UpstreamSpec>,
    /// How an Erlang VM learns its name
    #[arg(long, value_enum, env = "MESHX_NAMES", default_value_t = Names::Auto)]
    pub(crate) names: Names,
    /// Start the VM as a hidden node
    #[arg(long)]
    pub(crate) hidden: bool,
    /// Start the program only when service S has a passing instance; repeatable
    #[arg(long = "wait-for", value_name = "S")]
    pub(crate) wait_for: Vec<ServiceName>,
    /// How long to wait for the control plane, and for `--wait-for` (0s: not, and 30s)
    #[arg(long, value_name = "D", env = "MESHX_WAIT", default_value = "0s", value_parser = duration)]
    pub(crate) wait: Duration,
    /// How long an orderly stop may take before the program gets SIGKILL
    #[arg(long, value_name = "D", env = "MESHX_KILL_AFTER", default_value = "30s", value_parser = duration)]
    pub(crate) kill_after: Duration,
    #[command(flatten)]
    pub(crate) sidecar: SidecarArgs,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// What `exec` and `proxy` have in common.
#[derive(Debug, Args)]
pub(crate) struct SidecarArgs {
    /// Instance id, where one agent has several instances of the service
    #[arg(long, env = "MESHX_ID")]
    pub(crate) id: Option<ServiceId>,
    /// Where the sidecar listens for peers
    #[arg(long, value_name = "ADDR:PORT", env = "MESHX_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address that peers are told
    #[arg(long, value_name = "IP", env = "MESHX_ADVERTISE")]
    pub(crate) advertise: Option<IpAddr>,
    /// Tag of the registration; repeatable
    #[arg(long = "tag", value_name = "T")]
    pub(crate) tags: Vec<String>,
    /// Metadata of the registration; repeatable
    #[arg(long = "meta", value_name = "K=V", value_parser = key_value)]
    pub(crate) meta: Vec<(String, String)>,
    /// End a live holder of the name, or take over another tool's registration
    #[arg(long)]
    pub(crate) replace: bool,
    /// How long connections may take to end at an orderly stop
    #[arg(long, value_name = "D", env = "MESHX_DRAIN", default_value = "10s", value_parser = duration)]
    pub(crate) drain: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortArg {
    Fixed(u16),
    Auto,
}

impl std::str::FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u16>() {
            Ok(0) => Err("port 0 is no port; write `auto`".to_owned()),
            Ok(port) => Ok(Self::Fixed(port)),
            Err(_) if text == "auto" => Ok(Self::Auto),
            Err(_) => Err("write a port number or `auto`".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Names {
    /// By what the command is
    Auto,
    /// By -sname or -name in `ERL_AFLAGS`
    Aflags,
    /// By `RELEASE_NODE` and `RELEASE_DISTRIBUTION`
    Release,
    /// Not at all: the program names itself, at boot or later
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Proxy {
    /// The service
    #[arg(long, value_name = "NAME", env = "MESHX_NAME")]
    pub(crate) service: ServiceName,
    /// Port of 127.0.0.1, or ADDR:PORT, where the program listens; without it, a client only
    #[arg(long, value_name = "PORT|ADDR:PORT", env = "MESHX_APP_PORT", value_parser = local_address)]
    pub(crate) port: Option<SocketAddr>,
    /// Open a local address for service S; repeatable
    #[arg(long = "upstream", value_name = "S[:PORT]")]
    pub(crate) upstreams: Vec<UpstreamSpec>,
    /// How long to wait for the control plane
    #[arg(long, value_name = "D", env = "MESHX_WAIT", default_value = "0s", value_parser = duration)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) sidecar: SidecarArgs,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    meshx intentions deny node2@myhost node1@myhost\n  meshx intentions deny '*' db\n  \
    meshx intentions allow web db\n  meshx intentions check web db"
)]
pub(crate) struct Intentions {
    #[command(subcommand)]
    pub(crate) action: Option<IntentionsAction>,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IntentionsAction {
    /// List them, highest precedence first (the default)
    List(ControlPlane),
    /// Allow SOURCE to connect to DESTINATION
    Allow(Pair),
    /// Deny it, and cut the connections that live
    Deny(Pair),
    /// Remove the intention of this pair (between two nodes: and of the way back)
    Remove(Pair),
    /// Say whether SOURCE may connect to DESTINATION; exit status 1 when not
    Check(Pair2),
}

#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// Who dials: a service, a node, or '*'
    pub(crate) source: IntentionName,
    /// Who is dialled: a service, a node, or '*'
    pub(crate) destination: IntentionName,
    /// Only this direction, where both are Erlang nodes (a link carries both ways)
    #[arg(long)]
    pub(crate) one_way: bool,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Args)]
pub(crate) struct Pair2 {
    /// Who dials
    pub(crate) source: ServiceName,
    /// Who is dialled
    pub(crate) destination: ServiceName,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Services {
    #[command(subcommand)]
    pub(crate) action: Option<ServicesAction>,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServicesAction {
    /// List them (the default)
    List(ControlPlane),
    /// Show the instances of one
    Show(ShowService),
}

#[derive(Debug, Args)]
pub(crate) struct ShowService {
    /// The service
    pub(crate) name: ServiceName,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// Who dials
    pub(crate) source: ServiceName,
    /// Who is dialled
    pub(crate) destination: ServiceName,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Only what can be known before a control plane runs
    #[arg(long)]
    pub(crate) pre: bool,
    /// Warnings count as failures
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "meshx epmd [FLAGS]\n       meshx epmd [-port N] -names | -kill | -stop NAME",
    after_help = EPMD_FLAGS
)]
pub(crate) struct Epmd {
    /// Flags of OTP's epmd, with one dash
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS", hide = true)]
    pub(crate) flags: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Launch {
    /// Process id of the wrapper
    pub(crate) parent: u32,
    /// The command
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoPeer {
    /// Where to listen
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// To be a node of this name
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// To serve the functions of this story
    #[arg(long, value_enum)]
    pub(crate) rpc: Option<DemoStory>,
    /// Instance id of that server
    #[arg(long, requires = "rpc")]
    pub(crate) id: Option<ServiceId>,
}

/// They are OTP's, so clap does not read them: `commands/epmd/flags.rs` does.
const EPMD_FLAGS: &str = "\
The daemon:
  -port N                  Listen on this port [env: ERL_EPMD_PORT] [default: 4369]
  -address LIST            Listen on these addresses, too; without it on loopback alone
                           (0.0.0.0 and :: are all) [env: ERL_EPMD_ADDRESS]
  -daemon                  In the background; returns once it listens
  -relaxed_command_check   Allow -kill while nodes are registered, and -stop
                           [env: ERL_EPMD_RELAXED_COMMAND_CHECK]
  -packet_timeout SECONDS  Close what has not asked by then [default: 60]
  -delay_accept SECONDS    Play a busy machine
  -delay_write SECONDS     Play a busy machine
  -d, -debug               Log on stderr; twice for more

A running one, on this machine:
  -names                   List its nodes
  -kill                    End it
  -stop NAME               Take a name from its holder

The flags are those of OTP's epmd, with one dash; of meshx's own --json may follow them, and the others go before; -systemd is not supported. Called by the name epmd
(a symbolic link) this program speaks and exits as OTP's. Three ways to have it serve the nodes of
this machine:
  meshx epmd -daemon             before the first node: the epmd that `erl` starts then gives way
  erl -epmd 'meshx epmd -daemon' has this VM start it; also in ERL_AFLAGS
  a link named epmd in the place of OTP's, in ROOT/erts-VERSION/bin: every VM there starts it
  (ROOT is what `erl -noshell -eval 'io:put_chars(code:root_dir()), halt().'` prints)";

/// A duration as in Go and systemd: `500ms`, `10s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "write 500ms, 10s, 2m or 1h".to_owned())?;
    match text.strip_prefix(digits).unwrap_or_default() {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        unit => Err(format!("`{unit}` is no unit; write 500ms, 10s, 2m or 1h")),
    }
}

/// A duration that is some time.
fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("no time is too short: write 500ms, 10s, 2m or 1h".to_owned()),
        some => Ok(some),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if key.is_empty() || key.len() > 128 || !key.chars().all(legal) || value.len() > 512 {
        return Err(
            "a key is 1 to 128 letters, digits, `-`, `_`; a value up to 512 bytes".to_owned()
        );
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn local_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        Err(_) => text.parse().map_err(|_| "write a port, or ADDR:PORT".to_owned()),
    }
}

/// What `meshx version` prints after the name.
pub(crate) fn version() -> String {
    let commit = option_env!("MESHX_COMMIT").map_or_else(String::new, |c| format!(" ({c})"));
    format!("{}{commit}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert!(positive("0").is_err() && positive("0ms").is_err() && positive("1ms").is_ok());
        assert!(duration("5 parsecs").is_err() && duration("").is_err());
    }
}
