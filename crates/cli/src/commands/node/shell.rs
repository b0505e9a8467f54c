//! `meshx shell`: the user's own `erl` or `iex`, attached to another node.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use meshx_core::{HostForm, NodeName};
use meshx_node::etf::Term;
use meshx_node::{ConnectError, RpcError};

use super::Asking;
use crate::args::{Ask, Names, Shell, SidecarArgs, Way};
use crate::environment::variable;
use crate::failure::{Failure, exit};
use crate::output::Output;

/// How long the node that is to have a shell may take to say what it is.
const PROBE: Duration = Duration::from_secs(7);

pub(crate) async fn run(arguments: Shell, output: Output) -> Result<u8, Failure> {
    probe(&arguments, output).await?;
    if arguments.mesh {
        return super::super::exec::run(wrapped(arguments), output).await;
    }
    let port = arguments.ports.of(&arguments.node)?;
    let mut command = plain(&arguments.node, arguments.iex, port);
    if let Some(port) = arguments.epmd_port {
        command.env("ERL_EPMD_PORT", port.to_string());
    }
    // Returns only if there is no such program.
    let error = command.exec();
    let program = command.get_program().to_string_lossy().into_owned();
    let failure = Failure::new(601, exit::NO_PROGRAM, format!("cannot run {program}: {error}"));
    Err(failure.hint("the shell is that of Erlang or Elixir: install it, or use `meshx call`"))
}

/// Fails where no shell can be opened. A shell of its own would wait for it, and not say why.
async fn probe(arguments: &Shell, output: Output) -> Result<(), Failure> {
    // What is found otherwise, or asked with another cookie, is for the shell itself to find.
    let ways = ["-epmd_module", "-erl_epmd_port", "-proto_dist"];
    let flags = ["ERL_AFLAGS", "ERL_FLAGS", "ERL_ZFLAGS"].into_iter().filter_map(variable);
    let mut flags = flags.collect::<Vec<_>>().into_iter();
    if !super::has_cookie() || flags.any(|flags| ways.iter().any(|way| flags.contains(way))) {
        return Ok(());
    }
    let way = Way {
        cookie_file: None,
        epmd_port: arguments.epmd_port,
        ports: arguments.ports.clone(),
        mesh: arguments.mesh,
        control_plane: arguments.control_plane.clone(),
    };
    let target = &arguments.node;
    let ask = Ask { name: None, timeout: PROBE, way };
    let asking = Asking::start(&ask, target, output).await?;
    let asked = async {
        let release = vec![Term::atom("otp_release")];
        let node = &asking.node;
        match node.rpc_term(target.as_str(), "erlang", "system_info", release, PROBE).await {
            Err(RpcError::Connect(error @ ConnectError::Reach { .. })) => Err(error.into()),
            Err(RpcError::Error { reason: Term::Atom(reason), .. }) if reason == "undef" => {
                let message = format!("{target} is no Erlang VM, and has no shell");
                let hint = format!("`meshx call {target} 'MOD:FUN(ARGS)'` calls what it offers");
                Err(Failure::new(602, exit::NEGATIVE, message).hint(hint))
            }
            _ => Ok(()),
        }
    };
    asking.finish(asked).await.map_err(|failure| match failure.exit {
        // A shell has no --as.
        exit::DENIED => Failure { hint: None, ..failure },
        _ => failure,
    })
}

/// A hidden node of the kind of the other one: short and long names do not mix. With the port of the
/// other one it asks no EPMD, and does not listen: it would do so at the same port.
fn plain(node: &NodeName, iex: bool, port: Option<u16>) -> Command {
    let name = format!("rem-{}@{}", meshx_rt::random::hex(8), node.host());
    let long = node.form() != HostForm::Short;
    let mut flags = Vec::new();
    if node.form() == HostForm::LongIpv6 {
        flags.extend(["-proto_dist", "inet6_tcp"].map(str::to_owned));
    }
    if let Some(port) = port {
        let port = port.to_string();
        let words = ["-erl_epmd_port", &port, "-start_epmd", "false", "-dist_listen", "false"];
        flags.extend(words.map(str::to_owned));
    }
    if iex {
        let mut command = Command::new("iex");
        command.args([if long { "--name" } else { "--sname" }, &name, "--hidden"]);
        if !flags.is_empty() {
            command.args(["--erl", &flags.join(" ")]);
        }
        command.args(["--remsh", node.as_str()]);
        command
    } else {
        let mut command = Command::new("erl");
        command.args([if long { "-name" } else { "-sname" }, &name, "-hidden"]);
        command.args(flags).args(["-remsh", node.as_str()]);
        command
    }
}

/// As `meshx exec`, which names a visitor by itself.
fn wrapped(arguments: Shell) -> crate::args::Exec {
    let words = match arguments.iex {
        true => ["iex", "--remsh", arguments.node.as_str()],
        false => ["erl", "-remsh", arguments.node.as_str()],
    };
    let second = Duration::from_secs(1);
    crate::args::Exec {
        name: None,
        port: None,
        upstreams: Vec::new(),
        names: Names::Auto,
        hidden: true,
        wait_for: Vec::new(),
        wait: Duration::ZERO,
        kill_after: 30 * second,
        sidecar: SidecarArgs {
            id: None,
            listen: None,
            advertise: None,
            tags: Vec::new(),
            meta: Vec::new(),
            replace: false,
            drain: second,
        },
        control_plane: arguments.control_plane,
        command: words.map(OsString::from).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_is_named_as_the_node_is() {
        let words = |name: &str, iex| {
            let command = plain(&name.parse().unwrap(), iex, None);
            let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        let long = words("a@10.0.0.9", false);
        assert!(
            long.starts_with("-name rem-") && long.ends_with("@10.0.0.9 -hidden -remsh a@10.0.0.9")
        );
        let short = words("a@myhost", true);
        assert!(short.starts_with("--sname rem-") && short.contains("--hidden --remsh a@myhost"));
        assert!(words("a@::1", false).contains("-proto_dist inet6_tcp"));
    }
}
