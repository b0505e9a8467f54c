//! Who may talk to whom, judged as Consul judges.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{NameError, ServiceName};

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "Consul knows two actions at L4")]
pub enum Action {
    /// The connection may be made and may live.
    Allow,
    /// The connection is refused, and cut if it lives.
    Deny,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// One side of an intention: a service, or `*` for every service.
///
/// The order is by precision: an exact name sorts before the wildcard.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[expect(clippy::exhaustive_enums, reason = "Consul allows no partial wildcards")]
pub enum IntentionName {
    /// This service.
    Exact(ServiceName),
    /// Every service, written `*`.
    Any,
}

impl IntentionName {
    /// True when this side speaks of `service`.
    pub fn matches(&self, service: &ServiceName) -> bool {
        match self {
            Self::Exact(name) => name == service,
            Self::Any => true,
        }
    }
}

impl FromStr for IntentionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::Exact) }
    }
}

impl TryFrom<String> for IntentionName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<IntentionName> for String {
    fn from(name: IntentionName) -> String {
        name.to_string()
    }
}

impl fmt::Display for IntentionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Any => f.write_str("*"),
        }
    }
}

impl fmt::Debug for IntentionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A rule: connections from `source` to `destination` are allowed or denied.
///
/// An intention is directed. A distribution link between two Erlang nodes carries both ways over
/// whichever connection came first, so for nodes a rule usually comes in pairs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intention {
    /// Who dials.
    pub source: IntentionName,
    /// Who is dialled.
    pub destination: IntentionName,
    /// What follows.
    pub action: Action,
}

impl Intention {
    /// The rule of these three.
    pub fn new(source: IntentionName, destination: IntentionName, action: Action) -> Self {
        Self { source, destination, action }
    }

    /// Consul's precedence of the pair: 9 exact to exact, 8 any to exact, 6 exact to any, 5 any
    /// to any (7 and below 5 are reserved for namespaces).
    pub fn precedence(&self) -> u8 {
        match (&self.source, &self.destination) {
            (IntentionName::Exact(_), IntentionName::Exact(_)) => 9,
            (IntentionName::Any, IntentionName::Exact(_)) => 8,
            (IntentionName::Exact(_), IntentionName::Any) => 6,
            (IntentionName::Any, IntentionName::Any) => 5,
        }
    }

    /// True when the rule speaks of this pair.
    pub fn matches(&self, source: &ServiceName, destination: &ServiceName) -> bool {
        self.source.matches(source) && self.destination.matches(destination)
    }
}

impl fmt::Display for Intention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} → {}", self.action, self.source, self.destination)
    }
}

/// All intentions in force, and what holds where none matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentionSet {
    /// Highest precedence first.
    intentions: Vec<Intention>,
    default: Action,
}

impl IntentionSet {
    /// The set in Consul's order; `default` decides where no intention matches.
    pub fn new(mut intentions: Vec<Intention>, default: Action) -> Self {
        intentions.sort_by(|a, b| {
            b.precedence()
                .cmp(&a.precedence())
                .then_with(|| (&a.source, &a.destination).cmp(&(&b.source, &b.destination)))
        });
        Self { intentions, default }
    }

    /// The verdict on one connection: the first match in order of precedence, or the default.
    pub fn judge(&self, source: &ServiceName, destination: &ServiceName) -> Verdict {
        match self.intentions.iter().find(|i| i.matches(source, destination)) {
            Some(intention) => Verdict { action: intention.action, rule: Some(intention.clone()) },
            None => Verdict { action: self.default, rule: None },
        }
    }

    /// The rules, highest precedence first.
    pub fn intentions(&self) -> &[Intention] {
        &self.intentions
    }

    /// What holds where no rule matches.
    pub fn default_action(&self) -> Action {
        self.default
    }
}

/// The answer to "may this connection be?", with the rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Allowed or denied.
    pub action: Action,
    /// The rule that decided, `None` for the default.
    pub rule: Option<Intention>,
}

impl Verdict {
    /// True when the connection may be.
    pub fn is_allowed(&self) -> bool {
        self.action == Action::Allow
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => write!(
                f,
                "{} by {} → {} (precedence {})",
                self.action.past_tense(),
                rule.source,
                rule.destination,
                rule.precedence()
            ),
            None => write!(f, "{} by default", self.action.past_tense()),
        }
    }
}

impl Action {
    fn past_tense(self) -> &'static str {
        match self {
            Self::Allow => "allowed",
            Self::Deny => "denied",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(source: &str, destination: &str, action: Action) -> Intention {
        Intention::new(source.parse().unwrap(), destination.parse().unwrap(), action)
    }

    #[test]
    fn the_most_precise_rule_decides() {
        let (web, db): (ServiceName, ServiceName) = ("web".parse().unwrap(), "db".parse().unwrap());
        let mut rules = vec![rule("*", "*", Action::Deny)];
        let judge = |rules: &Vec<Intention>| {
            IntentionSet::new(rules.clone(), Action::Allow).judge(&web, &db).to_string()
        };
        assert_eq!(judge(&vec![]), "allowed by default");
        assert_eq!(judge(&rules), "denied by * → * (precedence 5)");
        rules.push(rule("web", "*", Action::Allow));
        assert_eq!(judge(&rules), "allowed by web → * (precedence 6)");
        rules.push(rule("*", "db", Action::Deny));
        assert_eq!(judge(&rules), "denied by * → db (precedence 8)");
        rules.push(rule("web", "db", Action::Allow));
        assert_eq!(judge(&rules), "allowed by web → db (precedence 9)");
    }
}
