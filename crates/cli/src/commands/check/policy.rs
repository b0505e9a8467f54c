//! The intentions, held against the services and connections.

use std::collections::BTreeSet;

use meshx_consul::Client;
use meshx_core::{Action, IntentionName};

use super::{Finding, Outcome, bad, good};
use crate::failure::Failure;
use crate::sidecars::Sidecars;

pub(super) async fn checks(client: &Client, sidecars: &Sidecars) -> Result<Vec<Finding>, Failure> {
    let policy = meshx_consul::policy_now(client).await?;
    let known: BTreeSet<String> = client.catalog_services().await?.into_keys().collect();
    let mut findings = Vec::new();
    for rule in policy.intentions() {
        for name in [&rule.source, &rule.destination] {
            if let IntentionName::Exact(service) = name
                && !known.contains(service.as_str())
            {
                findings.push(bad(
                    701,
                    Outcome::Warning,
                    format!("`{rule}` names services that exist"),
                    format!("`{service}` is not registered now"),
                    "is it spelt as in `meshx services list`?",
                ));
            }
        }
        if let (IntentionName::Exact(a), IntentionName::Exact(b)) =
            (&rule.source, &rule.destination)
            && rule.action == Action::Deny
            && a.as_node().is_some()
            && b.as_node().is_some()
            && policy.judge(b, a).is_allowed()
        {
            findings.push(bad(
                703,
                Outcome::Warning,
                format!("`{rule}` holds both ways"),
                format!("{b} may still dial {a}, and a link carries both ways"),
                format!("meshx intentions deny {a} {b}"),
            ));
        }
    }
    let against = sidecars
        .reports
        .iter()
        .flat_map(|report| &report.connections)
        .filter(|c| !policy.judge(&c.source, &c.destination).is_allowed())
        .count();
    findings.push(if against == 0 {
        good(704, "no live connection contradicts an intention")
    } else {
        bad(
            704,
            Outcome::Error,
            "no live connection contradicts an intention",
            format!("{against} do"),
            "do their sidecars reach the control plane? (meshx status)",
        )
    });
    Ok(findings)
}
