//! What a sidecar needs to know, kept up to date.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use meshx_consul_api as api;
use meshx_core::{Action, Endpoint, IntentionSet, ServiceId, ServiceName};
use meshx_identity::{Identity, Material};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::{health_connect_path, segment};
use crate::{Answer, Client, ConsulError, Follow};

/// Fetches the certificate of `service`, and keeps it rotated until `stop`.
///
/// All listed roots are trusted, the whole chain is sent. While the control plane is away the
/// certificate in force stays in force until it expires.
pub async fn follow_identity(
    client: &Client,
    service: &ServiceName,
    stop: &CancellationToken,
) -> Result<Identity, ConsulError> {
    let mut roots = Follow::new(client.clone(), "/v1/agent/connect/ca/roots");
    let leaf_path = format!("/v1/agent/connect/ca/leaf/{}", segment(service.as_str()));
    let mut leaves = Follow::new(client.clone(), leaf_path);
    let mut known: api::CaRoots = roots.next().await?.value;
    let mut leaf: api::Leaf = leaves.next().await?.value;
    let unusable = |source| ConsulError::Identity { address: client.address().to_string(), source };
    let material = material(&known, &leaf).map_err(unusable)?;
    let identity = Identity::new(material).map_err(unusable)?;
    let (service, rotating, stop) = (service.clone(), identity.clone(), stop.clone());
    tokio::spawn(async move {
        loop {
            let failed = tokio::select! {
                () = stop.cancelled() => return,
                next = roots.next() => next.map(|answer| known = answer.value).err(),
                next = leaves.next() => next.map(|answer| leaf = answer.value).err(),
            };
            if let Some(error) = failed {
                let left = rotating.with_material(Material::valid_before);
                let left = left.duration_since(SystemTime::now()).unwrap_or_default();
                tracing::debug!(%service, %error, left_seconds = left.as_secs(), "certificate kept");
                continue;
            }
            match self::material(&known, &leaf).and_then(|material| rotating.rotate(material)) {
                Ok(()) => {
                    tracing::debug!(%service, serial = leaf.serial_number, "certificate rotated");
                }
                Err(error) => tracing::warn!(%service, %error, "a new certificate was not usable"),
            }
        }
    });
    Ok(identity)
}

/// Fetches the intentions, and keeps them up to date until `stop`.
///
/// The whole list is watched, because `match` does not block in Consul 1.8; verdicts are made
/// locally, so a control plane that is away cuts nobody and admits nobody new.
pub async fn follow_intentions(
    client: &Client,
    stop: &CancellationToken,
) -> Result<watch::Receiver<Arc<IntentionSet>>, ConsulError> {
    let mut follow: Follow<Vec<api::Intention>> =
        Follow::new(client.clone(), "/v1/connect/intentions");
    let first = follow.next().await?;
    let mut default = default_action(client, &first).await?;
    let (sender, receiver) = watch::channel(Arc::new(policy(&first.value, default)));
    let (client, stop) = (client.clone(), stop.clone());
    tokio::spawn(async move {
        let mut stale = false;
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                () = sender.closed() => return,
                next = follow.next() => next,
            };
            match next {
                Ok(answer) => {
                    if stale || answer.default_policy.is_some() {
                        // Another agent may have come back than the one that went.
                        match default_action(&client, &answer).await {
                            Ok(action) => (default, stale) = (action, false),
                            Err(error) => {
                                tracing::debug!(%error, "the default policy is not known yet");
                                follow.ask_again();
                            }
                        }
                    }
                    let new = Arc::new(policy(&answer.value, default));
                    sender.send_if_modified(|old| {
                        let changed = **old != *new;
                        *old = new;
                        changed
                    });
                }
                Err(error) => {
                    stale = true;
                    tracing::debug!(%error, "intentions kept as they were");
                }
            }
        }
    });
    Ok(receiver)
}

/// The intentions as they are now.
pub async fn policy_now(client: &Client) -> Result<IntentionSet, ConsulError> {
    let answer = client.intentions().await?;
    let default = default_action(client, &answer).await?;
    Ok(policy(&answer.value, default))
}

/// Fetches the instances of `service`, and keeps them up to date until `stop`. `make` turns the
/// passing instances, and whether any is registered at all, into the caller's view.
pub async fn follow_endpoints<V: PartialEq + Send + Sync + 'static>(
    client: &Client,
    service: &ServiceName,
    stop: &CancellationToken,
    make: fn(Vec<Endpoint>, bool) -> V,
) -> Result<watch::Receiver<V>, ConsulError> {
    let mut follow: Follow<Vec<api::HealthServiceEntry>> =
        Follow::new(client.clone(), health_connect_path(service.as_str()));
    let first = follow.next().await?.value;
    let (sender, receiver) = watch::channel(make(endpoints(&first).await, !first.is_empty()));
    let (service, stop) = (service.clone(), stop.clone());
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                () = sender.closed() => return,
                next = follow.next() => next,
            };
            match next {
                Ok(answer) => {
                    let view = make(endpoints(&answer.value).await, !answer.value.is_empty());
                    sender.send_if_modified(|old| {
                        let changed = *old != view;
                        *old = view;
                        changed
                    });
                }
                Err(error) => tracing::debug!(%service, %error, "endpoints kept as they were"),
            }
        }
    });
    Ok(receiver)
}

fn material(
    roots: &api::CaRoots,
    leaf: &api::Leaf,
) -> Result<Material, meshx_identity::IdentityError> {
    let roots = roots.roots.iter().map(|root| root.root_cert.as_str());
    Material::from_pem(&leaf.cert_pem, leaf.private_key_pem.expose(), roots)
}

fn policy(list: &[api::Intention], default: Action) -> IntentionSet {
    let rules = list
        .iter()
        .filter_map(|intention| match intention.rule() {
            Ok(rule) => Some(rule),
            Err(error) => {
                // Its names cannot be the names of any service in this mesh.
                tracing::debug!(%error, "an intention was passed over");
                None
            }
        })
        .collect();
    IntentionSet::new(rules, default)
}

/// What holds where no intention matches: the header of Consul 1.9 and later, or the agent's ACL
/// settings before that. An agent that says neither is taken to deny.
async fn default_action<T>(client: &Client, answer: &Answer<T>) -> Result<Action, ConsulError> {
    if let Some(action) = answer.default_policy {
        return Ok(action);
    }
    let debug = client.agent_self().await?.debug_config;
    Ok(debug.and_then(|config| config.default_action()).unwrap_or(Action::Deny))
}

/// The instances that may be dialled: passing or warning.
async fn endpoints(entries: &[api::HealthServiceEntry]) -> Vec<Endpoint> {
    let mut endpoints = Vec::with_capacity(entries.len());
    let mut resolved: HashMap<&str, Option<IpAddr>> = HashMap::new();
    for entry in entries.iter().filter(|e| e.status() != api::CheckStatus::Critical) {
        let host = entry.host();
        let ip = match host.parse() {
            Ok(ip) => Some(ip),
            Err(_) => match resolved.get(host) {
                Some(known) => *known,
                None => {
                    let found = resolve(host).await;
                    resolved.insert(host, found);
                    found
                }
            },
        };
        let id = entry.service.id.parse::<ServiceId>();
        if let (Some(ip), Ok(id)) = (ip, id) {
            let address = SocketAddr::new(ip, entry.service.port);
            let datacenter = entry.node.datacenter.clone();
            endpoints.push(Endpoint { address, id, datacenter });
        } else {
            tracing::debug!(host, id = entry.service.id, "an instance was passed over");
        }
    }
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints
}

async fn resolve(host: &str) -> Option<IpAddr> {
    let found = tokio::net::lookup_host((host, 0)).await;
    found.ok().and_then(|mut addresses| addresses.next()).map(|address| address.ip())
}
