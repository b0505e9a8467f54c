//! The definitions of the commands that are, or talk to, Erlang nodes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use meshx_core::NodeName;

use super::{ControlPlane, positive};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    meshx node --name rust@127.0.0.1                        beside stock nodes, with EPMD\n  \
    meshx node --name rust@myhost --mesh                    as a service of the mesh\n  \
    meshx node --name rust-3434@127.0.0.1 --port-base 0      at port 3434, without EPMD\n  \
    erl> net_adm:ping('rust@127.0.0.1').\n  \
    erl> {echo, 'rust@127.0.0.1'} ! {self(), hello}.         answers {Pid, hello}\n  \
    iex> GenServer.call({:counter, :\"rust@127.0.0.1\"}, :next)\n\n\
    counter takes next, get, reset and {add, N}, as a call or a cast. By erpc and rpc: echo:echo/1, \
    math:add/2, meshx:version/0, erlang:node/0, nodes/0 and is_alive/0; all else is undef.\n\n\
    It runs until SIGINT or SIGTERM. Without --mesh nothing on the wire is encrypted, and whoever has the \
    cookie is let in.")]
pub(crate) struct Node {
    /// Name of the node
    #[arg(long, value_name = "NAME@HOST", env = "MESHX_NAME")]
    pub(crate) name: NodeName,
    /// Not in anybody's nodes(), and no part of `global`
    #[arg(long)]
    pub(crate) hidden: bool,
    /// Port to listen on; 0 takes that of --peer-port or --port-base, or else a free one
    #[arg(long, value_name = "P", default_value_t = 0, conflicts_with = "mesh")]
    pub(crate) port: u16,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), conflicts_with = "mesh")]
    pub(crate) listen: IpAddr,
    /// Without EPMD: who dials must know the port; with --peer-port or --port-base it is implied
    #[arg(long, conflicts_with_all = ["mesh", "epmd_port"])]
    pub(crate) no_epmd: bool,
    /// Stay connected to this node, which need not be there yet; repeatable
    #[arg(long, value_name = "NAME@HOST")]
    pub(crate) connect: Vec<NodeName>,
    /// End a live holder of the name in the mesh
    #[arg(long, requires = "mesh")]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) way: Way,
}

/// How nodes are reached, and with which secret.
#[derive(Clone, Debug, Args)]
pub(crate) struct Way {
    /// File that holds the cookie, for its owner alone [default: $RELEASE_COOKIE, else ~/.erlang.cookie]
    #[arg(long, value_name = "FILE", env = "MESHX_COOKIE_FILE")]
    pub(crate) cookie_file: Option<PathBuf>,
    /// Port of EPMD, on every host [default: $ERL_EPMD_PORT, else 4369]
    #[arg(long, value_name = "P", conflicts_with = "mesh")]
    pub(crate) epmd_port: Option<u16>,
    #[command(flatten)]
    pub(crate) ports: Ports,
    /// Through the mesh, by mutual TLS
    #[arg(long)]
    pub(crate) mesh: bool,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

/// Where nodes listen, if no EPMD is to be asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ports {
    /// Without EPMD: the port of every node, as `erl -erl_epmd_port P`
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..), conflicts_with_all = ["mesh", "epmd_port", "port_base"])]
    pub(crate) peer_port: Option<u16>,
    /// Without EPMD: a node's port is N plus the number that its name ends with; with Caravan N is 0
    #[arg(long, value_name = "N", conflicts_with_all = ["mesh", "epmd_port"])]
    pub(crate) port_base: Option<u16>,
}

/// As whom a command asks, and for how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ask {
    /// Name of the hidden node that asks [default: a random one on the host of the node asked]
    #[arg(long = "as", value_name = "NAME@HOST")]
    pub(crate) name: Option<NodeName>,
    /// Longest time for an answer
    #[arg(long, value_name = "D", env = "MESHX_TIMEOUT", default_value = "10s", value_parser = positive)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) way: Way,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  meshx ping node1@127.0.0.1\n  \
    meshx ping --count 5 node1@myhost --mesh\n\n\
    Connects as a hidden node of its own, and asks net_kernel as net_adm:ping/1 does. The exit status is \
    0 when every answer came, 4 when there is no such node, 5 when an intention denies it, 6 when an \
    answer took too long, and 1 otherwise.")]
pub(crate) struct Ping {
    /// The node
    pub(crate) node: NodeName,
    /// How often, a second apart
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  meshx call node1@127.0.0.1 'erlang:memory()'\n  \
    meshx call node1@myhost --mesh 'lists:sum([1, 2, 3])'\n  \
    meshx call node1@127.0.0.1 \"'Elixir.System':version()\"\n\n\
    The result is printed on one line, as ~0p would print it; what the function prints itself is not \
    shown. When the function raises, exits or throws, the exit \
    status is 8, and class and reason are told on stderr.")]
pub(crate) struct Call {
    /// The node
    pub(crate) node: NodeName,
    /// What to call, in Erlang's syntax
    #[arg(value_name = "MOD:FUN(ARGS)")]
    pub(crate) what: String,
    /// Text in UTF-8 is shown as such, as by `~0tp` in place of `~0p`
    #[arg(long)]
    pub(crate) unicode: bool,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Nodes {
    #[command(subcommand)]
    pub(crate) action: Option<NodesAction>,
    #[command(flatten)]
    pub(crate) list: ListNodes,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodesAction {
    /// List those that a host's EPMD, or the mesh, knows (the default)
    List(ListNodes),
    /// What a node says of itself
    Show(ShowNode),
    /// Who is connected to whom, as each node says
    Matrix(Matrix),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListNodes {
    /// The host whose EPMD is asked [default: this one]
    #[arg(conflicts_with = "mesh")]
    pub(crate) host: Option<String>,
    /// Port of EPMD [default: $ERL_EPMD_PORT, else 4369]
    #[arg(long, value_name = "P", conflicts_with = "mesh")]
    pub(crate) epmd_port: Option<u16>,
    /// The nodes of the mesh
    #[arg(long)]
    pub(crate) mesh: bool,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

#[derive(Debug, Args)]
pub(crate) struct ShowNode {
    /// The node
    pub(crate) node: NodeName,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Matrix {
    /// Where to begin; those that they are connected to are asked, too [default with --mesh: all of `nodes list`]
    pub(crate) nodes: Vec<NodeName>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  meshx shell node1@127.0.0.1\n  meshx shell --iex node1@myhost --mesh\n\n\
    Runs `erl -remsh` (or `iex --remsh`) as a hidden node with a random name; with --mesh under \
    `meshx exec`. The cookie is that of ~/.erlang.cookie."
)]
pub(crate) struct Shell {
    /// The node
    pub(crate) node: NodeName,
    /// Elixir's shell
    #[arg(long)]
    pub(crate) iex: bool,
    /// Port of EPMD [default: $ERL_EPMD_PORT, else 4369]
    #[arg(long, value_name = "P", conflicts_with = "mesh")]
    pub(crate) epmd_port: Option<u16>,
    #[command(flatten)]
    pub(crate) ports: Ports,
    /// Through the mesh, by mutual TLS
    #[arg(long)]
    pub(crate) mesh: bool,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}
