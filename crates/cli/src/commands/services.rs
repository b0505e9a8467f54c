//! `meshx services`.

use meshx_consul::Client;
use meshx_consul_api::{CheckStatus, HealthServiceEntry};
use meshx_workload::admin::META_PROTOCOL;
use serde::Serialize;

use crate::args::{Services, ServicesAction};
use crate::commands::client;
use crate::failure::{Failure, exit};
use crate::output::{Output, table};

/// The suffix of the services that are only somebody's sidecar.
pub(crate) const SIDECAR: &str = "-sidecar-proxy";

#[derive(Debug, Serialize)]
pub(crate) struct ServiceRow {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) instances: Vec<InstanceRow>,
}

#[derive(Debug, Serialize)]
pub(crate) struct InstanceRow {
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) status: String,
    pub(crate) output: String,
    pub(crate) sidecar: Option<String>,
    pub(crate) tags: Vec<String>,
}

pub(crate) async fn run(arguments: Services, output: Output) -> Result<u8, Failure> {
    match arguments.action {
        None => list(&client(&arguments.control_plane)?, output).await,
        Some(ServicesAction::List(control_plane)) => list(&client(&control_plane)?, output).await,
        Some(ServicesAction::Show(show)) => {
            self::show(&client(&show.control_plane)?, show.name.as_str(), output).await
        }
    }
}

/// Every service of the mesh that is not only a sidecar.
pub(crate) async fn all(client: &Client) -> Result<Vec<ServiceRow>, Failure> {
    let mut rows = Vec::new();
    for name in client.catalog_services().await?.into_keys() {
        if !name.ends_with(SIDECAR) && name != "consul" {
            rows.push(one(client, &name).await?);
        }
    }
    Ok(rows)
}

/// One service with its instances.
pub(crate) async fn one(client: &Client, name: &str) -> Result<ServiceRow, Failure> {
    let entries = client.health_service(name).await?;
    let sidecars = client.health_connect(name).await?;
    // A service is as good as its best instance.
    let best = entries.iter().map(HealthServiceEntry::status).min();
    let status = best.map_or("none", CheckStatus::as_str).to_owned();
    let kind = match entries.first().and_then(|e| e.service.meta.as_ref()?.get(META_PROTOCOL)) {
        Some(protocol) if protocol == "erlang" => "node",
        _ => "tcp",
    };
    let instances = entries.iter().map(|entry| instance(entry, &sidecars)).collect();
    Ok(ServiceRow { name: name.to_owned(), kind: kind.to_owned(), status, instances })
}

fn instance(entry: &HealthServiceEntry, sidecars: &[HealthServiceEntry]) -> InstanceRow {
    let sidecar = sidecars.iter().find(|sidecar| {
        sidecar.service.proxy.destination_service_id == entry.service.id
            && sidecar.node.node == entry.node.node
    });
    let worst = entry.checks.iter().max_by_key(|check| check.status);
    InstanceRow {
        id: entry.service.id.clone(),
        host: entry.node.node.clone(),
        status: entry.status().as_str().to_owned(),
        output: worst.map(|check| check.output.clone()).unwrap_or_default(),
        sidecar: sidecar.map(|sidecar| format!("{}:{}", sidecar.host(), sidecar.service.port)),
        tags: entry.service.tags.clone(),
    }
}

async fn list(client: &Client, output: Output) -> Result<u8, Failure> {
    let services = all(client).await?;
    let document = serde_json::json!({ "schema": "meshx.services/1", "services": services });
    output.data(&document, |_| {
        if services.is_empty() {
            return "no services yet: meshx exec --name node1@myhost -- iex".to_owned();
        }
        let heading = ["SERVICE", "KIND", "STATUS", "INSTANCES", "SIDECAR"].map(str::to_owned);
        let mut rows = vec![heading.to_vec()];
        for service in &services {
            let sidecars: Vec<&str> =
                service.instances.iter().filter_map(|i| i.sidecar.as_deref()).collect();
            let sidecars = if sidecars.is_empty() { "-".to_owned() } else { sidecars.join(" ") };
            rows.push(vec![
                service.name.clone(),
                service.kind.clone(),
                service.status.clone(),
                service.instances.len().to_string(),
                sidecars,
            ]);
        }
        table(&rows)
    });
    Ok(exit::SUCCESS)
}

async fn show(client: &Client, name: &str, output: Output) -> Result<u8, Failure> {
    let service = one(client, name).await?;
    if service.instances.is_empty() {
        return Err(Failure::new(
            201,
            exit::NOT_FOUND,
            format!("no service `{name}` is registered"),
        )
        .hint("`meshx services list` shows those that are"));
    }
    let document = serde_json::json!({ "schema": "meshx.service/1", "service": service });
    output.data(&document, |_| {
        let heading = ["INSTANCE", "HOST", "STATUS", "SIDECAR", "CHECK"].map(str::to_owned);
        let mut rows = vec![heading.to_vec()];
        for instance in &service.instances {
            rows.push(vec![
                instance.id.clone(),
                instance.host.clone(),
                instance.status.clone(),
                instance.sidecar.clone().unwrap_or_else(|| "-".to_owned()),
                instance.output.lines().next().unwrap_or_default().to_owned(),
            ]);
        }
        format!("{} ({}, {})\n\n{}", service.name, service.kind, service.status, table(&rows))
    });
    Ok(exit::SUCCESS)
}
