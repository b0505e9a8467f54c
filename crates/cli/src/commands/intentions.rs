//! `meshx intentions`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meshx_consul::{Client, policy_now};
use meshx_core::{Action, Intention, IntentionName, IntentionSet, ServiceName};
use meshx_proxy::ConnectionFacts;

use crate::args::{Intentions, IntentionsAction, Pair, Pair2};
use crate::commands::client;
use crate::failure::{Failure, exit};
use crate::output::{Output, table};
use crate::sidecars::Sidecars;

/// How long we watch connections being cut before we say that some were not.
const CUT_LIMIT: Duration = Duration::from_secs(3);

pub(crate) async fn run(arguments: Intentions, output: Output) -> Result<u8, Failure> {
    match arguments.action {
        None => list(&client(&arguments.control_plane)?, output).await,
        Some(IntentionsAction::List(control_plane)) => list(&client(&control_plane)?, output).await,
        Some(IntentionsAction::Allow(pair)) => put(pair, Action::Allow, output).await,
        Some(IntentionsAction::Deny(pair)) => put(pair, Action::Deny, output).await,
        Some(IntentionsAction::Remove(pair)) => remove(pair, output).await,
        Some(IntentionsAction::Check(pair)) => check(pair, output).await,
    }
}

async fn list(client: &Client, output: Output) -> Result<u8, Failure> {
    let policy = policy_now(client).await?;
    let sidecars = Sidecars::ask(client).await?;
    let live = |rule: &Intention| {
        sidecars
            .links()
            .filter(|c| policy.judge(&c.source, &c.destination).rule.as_ref() == Some(rule))
            .count()
    };
    let rules: Vec<serde_json::Value> = policy
        .intentions()
        .iter()
        .map(|rule| {
            serde_json::json!({
                "precedence": rule.precedence(),
                "source": rule.source,
                "destination": rule.destination,
                "action": rule.action,
                "live": live(rule),
            })
        })
        .collect();
    let default = policy.default_action();
    let document = serde_json::json!({
        "schema": "meshx.intentions/1", "intentions": rules, "default": default,
    });
    output.data(&document, |_| {
        let heading = ["PRECEDENCE", "SOURCE", "ACTION", "DESTINATION", "LIVE"].map(str::to_owned);
        let mut rows = vec![heading.to_vec()];
        for rule in policy.intentions() {
            rows.push(vec![
                rule.precedence().to_string(),
                rule.source.to_string(),
                rule.action.to_string(),
                rule.destination.to_string(),
                live(rule).to_string(),
            ]);
        }
        let by_default = sidecars
            .links()
            .filter(|c| policy.judge(&c.source, &c.destination).rule.is_none())
            .count();
        rows.push(vec![
            "default".to_owned(),
            "*".to_owned(),
            default.to_string(),
            "*".to_owned(),
            by_default.to_string(),
        ]);
        table(&rows)
    });
    Ok(exit::SUCCESS)
}

/// The rules that one command sets. A distribution link carries both ways over whichever connection
/// came first, so between two nodes a rule counts for both directions.
fn rules(pair: &Pair, action: Action) -> Vec<Intention> {
    let is_node = |name: &IntentionName| match name {
        IntentionName::Exact(service) => service.as_node().is_some(),
        IntentionName::Any => false,
    };
    let (source, destination) = (pair.source.clone(), pair.destination.clone());
    let both = !pair.one_way && is_node(&source) && is_node(&destination) && source != destination;
    let mut rules = vec![Intention::new(source.clone(), destination.clone(), action)];
    if both {
        rules.push(Intention::new(destination, source, action));
    }
    rules
}

async fn put(pair: Pair, action: Action, output: Output) -> Result<u8, Failure> {
    let client = client(&pair.control_plane)?;
    let rules = rules(&pair, action);
    let before = Sidecars::ask(&client).await?;
    let known = client.catalog_services().await?;
    for name in [&pair.source, &pair.destination] {
        if let IntentionName::Exact(service) = name
            && !known.contains_key(service.as_str())
        {
            let like = known.keys().find(|other| {
                other.strip_prefix(service.as_str()).is_some_and(|rest| rest.starts_with('@'))
            });
            let like = like.map(|other| format!(" (did you mean {other}?)")).unwrap_or_default();
            output.say(&format!("note: no service `{service}` is registered now{like}"));
        }
    }
    if action == Action::Deny
        && let (IntentionName::Exact(a), IntentionName::Exact(b)) =
            (&pair.source, &pair.destination)
        && let Some(third) = common_peer(&before, a, b)
    {
        output.say(&format!(
            "warning: {a} and {b} are both connected to {third}; from OTP 25 on, `global` may then \
             disconnect further nodes to keep the cluster a full mesh (start the nodes with \
             `-kernel prevent_overlapping_partitions false`, or one of them hidden)"
        ));
    }
    let begun = Instant::now();
    for rule in &rules {
        client.put_intention(&rule.source, &rule.destination, action).await?;
    }
    let policy = policy_now(&client).await?;
    let cut = watch_cuts(&before, &policy, begun).await;
    let document = serde_json::json!({
        "schema": "meshx.intentions.put/1",
        "intentions": rules,
        "closed": cut.closed,
        "milliseconds": cut.milliseconds,
        "still_open": cut.open,
        "silent": before.silent,
    });
    output.data(&document, |_| {
        let mut text = String::new();
        for (number, rule) in rules.iter().enumerate() {
            text.push_str(&format!("{:<5}  {} → {}", rule.action, rule.source, rule.destination));
            if number == 1 {
                text.push_str("   (both ways, because both are Erlang nodes; --one-way for one)");
            }
            text.push('\n');
        }
        if action == Action::Deny {
            text.push_str(&cut.sentence());
        }
        text
    });
    if action == Action::Deny && !before.silent.is_empty() {
        output.say(&format!(
            "{} could not be asked which connections they closed",
            before.silent.join(", ")
        ));
    }
    if cut.open > 0 {
        return Err(Failure::new(
            704,
            exit::NEGATIVE,
            format!("{} connections are denied now but still open after {CUT_LIMIT:?}", cut.open),
        )
        .hint("`meshx status` shows whether their sidecars reach the control plane"));
    }
    Ok(exit::SUCCESS)
}

/// A node that both are connected to, whoever dialled.
fn common_peer(sidecars: &Sidecars, a: &ServiceName, b: &ServiceName) -> Option<ServiceName> {
    a.as_node().and(b.as_node())?;
    let peers = |of: &ServiceName| -> BTreeSet<ServiceName> {
        sidecars
            .links()
            .filter_map(|c| match (&c.source, &c.destination) {
                (source, other) | (other, source) if source == of => Some(other.clone()),
                _ => None,
            })
            .collect()
    };
    let of_b = peers(b);
    peers(a).into_iter().find(|peer| of_b.contains(peer))
}

/// What came of the connections that became denied.
struct Cut {
    closed: usize,
    open: usize,
    milliseconds: u64,
}

impl Cut {
    fn sentence(&self) -> String {
        let plural = if self.closed == 1 { "" } else { "s" };
        match self.closed {
            0 => "no live connection had to be closed\n".to_owned(),
            n => format!("closed {n} live connection{plural} in {} ms\n", self.milliseconds),
        }
    }
}

/// Asks the sidecars until the connections that are denied now are gone.
async fn watch_cuts(before: &Sidecars, policy: &IntentionSet, begun: Instant) -> Cut {
    let denied = |c: &ConnectionFacts| !policy.judge(&c.source, &c.destination).is_allowed();
    let doomed: BTreeSet<(String, u64)> = before
        .reports
        .iter()
        .flat_map(|report| report.connections.iter().map(move |c| (report, c)))
        .filter(|(_, c)| denied(c) && before.counts(c.direction, &c.destination))
        .map(|(report, c)| (report.id.clone(), c.id))
        .collect();
    let total = doomed.len();
    let mut open = total;
    while open > 0 {
        let reports = before.ask_again().await;
        let alive = reports.iter().flat_map(|r| r.connections.iter().map(move |c| (&r.id, c.id)));
        open = alive.filter(|(id, number)| doomed.contains(&((*id).clone(), *number))).count();
        if open == 0 || begun.elapsed() > CUT_LIMIT {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Cut { closed: total - open, open, milliseconds }
}

async fn remove(pair: Pair, output: Output) -> Result<u8, Failure> {
    let client = client(&pair.control_plane)?;
    let mut removed = Vec::new();
    // The pair that was named first; the way back goes with it, or not at all.
    for rule in rules(&pair, Action::Allow) {
        if client.delete_intention(&rule.source, &rule.destination).await? {
            removed.push(serde_json::json!({
                "source": rule.source, "destination": rule.destination,
            }));
        } else if removed.is_empty() {
            break;
        }
    }
    if removed.is_empty() {
        let (source, destination) = (&pair.source, &pair.destination);
        return Err(Failure::new(
            708,
            exit::NOT_FOUND,
            format!("there is no intention {source} → {destination}"),
        )
        .hint("`meshx intentions list` shows those that are"));
    }
    let document = serde_json::json!({ "schema": "meshx.intentions.remove/1", "removed": removed });
    output.data(&document, |_| {
        let line = |rule: &serde_json::Value| {
            let side = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            format!("removed  {} → {}", side("source"), side("destination"))
        };
        let lines: Vec<String> = removed.iter().map(line).collect();
        let both = "   (both ways, because both are Erlang nodes; --one-way for one)";
        lines.join("\n") + if lines.len() > 1 { both } else { "" }
    });
    Ok(exit::SUCCESS)
}

async fn check(pair: Pair2, output: Output) -> Result<u8, Failure> {
    let client = client(&pair.control_plane)?;
    let verdict = policy_now(&client).await?.judge(&pair.source, &pair.destination);
    let document = serde_json::json!({
        "schema": "meshx.intentions.check/1",
        "allowed": verdict.is_allowed(),
        "rule": verdict.rule,
    });
    output.data(&document, |_| verdict.to_string());
    Ok(if verdict.is_allowed() { exit::SUCCESS } else { exit::NEGATIVE })
}
