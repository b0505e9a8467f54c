//! `meshx status`.

use crate::args::Status;
use crate::commands::{client, services};
use crate::failure::{Failure, exit};
use crate::output::{Output, table};
use crate::sidecars::Sidecars;

pub(crate) async fn run(arguments: &Status, output: Output) -> Result<u8, Failure> {
    let client = client(&arguments.control_plane)?;
    let about = client.agent_self().await?;
    let (services, sidecars) = (services::all(&client).await?, Sidecars::ask(&client).await?);
    let policy = meshx_consul::policy_now(&client).await?;
    let connections = sidecars.links().count();
    let config = about.config.as_ref();
    let version = config.map(|config| config.version.clone()).unwrap_or_default();
    let datacenter = config.map(|config| config.datacenter.clone()).unwrap_or_default();
    let next_expiry = sidecars.reports.iter().map(|r| r.certificate_seconds_left).min();
    let document = serde_json::json!({
        "schema": "meshx.status/1",
        "control_plane": {
            "address": client.address().to_string(),
            "version": version,
            "datacenter": datacenter,
        },
        "services": services,
        "sidecars": sidecars.reports,
        "silent": sidecars.silent,
        "default_intention": policy.default_action(),
        "intentions": policy.intentions().len(),
        "next_certificate_expiry_seconds": next_expiry,
    });
    output.data(&document, |_| {
        let passing = services.iter().filter(|service| service.status == "passing").count();
        let nodes = services.iter().filter(|service| service.kind == "node").count();
        let expiry = next_expiry
            .map_or_else(|| "none here".to_owned(), |s| format!("next expiry in {} h", s / 3600));
        let mut text = format!(
            "control plane  {}   Consul API {version}   {datacenter}\n\
             services       {} ({passing} passing, {nodes} Erlang nodes)   connections {connections} (all mTLS)\n\
             intentions     default {}, {} rules   certificates {expiry} (they renew themselves)\n\n",
            client.address(),
            services.len(),
            policy.default_action(),
            policy.intentions().len(),
        );
        let heading =
            ["SERVICE", "KIND", "STATUS", "SIDECAR", "CONNS", "RX", "TX", "REFUSED"].map(str::to_owned);
        let mut rows = vec![heading.to_vec()];
        for service in &services {
            rows.push(row(service, sidecars.of(&service.name)));
        }
        text.push_str(&table(&rows));
        for service in services.iter().filter(|service| service.status == "critical") {
            let reason = service.instances.first().map(|i| i.output.clone()).unwrap_or_default();
            text.push_str(&format!("\n‼ {} is critical: {reason}", service.name));
        }
        for silent in &sidecars.silent {
            text.push_str(&format!("\n‼ the sidecar of {silent} does not answer: it is another \
                user's or another machine's, or its process was killed"));
        }
        text
    });
    Ok(exit::SUCCESS)
}

fn row(
    service: &services::ServiceRow,
    report: Option<&meshx_workload::admin::SidecarReport>,
) -> Vec<String> {
    use meshx_proxy::Direction;
    let sidecar = service.instances.iter().find_map(|i| i.sidecar.clone());
    let mut cells = vec![
        service.name.clone(),
        service.kind.clone(),
        service.status.clone(),
        sidecar.unwrap_or_else(|| "-".to_owned()),
    ];
    match report {
        None => cells.extend(["?".to_owned(), "?".to_owned(), "?".to_owned(), "?".to_owned()]),
        Some(report) => {
            let (mut received, mut sent) = (0, 0);
            for connection in &report.connections {
                // `sent` is from the dialling side; for a dialled service that is what it receives.
                let inbound = connection.direction == Direction::Inbound;
                received += if inbound { connection.sent } else { connection.received };
                sent += if inbound { connection.received } else { connection.sent };
            }
            let refused: u64 = report.refused.values().sum();
            cells.extend([
                report.connections.len().to_string(),
                bytes(received),
                bytes(sent),
                refused.to_string(),
            ]);
        }
    }
    cells
}

/// `1.2 kB`, `34 MB`.
fn bytes(count: u64) -> String {
    let mut unit = 0;
    let (mut whole, mut rest) = (count, 0);
    while whole >= 1000 && unit < 4 {
        rest = whole % 1000 / 100;
        whole /= 1000;
        unit += 1;
    }
    let names = ["B", "kB", "MB", "GB", "TB"];
    if unit == 0 || whole >= 10 {
        format!("{whole} {}", names[unit])
    } else {
        format!("{whole}.{rest} {}", names[unit])
    }
}
