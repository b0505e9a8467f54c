//! `meshx shell`: the user's own `erl` or `iex`, attached to another node.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use meshx_core::{HostForm, NodeName};

use crate::args::{Names, Shell, SidecarArgs};
use crate::failure::{Failure, exit};
use crate::output::Output;

pub(crate) async fn run(arguments: Shell, output: Output) -> Result<u8, Failure> {
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
    let second = std::time::Duration::from_secs(1);
    crate::args::Exec {
        name: None,
        port: None,
        upstreams: Vec::new(),
        names: Names::Auto,
        hidden: true,
        wait_for: Vec::new(),
        wait: std::time::Duration::ZERO,
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
