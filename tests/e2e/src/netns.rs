//! Two hosts in one machine: network namespaces joined by a pair of virtual interfaces.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::LinkNameSpaceType;

/// The name of a network namespace, which is removed by its [`Pair`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
    address: String,
}

impl Namespace {
    /// The IPv4 address of the namespace's interface.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The name of the interface.
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// A program in this namespace; its process id is that of what is started.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Moves the calling thread, and those that it starts from now on, into this namespace.
    pub fn enter(&self) {
        let file = std::fs::File::open(format!("/var/run/netns/{}", self.name)).unwrap();
        let kind = LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).unwrap();
    }

    /// Changes the namespace's packet filter, as `iptables` with these arguments.
    pub fn iptables(&self, arguments: &[&str]) {
        let status = self.command(Path::new("iptables")).arg("-w").args(arguments).status();
        assert!(status.unwrap().success(), "iptables {}", arguments.join(" "));
    }
}

/// Two namespaces with one link between them.
#[derive(Debug)]
pub struct Pair {
    /// The first host.
    pub a: Namespace,
    /// The second host.
    pub b: Namespace,
}

impl Pair {
    /// Makes them, with addresses of the range for documentation (RFC 5737).
    pub fn make() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // An interface name has at most 15 bytes.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let stem = format!("mx{}x{number}", std::process::id());
        let namespace = |letter: &str, host: u8| Namespace {
            name: format!("{stem}{letter}"),
            address: format!("192.0.2.{host}"),
        };
        let pair = Self { a: namespace("a", 1), b: namespace("b", 2) };
        for side in [&pair.a, &pair.b] {
            ip(&["netns", "add", &side.name]);
            ip(&["-n", &side.name, "link", "set", "lo", "up"]);
        }
        ip(&[
            "link",
            "add",
            &pair.a.name,
            "netns",
            &pair.a.name,
            "type",
            "veth",
            "peer",
            "name",
            &pair.b.name,
            "netns",
            &pair.b.name,
        ]);
        for side in [&pair.a, &pair.b] {
            ip(&[
                "-n",
                &side.name,
                "addr",
                "add",
                &format!("{}/24", side.address),
                "dev",
                &side.name,
            ]);
            ip(&["-n", &side.name, "link", "set", &side.name, "up"]);
        }
        pair
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in [&self.a, &self.b] {
            let _ignored = Command::new("ip").args(["netns", "del", &side.name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("ip is there");
    assert!(status.success(), "ip {}: {status}", arguments.join(" "));
}
