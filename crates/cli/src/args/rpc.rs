//! The definitions of `meshx rpc`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use meshx_core::ServiceName;
use meshx_rpc::NAME_MAX;

use super::{ControlPlane, duration, key_value, positive};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    meshx rpc serve --listen 127.0.0.1:4000 --listing     a server, to be tried\n  \
    meshx rpc list 127.0.0.1:4000\n  \
    meshx rpc call 127.0.0.1:4000 add '[40, 2]'\n  \
    meshx rpc bench 127.0.0.1:4000 echo '\"hello\"' --concurrency 64")]
pub(crate) struct Rpc {
    #[command(subcommand)]
    pub(crate) action: RpcAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RpcAction {
    /// What a server offers, if it tells
    List(List),
    /// What a function is for, if the server tells
    Describe(Describe),
    /// Call a function: JSON in, JSON out
    Call(Call),
    /// Have a function run, and wait until that was accepted
    Cast(Cast),
    /// Ask a server whether it is there
    Ping(Ping),
    /// Run a server, to be tried
    Serve(Serve),
    /// Call a function as often as it goes, and say how often that was
    Bench(Bench),
}

/// Where a server is: `host:port`, `unix:/path`, or the name of a service of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(String),
    Unix(PathBuf),
    Service(ServiceName),
}

/// Where a server listens: `ip:port`, or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listening {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// How a server is reached, and for how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct Reach {
    /// File that holds the key of the server, for its owner alone
    #[arg(long, value_name = "FILE", env = "MESHX_RPC_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Longest time for an answer, with connecting
    #[arg(long, value_name = "D", env = "MESHX_TIMEOUT", default_value = "10s", value_parser = positive)]
    pub(crate) timeout: Duration,
    /// In the mesh: the service that asks, which intentions and policies judge [default: a random name]
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Option<ServiceName>,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

/// A function, and what it is called with.
#[derive(Clone, Debug, Args)]
pub(crate) struct What {
    /// The function
    #[arg(value_parser = function)]
    pub(crate) function: String,
    /// Its argument in JSON: several are an array; `-` is stdin [default: null]
    #[arg(value_name = "JSON|-", allow_negative_numbers = true)]
    pub(crate) argument: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  meshx rpc list 127.0.0.1:4000\n  \
    meshx rpc list unix:/run/math.sock --json\n\n\
    A server tells only if it was started so (`meshx rpc serve --listing`, `Server::listing`), and only \
    of what the caller may call.")]
pub(crate) struct List {
    /// The server: host:port, unix:/path, or the name of a service of the mesh
    pub(crate) address: Address,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  meshx rpc describe 127.0.0.1:4000 add")]
pub(crate) struct Describe {
    /// The server: host:port, unix:/path, or the name of a service of the mesh
    pub(crate) address: Address,
    /// The function
    #[arg(value_parser = function)]
    pub(crate) function: String,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  meshx rpc call 127.0.0.1:4000 add '[40, 2]'\n  \
    echo '{\"id\": 7}' | meshx rpc call unix:/run/shop.sock order.show -\n  \
    meshx rpc call math add '[40, 2]' --as web            a service of the mesh, asked by web\n  \
    meshx rpc call 127.0.0.1:4000 big 1000000 --raw > bytes\n\n\
    The argument goes over the wire as it is written, and the result is printed as it came. A result that \
    is no text is {\"binary\": BASE64}. The exit status is 1 when the function returned an error, 3 when \
    there is no server, 4 when it has no such function, 5 when it lets us not call it, 6 when the time was \
    over, and 8 when it could not do what was asked. With -v stderr tells where the time went.")]
pub(crate) struct Call {
    /// The server: host:port, unix:/path, or the name of a service of the mesh
    pub(crate) address: Address,
    #[command(flatten)]
    pub(crate) what: What,
    /// It may run more than once: it is called again also if it perhaps ran already
    #[arg(long)]
    pub(crate) idempotent: bool,
    /// Something that travels with the call; repeatable
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    pub(crate) metadata: Vec<(String, String)>,
    /// The bytes of the result, with nothing after them
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  meshx rpc cast 127.0.0.1:4000 log '\"it rains\"'\n\n\
    What becomes of it nobody is told, but for the server's log.")]
pub(crate) struct Cast {
    /// The server: host:port, unix:/path, or the name of a service of the mesh
    pub(crate) address: Address,
    #[command(flatten)]
    pub(crate) what: What,
    /// Something that travels with the cast; repeatable
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    pub(crate) metadata: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  meshx rpc ping 127.0.0.1:4000\n  \
    meshx rpc ping 127.0.0.1:4000 --count 1000 --interval 0\n\n\
    Calls a function that no server has, so that nothing runs. The exit status is 1 when there is no \
    server, 5 when it demands another key, and 6 when an answer took too long.")]
pub(crate) struct Ping {
    /// The server: host:port, unix:/path, or the name of a service of the mesh
    pub(crate) address: Address,
    /// How often
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    /// Time between two
    #[arg(long, value_name = "D", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  meshx rpc serve --listen 127.0.0.1:4000 --listing\n  \
    meshx rpc serve --listen unix:/run/demo.sock --functions add,echo -v\n  \
    meshx rpc serve --mesh --name math                     as a service of the mesh\n  \
    openssl rand -hex 32 > key; chmod 400 key\n  \
    meshx rpc serve --listen 10.0.0.5:4000 --key-file key --policy policy.json\n\n\
    A policy, first rule first; only in the mesh callers have an identity, elsewhere they are `*`:\n  \
    {\"rules\": [{\"functions\": [\"add\", \"meshx.*\"], \"callers\": [\"*\"], \"action\": \"allow\"}], \
    \"default\": \"deny\"}\n\n\
    It runs until SIGINT or SIGTERM. Without --mesh nothing on the wire is encrypted. With -v each call is told on stderr.")]
pub(crate) struct Serve {
    /// Where to listen: ip:port, or unix:/path; port 0 takes a free one; repeatable
    /// [default: 127.0.0.1:0, with --mesh nowhere]
    #[arg(long, value_name = "ADDR", env = "MESHX_RPC_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<Listening>,
    /// As a service of the mesh, by mutual TLS
    #[arg(long)]
    pub(crate) mesh: bool,
    /// What can be called; repeatable
    #[arg(long, value_enum, value_name = "F", value_delimiter = ',', default_values_t = Demo::ALL)]
    pub(crate) functions: Vec<Demo>,
    /// Tell callers what they may call
    #[arg(long)]
    pub(crate) listing: bool,
    /// Name of the service
    #[arg(long, value_name = "NAME", env = "MESHX_NAME", default_value = "demo")]
    pub(crate) name: ServiceName,
    /// Programs in Elixir with the package meshx_rpc can call, too, by terms
    #[arg(long, conflicts_with = "key_file")]
    pub(crate) v1: bool,
    /// File that holds a key that clients must have, too, for its owner alone
    #[arg(long, value_name = "FILE", env = "MESHX_RPC_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// File that says in JSON who may call what [default: everybody everything]
    #[arg(long, value_name = "FILE", env = "MESHX_RPC_POLICY")]
    pub(crate) policy: Option<PathBuf>,
    /// Where to answer Prometheus, at /metrics; port 0 takes a free one [default: nowhere]
    #[arg(long, value_name = "IP:PORT", env = "MESHX_RPC_METRICS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// How long calls may take to end at an orderly stop
    #[arg(long, value_name = "D", env = "MESHX_DRAIN", default_value = "10s", value_parser = duration)]
    pub(crate) drain: Duration,
    #[command(flatten)]
    pub(crate) control_plane: ControlPlane,
}

/// A function to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Demo {
    /// The sum of two integers
    Add,
    /// As many bytes as asked for
    Big,
    /// What it is given
    Echo,
    /// An error, with what it is given
    Fail,
    /// Waits so many milliseconds
    Sleep,
    /// Who calls, and what travels with the call
    Who,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  meshx rpc bench 127.0.0.1:4000 echo '\"hello\"'\n  \
    meshx rpc bench 127.0.0.1:4000 add '[1, 2]' --concurrency 1 --duration 10s\n  \
    meshx rpc bench unix:/run/demo.sock big 1048576 --connections 4 --threads 2 --json\n\n\
    Each of the N callers waits for its answer before it calls again, so a slow server is asked less \
    often. The exit status is 1 when calls failed; the times are those of the others.")]
pub(crate) struct Bench {
    /// The server: host:port, unix:/path, or the name of a service of the mesh
    pub(crate) address: Address,
    #[command(flatten)]
    pub(crate) what: What,
    /// Calls at the same time
    #[arg(long, short, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) concurrency: u32,
    /// For how long
    #[arg(long, short, value_name = "D", default_value = "5s", value_parser = positive)]
    pub(crate) duration: Duration,
    /// No more calls than this
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) calls: Option<u64>,
    /// Connections that they share
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) connections: u16,
    /// Threads that call
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

impl Rpc {
    /// How many threads it wants: 0 is one for each core, 1 is the one that there is.
    pub(crate) fn threads(&self) -> usize {
        match &self.action {
            RpcAction::Serve(_) => 0,
            RpcAction::Bench(bench) => bench.threads.into(),
            _ => 1,
        }
    }
}

impl Demo {
    pub(crate) const ALL: [Self; 6] =
        [Self::Add, Self::Big, Self::Echo, Self::Fail, Self::Sleep, Self::Who];
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = unix(text)? {
            return Ok(Self::Unix(path));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return text.parse().map(Self::Service).map_err(|_| HOW.to_owned());
        };
        let is_name = !host.is_empty() && !host.contains(':');
        let is_ipv6 = host.starts_with('[') && host.ends_with(']');
        match port.parse::<u16>() {
            Ok(1..) if is_name || is_ipv6 => Ok(Self::Tcp(text.to_owned())),
            _ => Err(HOW.to_owned()),
        }
    }
}

impl FromStr for Listening {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = unix(text)? {
            return Ok(Self::Unix(path));
        }
        text.parse().map(Self::Tcp).map_err(|_| "write ip:port, or unix:/path".to_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Service(name) => write!(f, "{name}"),
        }
    }
}

const HOW: &str = "write host:port, unix:/path, or the name of a service";

/// The path behind `unix:`, also where it is written as a URL.
fn unix(text: &str) -> Result<Option<PathBuf>, String> {
    let Some(path) = text.strip_prefix("unix:") else { return Ok(None) };
    let path = path.strip_prefix("//").unwrap_or(path);
    match path {
        "" => Err("a path follows unix:".to_owned()),
        path => Ok(Some(path.into())),
    }
}

fn function(text: &str) -> Result<String, String> {
    match text.len() {
        1..=NAME_MAX => Ok(text.to_owned()),
        _ => Err(format!("a name has 1 to {NAME_MAX} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports_or_paths() {
        for text in ["127.0.0.1:4000", "localhost:1", "[::1]:65535"] {
            assert_eq!(text.parse(), Ok(Address::Tcp(text.to_owned())));
        }
        for text in ["unix:/run/a.sock", "unix:///run/a.sock"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address, Address::Unix("/run/a.sock".into()));
            assert_eq!(address.to_string(), "unix:/run/a.sock");
        }
        let service = "math".parse().unwrap();
        assert_eq!("math".parse(), Ok(Address::Service(service)));
        for text in ["", "/path", "a b", "h:", ":1", "h:0", "h:65536", "::1:80", "unix:", "unix://"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert_eq!("127.0.0.1:0".parse(), Ok(Listening::Tcp(([127, 0, 0, 1], 0).into())));
        assert!("localhost:0".parse::<Listening>().is_err());
    }
}
