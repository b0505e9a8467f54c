//! The control plane, the certificates, the services.

use std::time::{Duration, Instant};

use meshx_consul::Client;
use meshx_core::Diagnostic as _;

use super::{Finding, Outcome, bad, good};
use crate::commands::services;
use crate::failure::Failure;
use crate::sidecars::Sidecars;

/// A leaf that lives shorter than this should have been renewed.
const LEAF_WARNING: u64 = 6 * 3600;

/// Whether the control plane is there and does what a mesh needs. `false`: nothing more can be asked.
pub(super) async fn control_plane(client: &Client) -> (Vec<Finding>, bool) {
    let address = client.address().to_string();
    let begun = Instant::now();
    let about = match client.agent_self().await {
        Ok(about) => about,
        Err(error) => {
            let hint = error.hint().unwrap_or_default();
            let what = format!("{address} answers");
            return (vec![bad(101, Outcome::Error, what, error.to_string(), hint)], false);
        }
    };
    let milliseconds = begun.elapsed().as_secs_f64() * 1000.0;
    let version = about.config.map(|config| config.version).unwrap_or_default();
    let mut findings =
        vec![good(101, format!("{address} answers (Consul API {version}, {milliseconds:.1} ms)"))];
    findings.push(match client.ca_roots().await {
        Ok(roots) if !roots.roots.is_empty() => {
            good(105, format!("Connect is enabled, trust domain {}", roots.trust_domain))
        }
        Ok(_) => bad(105, Outcome::Error, "Connect has a root certificate", "there is none", ""),
        Err(error) => bad(
            105,
            Outcome::Error,
            "Connect is enabled",
            error.to_string(),
            "set `connect { enabled = true }` in Consul's configuration",
        ),
    });
    findings.push(match client.intentions().await {
        Ok(_) => good(106, "the token may read intentions"),
        Err(error) => {
            let hint = error.hint().unwrap_or_default();
            bad(106, Outcome::Error, "the token may read intentions", error.to_string(), hint)
        }
    });
    findings.push(blocking(client).await);
    (findings, true)
}

/// A proxy in between that cuts or ignores blocking queries makes every change late.
async fn blocking(client: &Client) -> Finding {
    let what = "blocking queries are held";
    let asked = async {
        let first = client.get::<serde_json::Value>("/v1/agent/connect/ca/roots").await?;
        let index = first.index.unwrap_or(0);
        let begun = Instant::now();
        let path = format!("/v1/agent/connect/ca/roots?index={index}&wait=500ms");
        client.get::<serde_json::Value>(&path).await?;
        Ok::<_, meshx_consul::ConsulError>(begun.elapsed())
    };
    match asked.await {
        Ok(held) if held >= Duration::from_millis(450) => good(107, what),
        Ok(held) => bad(
            107,
            Outcome::Warning,
            what,
            format!("an answer came after {} ms instead of 500", held.as_millis()),
            "is there a proxy between here and the control plane?",
        ),
        Err(error) => bad(107, Outcome::Error, what, error.to_string(), ""),
    }
}

/// The certificates of the sidecars that can be asked.
pub(super) async fn identity(client: &Client, sidecars: &Sidecars) -> Vec<Finding> {
    let domain = client.ca_roots().await.map(|roots| roots.trust_domain).unwrap_or_default();
    let mut findings = Vec::new();
    for report in &sidecars.reports {
        let (service, left) = (&report.service, report.certificate_seconds_left);
        let what = format!("the certificate of {service} is valid for {} h", left / 3600);
        findings.push(if left == 0 {
            let error = "it has expired: new connections fail, those that live go on";
            bad(503, Outcome::Error, what, error, "can its sidecar reach the control plane?")
        } else if left < LEAF_WARNING {
            bad(503, Outcome::Warning, what, "it should have been renewed by now", "")
        } else {
            good(503, what)
        });
        if !domain.is_empty() && !report.spiffe_id.starts_with(&format!("spiffe://{domain}/")) {
            findings.push(bad(
                504,
                Outcome::Error,
                format!("{service} belongs to trust domain {domain}"),
                format!("its certificate is for {}", report.spiffe_id),
                "restart it",
            ));
        }
    }
    findings
}

/// The services, and the sidecars that do not answer.
pub(super) async fn services(
    client: &Client,
    sidecars: &Sidecars,
) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for service in services::all(client).await? {
        let name = &service.name;
        for instance in &service.instances {
            let id = &instance.id;
            findings.push(if instance.status == "critical" {
                let hint = format!("meshx services show {name}");
                bad(301, Outcome::Error, format!("{id} is passing"), instance.output.clone(), hint)
            } else {
                good(301, format!("{id} is {}", instance.status))
            });
        }
    }
    for silent in &sidecars.silent {
        findings.push(bad(
            305,
            Outcome::Warning,
            format!("the sidecar of {silent} answers"),
            "it does not: it is another user's or machine's, or its process was killed",
            "a killed one's registration expires by itself; starting it again replaces it",
        ));
    }
    if findings.is_empty() {
        findings.push(good(301, "no service is registered yet"));
    }
    Ok(findings)
}
