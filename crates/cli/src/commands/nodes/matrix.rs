//! `meshx nodes matrix`: the partition view, as every node reports it.

use std::collections::{BTreeMap, BTreeSet};

use meshx_core::NodeName;
use meshx_node::RpcError;
use meshx_node::etf::Term;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::args::Matrix;
use crate::commands::client;
use crate::commands::node::Asking;
use crate::failure::{Failure, exit};
use crate::output::{Output, table};

/// So many nodes are asked at most: more make no picture.
const MOST: usize = 64;

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    /// What each node sees; `null` where it does not answer.
    sees: BTreeMap<String, Option<BTreeSet<String>>>,
    /// Pairs of which one sees the other, and not the other way round, or that do not see each other
    /// while somebody sees both.
    partial: Vec<(String, String)>,
    /// Nodes that were not asked any more.
    more: bool,
}

pub(super) async fn run(arguments: Matrix, output: Output) -> Result<u8, Failure> {
    let mut wanted: BTreeSet<String> = arguments.nodes.iter().map(ToString::to_string).collect();
    if wanted.is_empty() {
        if !arguments.ask.way.mesh {
            return Err(Failure::new(401, exit::USAGE, "name a node, to begin with")
                .hint("EPMD knows no host names; with --mesh all nodes of the mesh are asked"));
        }
        let client = client(&arguments.ask.way.control_plane)?;
        let all = super::in_mesh(&client).await?;
        wanted = all.into_iter().map(|row| row.name).collect();
    }
    let first = wanted.iter().find_map(|name| name.parse::<NodeName>().ok());
    let Some(first) = first else {
        return Err(Failure::new(201, exit::NOT_FOUND, "there is no node to ask"));
    };
    let asking = Asking::start(&arguments.ask, &first, output).await?;
    let (node, limit) = (asking.node.clone(), asking.limit);
    let asked = async {
        let mut sees: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
        let mut asking = JoinSet::new();
        let mut more = false;
        let mut failures: BTreeMap<String, RpcError> = BTreeMap::new();
        loop {
            for name in std::mem::take(&mut wanted) {
                if sees.contains_key(&name) || name == node.name().as_str() {
                    continue;
                }
                if sees.len() >= MOST {
                    more = true;
                    break;
                }
                sees.insert(name.clone(), None);
                let node = node.clone();
                asking.spawn(async move {
                    let nodes = node.rpc_term(&name, "erlang", "nodes", Vec::new(), limit).await;
                    (name, nodes)
                });
            }
            let Some(answer) = asking.join_next().await else { break };
            match answer {
                Ok((name, Ok(nodes))) => {
                    let seen = names(&nodes);
                    wanted.extend(seen.iter().cloned());
                    sees.insert(name, Some(seen));
                }
                Ok((name, Err(error))) => {
                    failures.insert(name, error);
                }
                Err(_) => {}
            }
        }
        if failures.len() == sees.len()
            && let Some((_, error)) = failures.pop_first()
        {
            return Err(Failure::from(error));
        }
        for (name, error) in failures {
            output.say(&format!("meshx: {name} does not answer: {error}"));
        }
        Ok((sees, more))
    };
    let (sees, more) = asking.finish(asked).await?;
    let partial = partial(&sees);
    let report = Report { schema: "meshx.nodes.matrix/1", sees, partial, more };
    output.data(&report, picture);
    Ok(if report.partial.is_empty() { exit::SUCCESS } else { exit::NEGATIVE })
}

fn names(nodes: &Term) -> BTreeSet<String> {
    let items = nodes.as_list().unwrap_or_default().iter();
    items.filter_map(|item| item.as_atom().map(|atom| atom.as_str().to_owned())).collect()
}

/// Pairs that answer both, and do not both see each other, though one sees the other or a third sees
/// both.
fn partial(sees: &BTreeMap<String, Option<BTreeSet<String>>>) -> Vec<(String, String)> {
    let answers: Vec<_> =
        sees.iter().filter_map(|(name, seen)| Some((name, seen.as_ref()?))).collect();
    let mut pairs = Vec::new();
    for (at, (a, of_a)) in answers.iter().enumerate() {
        for (b, of_b) in answers.iter().skip(at + 1) {
            let (there, back) = (of_a.contains(*b), of_b.contains(*a));
            let third = answers.iter().any(|(_, seen)| seen.contains(*a) && seen.contains(*b));
            if there != back || !there && third {
                pairs.push(((*a).clone(), (*b).clone()));
            }
        }
    }
    pairs
}

fn picture(report: &Report) -> String {
    let names: Vec<&String> = report.sees.keys().collect();
    let mut heading = vec!["sees →".to_owned()];
    heading.extend(names.iter().map(|name| (*name).clone()));
    let mut rows = vec![heading];
    for (name, seen) in &report.sees {
        let mut row = vec![name.clone()];
        row.extend(names.iter().map(|other| {
            let mark = match seen {
                None => "?",
                Some(_) if *other == name => "·",
                Some(seen) if seen.contains(*other) => "●",
                Some(_) => "○",
            };
            mark.to_owned()
        }));
        rows.push(row);
    }
    let mut text = table(&rows);
    text.push_str("● connected   ○ not connected   ? does not answer\n");
    for (a, b) in &report.partial {
        text.push_str(&format!("\n‼ partial mesh: {a} and {b} do not see each other\n"));
    }
    if report.more {
        text.push_str(&format!("\nThere are more than {MOST} nodes; the rest was not asked.\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_mesh_is_seen() {
        let see = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let mut sees: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
        sees.insert("a".to_owned(), see(&["b", "c"]));
        sees.insert("b".to_owned(), see(&["a", "c"]));
        sees.insert("c".to_owned(), see(&["a", "b"]));
        sees.insert("d".to_owned(), see(&[]));
        sees.insert("e".to_owned(), None);
        assert!(partial(&sees).is_empty(), "strangers are no partition");
        sees.insert("b".to_owned(), see(&["a"]));
        assert_eq!(partial(&sees), [("b".to_owned(), "c".to_owned())]);
        sees.insert("c".to_owned(), see(&["a"]));
        assert_eq!(partial(&sees), [("b".to_owned(), "c".to_owned())], "a sees both");
        let report = Report { schema: "", partial: partial(&sees), sees, more: false };
        let text = picture(&report);
        assert!(text.contains("b and c do not see each other"), "{text}");
        assert!(text.contains('●') && text.contains('○') && text.contains('?'), "{text}");
    }
}
