//! `meshx nodes show`.

use std::collections::BTreeMap;

use meshx_node::etf::Term;
use meshx_node::{Flags, Node, RpcError};
use serde::Serialize;

use crate::args::ShowNode;
use crate::commands::node::Asking;
use crate::failure::{Failure, exit};
use crate::output::{Output, table};

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    node: String,
    hidden: bool,
    creation: u32,
    /// What it knows of itself; what it has no answer to is not there.
    facts: BTreeMap<&'static str, Fact>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Fact {
    Text(String),
    Number(i64),
    List(Vec<String>),
}

/// What is asked: the name of the fact, the function, its argument.
const QUESTIONS: [(&str, &str, &str, Option<&str>); 15] = [
    ("otp_release", "erlang", "system_info", Some("otp_release")),
    ("erts_version", "erlang", "system_info", Some("version")),
    ("elixir_version", "Elixir.System", "version", None),
    ("meshx_version", "meshx", "version", None),
    ("architecture", "erlang", "system_info", Some("system_architecture")),
    ("os_pid", "os", "getpid", None),
    ("schedulers_online", "erlang", "system_info", Some("schedulers_online")),
    ("processes", "erlang", "system_info", Some("process_count")),
    ("process_limit", "erlang", "system_info", Some("process_limit")),
    ("ports", "erlang", "system_info", Some("port_count")),
    ("run_queue", "erlang", "statistics", Some("run_queue")),
    ("memory_bytes", "erlang", "memory", Some("total")),
    ("uptime_milliseconds", "erlang", "statistics", Some("wall_clock")),
    ("nodes", "erlang", "nodes", None),
    ("hidden_nodes", "erlang", "nodes", Some("hidden")),
];

pub(super) async fn run(arguments: ShowNode, output: Output) -> Result<u8, Failure> {
    let target = arguments.node;
    let asking = Asking::start(&arguments.ask, &target, output).await?;
    let node = &asking.node;
    let asked = async {
        asking.connect(&target).await?;
        let peer = node.peers().into_iter().find(|peer| peer.name == target.as_str());
        let mut report = Report {
            schema: "meshx.nodes.show/1",
            node: target.to_string(),
            hidden: !peer.as_ref().is_some_and(|peer| peer.offered.contains(Flags::PUBLISHED)),
            creation: peer.map_or(0, |peer| peer.creation),
            facts: BTreeMap::new(),
        };
        let all = facts(node, target.as_str(), &mut report.facts);
        match tokio::time::timeout(asking.limit, all).await {
            Ok(done) => done.map(|()| report),
            Err(_) => Err(asking.too_late(&target)),
        }
    };
    let report = asking.finish(asked).await?;
    output.data(&report, |report| {
        let seen = if report.hidden { "hidden" } else { "visible" };
        let mut rows = vec![
            vec!["node".to_owned(), report.node.clone()],
            vec!["type".to_owned(), format!("{seen}, creation {}", report.creation)],
        ];
        // In the order in which they were asked.
        for (name, ..) in QUESTIONS {
            if let Some(fact) = report.facts.get(name) {
                let unit =
                    |name: &str| ["_milliseconds", "_bytes"].iter().any(|it| name.ends_with(it));
                let short =
                    if unit(name) { name.rsplit_once('_').map_or(name, |it| it.0) } else { name };
                rows.push(vec![short.replace('_', " "), shown(name, fact)]);
            }
        }
        table(&rows)
    });
    Ok(exit::SUCCESS)
}

async fn facts(
    node: &Node,
    target: &str,
    facts: &mut BTreeMap<&'static str, Fact>,
) -> Result<(), Failure> {
    for (name, module, function, argument) in QUESTIONS {
        let arguments = argument.map(Term::atom).into_iter().collect();
        let day = std::time::Duration::from_hours(24);
        match node.rpc_term(target, module, function, arguments, day).await {
            Ok(value) => {
                if let Some(fact) = fact(&value) {
                    // The node that asks is of no interest.
                    facts.insert(name, without(fact, node.name()));
                }
            }
            Err(error @ (RpcError::Connect(_) | RpcError::NoConnection)) => {
                return Err(Failure::from(error));
            }
            // It has no such function: a node in Rust, or without Elixir.
            Err(_) => {}
        }
    }
    Ok(())
}

/// Numbers, text as lists or binaries, lists of atoms; of a pair of numbers the first.
fn fact(value: &Term) -> Option<Fact> {
    Some(match value {
        Term::Integer(number) => Fact::Number(*number),
        Term::Atom(atom) => Fact::Text(atom.to_string()),
        Term::Binary(bytes) => Fact::Text(String::from_utf8_lossy(bytes.as_slice()).into_owned()),
        Term::Tuple(parts) => return parts.first().and_then(fact),
        Term::List(items) => {
            let text = |item: &Term| match item {
                Term::Integer(c) => u32::try_from(*c).ok().and_then(char::from_u32),
                _ => None,
            };
            let name = |item: &Term| item.as_atom().map(|atom| atom.as_str().to_owned());
            match items.iter().map(text).collect::<Option<String>>() {
                Some(text) if !text.is_empty() => Fact::Text(text),
                _ => Fact::List(items.iter().filter_map(name).collect()),
            }
        }
        _ => return None,
    })
}

fn without(fact: Fact, own: &str) -> Fact {
    match fact {
        Fact::List(names) => Fact::List(names.into_iter().filter(|name| name != own).collect()),
        other => other,
    }
}

fn shown(name: &str, fact: &Fact) -> String {
    match fact {
        Fact::Text(text) => text.clone(),
        Fact::Number(number) if name.ends_with("_milliseconds") => uptime(number / 1000),
        Fact::Number(number) if name.ends_with("_bytes") => format!("{} kB", number / 1000),
        Fact::Number(number) => number.to_string(),
        Fact::List(names) if names.is_empty() => "none".to_owned(),
        Fact::List(names) => names.join(" "),
    }
}

fn uptime(seconds: i64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshx_node::etf::text::parse;

    #[test]
    fn facts_are_read_from_what_vms_answer() {
        for (term, expected) in [
            ("\"25\"", Fact::Text("25".to_owned())),
            ("<<\"1.14.0\">>", Fact::Text("1.14.0".to_owned())),
            ("[]", Fact::List(Vec::new())),
            ("['a@h', b@h]", Fact::List(vec!["a@h".to_owned(), "b@h".to_owned()])),
            ("{5000,12}", Fact::Number(5000)),
        ] {
            assert_eq!(fact(&parse(term).unwrap()), Some(expected), "{term}");
        }
        assert_eq!(fact(&parse("#{}").unwrap()), None);
    }

    #[test]
    fn times_are_for_people() {
        assert_eq!(uptime(59), "59 s");
        assert_eq!(uptime(61), "1 min 1 s");
        assert_eq!(uptime(3 * 86_400 + 7200), "3 d 2 h");
    }
}
