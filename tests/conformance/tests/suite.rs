//! Every scenario against both subjects: `agent::…` and `consul::…`.

use meshx_conformance::{Subject, scenarios, skip};

macro_rules! suite {
    ($($module:ident: $($scenario:ident),+;)+) => {
        mod agent {
            use super::*;
            $(mod $module {
                use super::*;
                $(#[tokio::test]
                async fn $scenario() {
                    scenarios::$module::$scenario(&Subject::agent().await).await;
                })+
            })+
        }

        mod consul {
            use super::*;
            $(mod $module {
                use super::*;
                $(#[tokio::test]
                async fn $scenario() {
                    match Subject::consul().await {
                        Some(subject) => scenarios::$module::$scenario(&subject).await,
                        None => skip(),
                    }
                })+
            })+
        }
    };
}

suite! {
    blocking: time_out, wake, sleep_on, lists_wake, intentions_wake, indexes_rise;
    catalog: selection, headers, external_nodes, about;
    checks: ttl, registration, probes, sidecar, maintenance, local_health;
    connect: shapes, leaves, rotation, configuration, authorize;
    dns: lookups, many;
    errors: are_as_recorded, methods, missing_names, registrations;
    intentions: as_recorded, precedence, erlang_nodes, refusals, exact, config_entries;
    services: expand_as_recorded, snake_case, names_of_erlang_nodes, sidecar_ports, deregistration,
        registering_again, content_hash, filters;
}
