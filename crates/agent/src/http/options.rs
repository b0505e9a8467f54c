//! The parameters that every query of the catalog understands.

use meshx_consul_api::GoDuration;

use super::reply::Consistency;
use super::request::Query;
use crate::control::Wait;
use crate::limits;
use crate::refusal::Refusal;

/// `?index&wait&stale&consistent&cached&dc&ns…` of a query.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) wait: Wait,
    pub(crate) consistency: Consistency,
    pub(crate) is_cached: bool,
}

impl Options {
    /// Reads the parameters, refusing what Consul refuses in its words.
    pub(crate) fn parse(query: &Query) -> Result<Self, Refusal> {
        let wait = parse_wait(query)?;
        let (is_stale, is_consistent) = (query.has("stale"), query.has("consistent"));
        let is_cached = query.has("cached");
        if is_stale && is_consistent {
            return Err(conflict("stale"));
        }
        if is_cached && is_consistent {
            return Err(conflict("cached"));
        }
        if query.filled("max_stale").is_some_and(|text| text.parse::<GoDuration>().is_err()) {
            let text = query.get("max_stale").unwrap_or_default();
            return Err(Refusal::bad(format!("Invalid max_stale value \"{text}\"")));
        }
        refuse_namespace(query)?;
        let consistency = if is_consistent {
            Consistency::Consistent
        } else if is_stale {
            Consistency::Stale
        } else {
            Consistency::Leader
        };
        Ok(Self { wait, consistency, is_cached })
    }
}

/// `?index&wait`.
pub(crate) fn parse_wait(query: &Query) -> Result<Wait, Refusal> {
    let time = match query.filled("wait") {
        None => limits::WAIT_DEFAULT,
        // Go reads a negative duration too, and it means no waiting.
        Some(text) if text.starts_with('-') && text[1..].parse::<GoDuration>().is_ok() => {
            limits::WAIT_DEFAULT
        }
        Some(text) => {
            let wait: GoDuration = text.parse().map_err(|_| Refusal::bad("Invalid wait time"))?;
            if wait.get().is_zero() {
                limits::WAIT_DEFAULT
            } else {
                wait.get().min(limits::WAIT_MAX)
            }
        }
    };
    let index = match query.filled("index") {
        None => 0,
        Some(text) => text.parse().map_err(|_| Refusal::bad("Invalid index"))?,
    };
    Ok(Wait { index, time })
}

/// Namespaces are Consul Enterprise's.
pub(crate) fn refuse_namespace(query: &Query) -> Result<(), Refusal> {
    if query.filled("ns").is_some_and(|ns| ns != "default") {
        return Err(Refusal::bad(
            "Bad request: Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise \
             feature",
        ));
    }
    Ok(())
}

fn conflict(word: &str) -> Refusal {
    Refusal::bad(format!("Cannot specify ?{word} with ?consistent, conflicting semantics."))
}
