//! `meshx nodes`: which Erlang nodes there are, and what they say of themselves.

mod matrix;
mod show;

use std::net::{IpAddr, Ipv4Addr};

use meshx_epmd::Client;
use serde::Serialize;

use super::services;
use crate::args::{ListNodes, Nodes, NodesAction};
use crate::commands::client;
use crate::failure::{Failure, exit};
use crate::output::{Output, table};

/// A node as the one who knows it tells.
#[derive(Debug, Serialize)]
struct Row {
    /// Without a host where EPMD knows it: it knows none.
    name: String,
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecar: Option<String>,
}

pub(crate) async fn run(arguments: Nodes, output: Output) -> Result<u8, Failure> {
    match arguments.action {
        None => list(&arguments.list, output).await,
        Some(NodesAction::List(arguments)) => list(&arguments, output).await,
        Some(NodesAction::Show(arguments)) => show::run(arguments, output).await,
        Some(NodesAction::Matrix(arguments)) => matrix::run(arguments, output).await,
    }
}

async fn list(arguments: &ListNodes, output: Output) -> Result<u8, Failure> {
    let rows = if arguments.mesh {
        let client = client(&arguments.control_plane)?;
        in_mesh(&client).await?
    } else {
        at_host(arguments).await?
    };
    let document = serde_json::json!({ "schema": "meshx.nodes/1", "nodes": rows });
    output.data(&document, |_| {
        let cell = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let mut cells = vec![match arguments.mesh {
            true => ["NODE", "STATUS", "SIDECAR"].map(str::to_owned).to_vec(),
            false => ["NODE", "PORT"].map(str::to_owned).to_vec(),
        }];
        cells.extend(rows.iter().map(|row| match row.port {
            Some(port) => vec![row.name.clone(), port.to_string()],
            None => vec![row.name.clone(), cell(&row.status), cell(&row.sidecar)],
        }));
        table(&cells)
    });
    Ok(exit::SUCCESS)
}

/// The nodes in the catalog.
async fn in_mesh(client: &meshx_consul::Client) -> Result<Vec<Row>, Failure> {
    let all = services::all(client).await?;
    let nodes = all.into_iter().filter(|service| service.kind == "node");
    let row = |service: services::ServiceRow| Row {
        sidecar: service.instances.iter().find_map(|instance| instance.sidecar.clone()),
        name: service.name,
        port: None,
        status: Some(service.status),
    };
    Ok(nodes.map(row).collect())
}

/// What the EPMD of a host knows.
async fn at_host(arguments: &ListNodes) -> Result<Vec<Row>, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(211, exit::NEGATIVE, error.to_string())
            .hint("EPMD runs once a node was started; --epmd-port names another port")
    };
    let client = match arguments.epmd_port {
        Some(port) => Client::local_at(port),
        None => Client::local().map_err(|error| failed(&error))?,
    };
    let addresses = match &arguments.host {
        None => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        Some(host) => {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await;
            let found = found.map_err(|error| {
                Failure::new(
                    601,
                    exit::NOT_FOUND,
                    format!("the host {host} has no address: {error}"),
                )
            })?;
            found.map(|address| address.ip()).collect()
        }
    };
    let mut last = None;
    for address in addresses {
        match client.on(address).names().await {
            Ok(reply) => {
                let row =
                    |(name, port)| Row { name, port: Some(port), status: None, sidecar: None };
                let mut rows: Vec<Row> = reply.nodes.into_iter().map(row).collect();
                rows.sort_by(|a, b| a.name.cmp(&b.name));
                return Ok(rows);
            }
            Err(error) => last = Some(failed(&error)),
        }
    }
    Err(last.unwrap_or_else(|| failed(&"the host has no address")))
}
