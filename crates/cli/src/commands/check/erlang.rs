//! Erlang on this machine, and the nodes in the mesh.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use meshx_core::{HostForm, NodeName};
use meshx_workload::listening;

use super::{Finding, Outcome, bad, good};
use crate::environment::variable;
use crate::sidecars::Sidecars;

/// The oldest release whose VM asks an epmd module for addresses and ports in one call.
const OLDEST_OTP: u32 = 23;

pub(super) fn installed() -> Vec<Finding> {
    let expression = "io:format(\"~s\",[erlang:system_info(otp_release)]),halt().";
    let ran = Command::new("erl")
        .args(["-noshell", "-boot", "start_clean", "-eval", expression])
        .output();
    let release = ran.ok().and_then(|out| String::from_utf8(out.stdout).ok());
    let release = release.and_then(|text| text.trim().parse::<u32>().ok());
    let release = match release {
        Some(release) if release < OLDEST_OTP => bad(
            601,
            Outcome::Error,
            format!("Erlang/OTP {release}"),
            format!("`meshx exec` needs OTP {OLDEST_OTP} or later"),
            "",
        ),
        Some(release) => good(601, format!("Erlang/OTP {release}")),
        None => bad(
            601,
            Outcome::Warning,
            "`erl` is on the PATH",
            "it is not: only other TCP programs can be run from here",
            "releases bring their own",
        ),
    };
    std::iter::once(release).chain(cookie()).collect()
}

/// A VM refuses to be a node with a cookie that others can read (kernel, `auth`), and so do
/// `meshx node`, `ping` and `call`.
fn cookie() -> Option<Finding> {
    let file = PathBuf::from(variable("HOME")?).join(".erlang.cookie");
    let mode = std::fs::metadata(&file).ok()?.mode();
    let what = format!("{} is for its owner only", file.display());
    Some(if mode & 0o077 != 0 {
        let hint = format!("chmod 400 {}", file.display());
        bad(403, Outcome::Error, what, "others may read or write it: no node starts with it", hint)
    } else {
        good(403, what)
    })
}

pub(super) fn nodes(sidecars: &Sidecars) -> Vec<Finding> {
    let nodes: Vec<(NodeName, Option<&str>)> = sidecars
        .reports
        .iter()
        .filter_map(|report| Some((report.service.parse().ok()?, report.local.as_deref())))
        .collect();
    let mut findings: Vec<Finding> = nodes.iter().filter_map(exposed).collect();
    if let Some((first, _)) = nodes.first() {
        let odd = nodes.iter().find(|(node, _)| !node.form().agrees_with(first.form()));
        findings.push(match odd {
            Some((odd, _)) => bad(
                603,
                Outcome::Warning,
                "the nodes agree on short or long names",
                format!("{first} and {odd} do not, and cannot connect to each other"),
                "give all hosts a dot, or none",
            ),
            None if first.form() == HostForm::Short => good(603, "all nodes use short names"),
            None => good(603, "all nodes use long names"),
        });
    }
    findings
}

/// A VM that listens beyond loopback can be reached around the mesh.
fn exposed((node, local): &(NodeName, Option<&str>)) -> Option<Finding> {
    let local: SocketAddr = (*local)?.parse().ok()?;
    let open = listening::listeners()?
        .into_iter()
        .map(|listener| listener.address)
        .find(|address| address.port() == local.port() && !address.ip().is_loopback());
    let what = format!("{node} listens on loopback only");
    Some(if let Some(open) = open {
        bad(
            606,
            Outcome::Error,
            what,
            format!("it also listens at {open}, in plain text"),
            "remove `inet_dist_use_interface` from the program's own flags",
        )
    } else {
        good(606, what)
    })
}
