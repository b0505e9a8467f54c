//! Who the command will be: a service, or an Erlang node, and who tells the VM its name.

use std::ffi::OsString;
use std::path::Path;

use meshx_core::{HostForm, NodeName, ServiceName};

use crate::WorkloadError;
use crate::member::hostname;

/// How an Erlang VM learns its node name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamesMode {
    /// By the command: a release by `RELEASE_*`, a command that names itself not at all, everything
    /// else by `ERL_AFLAGS`.
    #[default]
    Auto,
    /// By `-sname` or `-name` in `ERL_AFLAGS`.
    Aflags,
    /// By `RELEASE_NODE` and `RELEASE_DISTRIBUTION`, which the start scripts of releases read.
    Release,
    /// Not at all: the program names itself, at boot or with `net_kernel:start` later.
    None,
}

/// What the command will be in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// A service of plain TCP, or a client without one.
    Service(ServiceName),
    /// An Erlang node.
    Node(NodePlan),
}

/// An Erlang node as it is planned; what it really calls itself is known when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodePlan {
    /// The name that is expected. `None`: the first registration tells.
    pub(crate) expected: Option<NodeName>,
    /// The node that a release's own commands (`remote`, `rpc`) are about.
    pub(crate) release_node: Option<NodeName>,
    /// Who tells the VM.
    pub(crate) mode: NamesMode,
    /// A remote shell: a hidden node.
    pub(crate) visitor: bool,
    /// The command is the start script of a release.
    pub(crate) release: bool,
}

/// Commands that are Erlang VMs.
const ERLANG: [&str; 4] = ["erl", "iex", "elixir", "werl"];
/// Commands that become an Erlang node when they are given a node name.
const MAYBE_ERLANG: [&str; 4] = ["mix", "rebar3", "gleam", "escript"];
/// Commands of a release's start script that start the node itself.
const STARTS: [&str; 5] = ["start", "start_iex", "foreground", "console", "start_clean"];

/// Decides from our flag (or `MESHX_NAME`), `RELEASE_NODE` and the command's own flags.
pub(crate) fn decide(
    flag: Option<&str>,
    mode: NamesMode,
    command: &[OsString],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Naming, WorkloadError> {
    let words: Vec<&str> = command.iter().map(|word| word.to_str().unwrap_or("")).collect();
    let program = words.first().copied().unwrap_or_default();
    let base = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program);
    let own = own_name(&words);
    let release = is_release(program);
    let flag = flag.map(str::to_owned);
    let said = flag.clone().or_else(|| variable("RELEASE_NODE").filter(|_| release));
    let is_vm = release || ERLANG.contains(&base) || MAYBE_ERLANG.contains(&base) && own.is_some();

    let named = match &said {
        Some(text) if text.contains('@') => Some(text.parse::<NodeName>()?),
        Some(text) if release => Some(with_host(text)?),
        Some(text) => return Ok(Naming::Service(text.parse()?)),
        None if !is_vm => {
            let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            let name: String = base.chars().filter(|c| legal(*c)).collect();
            return Ok(Naming::Service(name.trim_start_matches(['.', '-']).parse()?));
        }
        None => None,
    };
    let own = own.filter(|name| name != "undefined");
    if let (Some(own), Some(named)) = (&own, &named)
        && own != named.as_str()
        && own != named.alive()
    {
        let (command, flag) = (own.clone(), named.to_string());
        return Err(WorkloadError::TwoNames { command, flag });
    }
    let mode = match mode {
        NamesMode::Auto if release => NamesMode::Release,
        NamesMode::Auto if own.is_some() || named.is_none() => NamesMode::None,
        NamesMode::Auto => NamesMode::Aflags,
        other => other,
    };
    let (mut expected, release_node) = (named.clone(), named.filter(|_| release));
    if release && words.get(1).is_some_and(|verb| !STARTS.contains(verb)) {
        // `bin/app remote` names itself after the node that it visits.
        expected = None;
    }
    if expected.is_none() && !release {
        expected = match (&own, remote_shell(&words)) {
            (Some(own), _) if own.contains('@') => Some(own.parse()?),
            (None, Some(remote)) if mode == NamesMode::None => {
                // A visitor needs an identity of its own, on the host form of the node it visits.
                let visitor = format!("rem-{}@{}", meshx_rt::random::hex(6), remote.host());
                let plan = NodePlan {
                    expected: Some(visitor.parse()?),
                    release_node: None,
                    mode: NamesMode::Aflags,
                    visitor: true,
                    release,
                };
                return Ok(Naming::Node(plan));
            }
            _ => None,
        };
    }
    Ok(Naming::Node(NodePlan { expected, release_node, mode, visitor: false, release }))
}

/// True when the command is a VM that nobody asked to be a node: its name has no host.
pub(crate) fn is_nameless_vm(command: &[OsString]) -> bool {
    let program = command.first().map(Path::new).and_then(Path::file_name);
    program.and_then(|name| name.to_str()).is_some_and(|name| ERLANG.contains(&name))
}

/// The flags that tell a VM this name (erl(1)).
pub(crate) fn name_flag(node: &NodeName) -> &'static str {
    if node.form() == HostForm::Short { "-sname" } else { "-name" }
}

/// What the command itself says after `-sname`, `-name` or the long forms of Elixir.
fn own_name(words: &[&str]) -> Option<String> {
    let is_flag = |word: &str| matches!(word, "-sname" | "-name" | "--sname" | "--name");
    let at = words.iter().skip(1).position(|word| is_flag(word))?;
    words.get(at + 2).filter(|name| !name.starts_with('-')).map(|name| (*name).to_owned())
}

/// The node after `-remsh` or `--remsh`.
fn remote_shell(words: &[&str]) -> Option<NodeName> {
    let at = words.iter().position(|word| matches!(*word, "-remsh" | "--remsh"))?;
    words.get(at + 1).and_then(|name| name.parse().ok())
}

/// A name without a host gets this machine's short name, as with `-sname`.
fn with_host(alive: &str) -> Result<NodeName, WorkloadError> {
    let host = hostname();
    let short = host.split('.').next().unwrap_or_default();
    Ok(format!("{alive}@{short}").parse()?)
}

/// A start script of a release stands in `bin/` beside `releases/`.
fn is_release(program: &str) -> bool {
    let path = Path::new(program);
    let root = path.parent().filter(|dir| dir.ends_with("bin")).and_then(Path::parent);
    root.is_some_and(|root| root.join("releases").is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(flag: Option<&str>, command: &str) -> Naming {
        let words: Vec<OsString> = command.split(' ').map(Into::into).collect();
        decide(flag, NamesMode::Auto, &words, &|_| None).unwrap()
    }

    fn node(naming: Naming) -> (Option<String>, NamesMode) {
        match naming {
            Naming::Node(plan) => (plan.expected.map(|name| name.to_string()), plan.mode),
            Naming::Service(name) => panic!("{name} is not a node"),
        }
    }

    #[test]
    fn a_name_with_a_host_is_a_node() {
        let named = Some("a@h".to_owned());
        assert_eq!(node(plan(Some("a@h"), "iex")), (named.clone(), NamesMode::Aflags));
        assert_eq!(node(plan(None, "iex --sname a@h")), (named.clone(), NamesMode::None));
        assert_eq!(node(plan(Some("a@h"), "erl -sname a@h")), (named.clone(), NamesMode::None));
        assert_eq!(node(plan(Some("a@h"), "erl -sname a")), (named, NamesMode::None));
        assert_eq!(node(plan(None, "iex")), (None, NamesMode::None));
        let words: Vec<OsString> = ["iex", "--sname", "b@h"].map(Into::into).to_vec();
        assert!(decide(Some("a@h"), NamesMode::Auto, &words, &|_| None).is_err());
    }

    #[test]
    fn a_visitor_gets_a_name_of_its_own() {
        let (expected, mode) = node(plan(None, "iex --remsh a@myhost"));
        let expected = expected.unwrap();
        assert!(expected.starts_with("rem-") && expected.ends_with("@myhost"), "{expected}");
        assert_eq!(mode, NamesMode::Aflags);
    }

    #[test]
    fn everything_else_is_a_service() {
        assert_eq!(plan(Some("web"), "./server"), Naming::Service("web".parse().unwrap()));
        assert_eq!(plan(None, "/bin/true"), Naming::Service("true".parse().unwrap()));
    }
}
