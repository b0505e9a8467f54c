//! Who may call what.

mod caller;
mod glob;

use std::fmt;
use std::sync::Arc;

use meshx_core::Action;
use serde::{Deserialize, Serialize};

use self::caller::{Caller, Identity};
use self::glob::Glob;
use crate::error::{Error, Executed, Kind};
use crate::functions::NAME_MAX;

/// Who may call what: rules, of which the first that speaks of a caller and a function decides.
///
/// Without any policy a server lets everyone call everything in its allow-list. With one, what no rule
/// speaks of is denied, unless the policy says otherwise. It can only narrow the allow-list: what is
/// not offered cannot be called whatever the rules say. A server judges before it looks whether a
/// function exists, so a caller who is denied does not learn that.
///
/// A rule names functions, with `*` for any run of characters, and callers:
///
/// * `*`: anyone, also without an identity;
/// * `web`, `web-*`: services of that name, in the default namespace and partition, as in intentions;
/// * `spiffe://ab.consul/ns/default/dc/dc1/svc/web`: this one identity;
/// * `spiffe://ab.consul/*`: any service of this trust domain; `spiffe://*`: of any.
///
/// Peers without an identity, or with one that is not a service's, are only meant by `*`.
///
/// ```
/// use meshx_core::Action;
/// use meshx_rpc::{Policy, Rule};
///
/// let policy = Policy::new(
///     vec![
///         Rule::deny(["cart.purge"], ["*"]),
///         Rule::allow(["cart.*"], ["web", "shop-*"]),
///         Rule::allow(["ping"], ["*"]),
///     ],
///     Action::Deny,
/// )?;
/// let web = Some("spiffe://ab.consul/ns/default/dc/dc1/svc/web");
/// assert!(policy.allows(web, "cart.add"));
/// assert!(!policy.allows(web, "cart.purge"));
/// assert!(!policy.allows(None, "cart.add"));
/// assert!(policy.allows(None, "ping"));
/// # Ok::<(), meshx_rpc::PolicyError>(())
/// ```
///
/// In configuration, here as JSON; a field that is not known is an error:
///
/// ```
/// let policy: meshx_rpc::Policy = serde_json::from_str(r#"{
///     "rules": [
///         {"name": "shop", "functions": ["cart.*"], "callers": ["web"], "action": "allow"}
///     ],
///     "default": "deny"
/// }"#)?;
/// assert!(!policy.allows(Some("spiffe://ab.consul/ns/default/dc/dc1/svc/db"), "cart.add"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Policy(Arc<Inside>);

#[derive(Debug, PartialEq, Eq)]
struct Inside {
    rules: Vec<Read>,
    default: Action,
}

/// What of a policy concerns one peer: for a connection, on which many calls are judged.
#[derive(Debug, Clone)]
pub struct Permits {
    policy: Policy,
    identity: Option<Box<str>>,
    /// The places of the rules that speak of the peer.
    rules: Box<[usize]>,
}

/// These callers may, or may not, call these functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What the rule is called where it is spoken of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Names of functions, with `*`; at least one.
    pub functions: Vec<String>,
    /// Who calls (see [`Policy`]); at least one.
    pub callers: Vec<String>,
    /// What follows.
    pub action: Action,
}

/// A policy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    rule: Option<(usize, Option<String>)>,
    reason: String,
}

/// A rule, and what is meant by it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    rule: Rule,
    functions: Vec<Glob>,
    callers: Vec<Caller>,
}

/// As it is in configuration.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default = "deny")]
    default: Action,
}

impl Policy {
    /// The most rules of a policy.
    pub const RULES_MAX: usize = 256;

    /// The most functions, and the most callers, of a rule.
    pub const ENTRIES_MAX: usize = 64;

    /// The policy of these rules, in this order; `default` is for what none of them speaks of.
    ///
    /// Fails if there are too many, or one of them means nobody or nothing.
    pub fn new(rules: Vec<Rule>, default: Action) -> Result<Self, PolicyError> {
        if rules.len() > Self::RULES_MAX {
            let reason = format!("{} rules are more than {}", rules.len(), Self::RULES_MAX);
            return Err(PolicyError { rule: None, reason });
        }
        let rules = rules.into_iter().enumerate().map(|(at, rule)| {
            Read::new(rule).map_err(|(name, reason)| PolicyError {
                rule: Some((at.saturating_add(1), name)),
                reason,
            })
        });
        Ok(Self(Arc::new(Inside { rules: rules.collect::<Result<_, _>>()?, default })))
    }

    /// Whether this peer may call this function; `None` is a peer without an identity.
    ///
    /// Copies nothing where the identity is written in the usual form. It takes time for each entry of
    /// the rules, and to read the identity; [`permits`](Self::permits) does a part of that beforehand.
    pub fn allows(&self, identity: Option<&str>, function: &str) -> bool {
        let action = self.decisive(identity, function).map_or(self.0.default, |rule| rule.action);
        action == Action::Allow
    }

    /// The same, as the error that the caller gets. It does not tell the rule: that is for those who
    /// run the server ([`decisive`](Self::decisive)).
    pub fn check(&self, identity: Option<&str>, function: &str) -> Result<(), Error> {
        self.allows(identity, function).then_some(()).ok_or_else(|| denied(identity, function))
    }

    /// The rule that decides; `None`: the default does.
    pub fn decisive(&self, identity: Option<&str>, function: &str) -> Option<&Rule> {
        // Read once, and only if there is a rule that asks.
        let mut who = None;
        let mut speaks = |read: &&Read| {
            read.is_about(function)
                && read.means(who.get_or_insert_with(|| identity.and_then(Identity::read)).as_ref())
        };
        self.0.rules.iter().find(|read| speaks(read)).map(|read| &read.rule)
    }

    /// What concerns this peer.
    pub fn permits(&self, identity: Option<&str>) -> Permits {
        let who = identity.and_then(Identity::read);
        let rules = self.0.rules.iter().enumerate();
        let rules = rules.filter(|(_, read)| read.means(who.as_ref())).map(|(at, _)| at).collect();
        Permits { policy: self.clone(), identity: identity.map(Box::from), rules }
    }

    /// The rules, in their order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.0.rules.iter().map(|read| &read.rule)
    }

    /// What holds where no rule speaks.
    pub fn default_action(&self) -> Action {
        self.0.default
    }
}

impl Permits {
    /// Whether the peer may call this function ([`Policy::allows`]).
    pub fn allows(&self, function: &str) -> bool {
        let Inside { rules, default } = &*self.policy.0;
        let mut rules = self.rules.iter().filter_map(|at| rules.get(*at));
        let action = rules.find(|read| read.is_about(function)).map(|read| read.rule.action);
        action.unwrap_or(*default) == Action::Allow
    }

    /// The same, as the error that the caller gets ([`Policy::check`]).
    pub fn check(&self, function: &str) -> Result<(), Error> {
        let denied = || denied(self.identity.as_deref(), function);
        self.allows(function).then_some(()).ok_or_else(denied)
    }
}

impl Rule {
    /// These may call those.
    pub fn allow<F, C>(functions: F, callers: C) -> Self
    where
        F: IntoIterator<Item: Into<String>>,
        C: IntoIterator<Item: Into<String>>,
    {
        Self {
            name: None,
            functions: functions.into_iter().map(Into::into).collect(),
            callers: callers.into_iter().map(Into::into).collect(),
            action: Action::Allow,
        }
    }

    /// These may not call those.
    pub fn deny<F, C>(functions: F, callers: C) -> Self
    where
        F: IntoIterator<Item: Into<String>>,
        C: IntoIterator<Item: Into<String>>,
    {
        Self { action: Action::Deny, ..Self::allow(functions, callers) }
    }

    /// With a name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }
}

impl Read {
    fn is_about(&self, function: &str) -> bool {
        self.functions.iter().any(|glob| glob.matches(function))
    }

    fn means(&self, who: Option<&Identity<'_>>) -> bool {
        self.callers.iter().any(|caller| caller.matches(who))
    }

    /// Reads a rule; otherwise its name, if it can be repeated, and the reason.
    fn new(rule: Rule) -> Result<Self, (Option<String>, String)> {
        match &rule.name {
            Some(name) if name.is_empty() || name.len() > NAME_MAX => {
                return Err((None, format!("its name is of 1 to {NAME_MAX} bytes")));
            }
            Some(name) if name.contains(char::is_control) => {
                return Err((None, "its name has control characters".to_owned()));
            }
            _ => {}
        }
        let read = || {
            let functions = entries("function", &rule.functions, |entry| {
                if entry.len() > NAME_MAX {
                    return Err(format!("names of functions have up to {NAME_MAX} bytes"));
                }
                Ok(Glob::read(entry)?)
            })?;
            Ok((functions, entries("caller", &rule.callers, Caller::read)?))
        };
        match read() {
            Ok((functions, callers)) => Ok(Self { rule, functions, callers }),
            Err(reason) => Err((rule.name, reason)),
        }
    }
}

fn entries<T>(
    what: &str,
    entries: &[String],
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    if entries.is_empty() {
        return Err(format!("it names no {what}; `*` stands for all"));
    }
    if entries.len() > Policy::ENTRIES_MAX {
        return Err(format!(
            "it names {} {what}s, more than {}: make two rules of it",
            entries.len(),
            Policy::ENTRIES_MAX
        ));
    }
    let each = |entry: &String| {
        let shown = || entry.chars().take(80).collect::<String>();
        read(entry).map_err(|reason| format!("{what} {:?}: {reason}", shown()))
    };
    entries.iter().map(each).collect()
}

/// What a caller is told who may not.
fn denied(identity: Option<&str>, function: &str) -> Error {
    let reason = match identity {
        Some(identity) => format!("the server's policy does not let {identity} call it"),
        None => "the server's policy does not let callers without an identity call it".into(),
    };
    Error::new(Kind::Denied, Executed::Never, reason).of(function)
}

fn deny() -> Action {
    Action::Deny
}

impl PolicyError {
    /// The place of the rule at fault, from 1 on; `None` if it is all of them together.
    pub fn rule(&self) -> Option<usize> {
        self.rule.as_ref().map(|(at, _)| *at)
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            None => write!(f, "policy: {}", self.reason),
            Some((at, None)) => write!(f, "policy, rule {at}: {}", self.reason),
            Some((at, Some(name))) => write!(f, "policy, rule {at} ({name}): {}", self.reason),
        }
    }
}

impl std::error::Error for PolicyError {}

impl TryFrom<Written> for Policy {
    type Error = PolicyError;

    fn try_from(written: Written) -> Result<Self, PolicyError> {
        Self::new(written.rules, written.default)
    }
}

impl From<Policy> for Written {
    fn from(policy: Policy) -> Self {
        Self { rules: policy.rules().cloned().collect(), default: policy.default_action() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn id(service: &str) -> String {
        format!("spiffe://ab.consul/ns/default/dc/dc1/svc/{service}")
    }

    #[test]
    fn the_first_rule_that_speaks_decides() {
        let rules = vec![
            Rule::deny(["*.purge"], ["web"]).named("no purge"),
            Rule::allow(["cart.*", "user.*"], ["web", "shop-*"]),
            Rule::deny(["*"], ["*"]),
            Rule::allow(["*"], ["*"]),
        ];
        let policy = Policy::new(rules, Action::Allow).unwrap();
        for (service, function, allowed) in [
            ("web", "cart.add", true),
            ("web", "user.add", true),
            ("web", "cart.purge", false),
            ("shop-1", "cart.purge", true),
            ("shop", "cart.add", false),
            ("web", "ping", false),
        ] {
            let identity = id(service);
            assert_eq!(policy.allows(Some(&identity), function), allowed, "{service} {function}");
            let permits = policy.permits(Some(&identity));
            assert_eq!(permits.allows(function), allowed, "{service} {function}");
            assert_eq!(permits.check(function), policy.check(Some(&identity), function));
            assert_eq!(permits.check(function).is_ok(), allowed);
        }
        let decisive = policy.decisive(Some(&id("web")), "cart.purge").unwrap();
        assert_eq!(decisive.name.as_deref(), Some("no purge"));
    }

    #[test]
    fn the_default_is_for_what_no_rule_speaks_of() {
        let rules = || vec![Rule::allow(["a"], ["web"])];
        for (default, allowed) in [(Action::Allow, true), (Action::Deny, false)] {
            let policy = Policy::new(rules(), default).unwrap();
            assert_eq!(policy.allows(Some(&id("db")), "a"), allowed);
            assert_eq!(policy.allows(Some(&id("web")), "b"), allowed);
            assert_eq!(policy.allows(None, "a"), allowed);
            assert_eq!(policy.permits(None).allows("a"), allowed);
            assert!(policy.allows(Some(&id("web")), "a"));
            assert_eq!(policy.decisive(None, "a"), None);
        }
    }

    #[test]
    fn who_is_no_service_is_only_anyone() {
        let rules = vec![Rule::allow(["open"], ["*"]), Rule::allow(["known"], ["spiffe://*"])];
        let policy = Policy::new(rules, Action::Deny).unwrap();
        for stranger in [None, Some(""), Some("web"), Some("spiffe://ab.consul/agent/x")] {
            assert!(policy.allows(stranger, "open"), "{stranger:?}");
            assert!(!policy.allows(stranger, "known"), "{stranger:?}");
            let permits = policy.permits(stranger);
            assert!(permits.allows("open") && !permits.allows("known"), "{stranger:?}");
        }
        assert!(policy.allows(Some(&id("any")), "known"));
    }

    #[test]
    fn who_is_denied_learns_that_and_no_more() {
        let rules = vec![Rule::deny(["f"], ["web"]).named("secret reasons")];
        let policy = Policy::new(rules, Action::Deny).unwrap();
        let error = policy.check(Some(&id("web")), "f").unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Denied, Executed::Never));
        assert_eq!(error.function(), Some("f"));
        assert!(error.reason().contains("svc/web") && !error.reason().contains("secret"));
        let nobody = policy.check(None, "f").unwrap_err();
        assert!(nobody.reason().contains("without an identity"));
    }

    #[test]
    fn configuration_is_read_strictly_and_written_as_it_was() {
        let read = |text: &str| serde_json::from_str::<Policy>(text);
        let empty = read("{}").unwrap();
        assert_eq!((empty.rules().count(), empty.default_action()), (0, Action::Deny));
        assert!(!empty.allows(Some(&id("web")), "f"));
        let text = r#"{"rules":[{"name":"n","functions":["f*"],"callers":["web"],"action":"allow"},{"functions":["*"],"callers":["*"],"action":"deny"}],"default":"allow"}"#;
        let policy = read(text).unwrap();
        assert_eq!(serde_json::to_string(&policy).unwrap(), text);
        assert!(policy.allows(Some(&id("web")), "fun"));
        for (bad, why) in [
            (r#"{"rule":[]}"#, "unknown field `rule`"),
            (r#"{"default":"maybe"}"#, "unknown variant `maybe`"),
            (r#"{"rules":[{"functions":["f"],"callers":["web"]}]}"#, "missing field `action`"),
            (
                r#"{"rules":[{"functions":["f"],"callers":["a"],"action":"deny","x":1}]}"#,
                "unknown field `x`",
            ),
            (
                r#"{"rules":[{"functions":["f"],"callers":["a"],"action":"deny"},{"name":"two","functions":["f"],"callers":["a b"],"action":"deny"}]}"#,
                "policy, rule 2 (two): caller \"a b\"",
            ),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn errors_name_the_rule_and_bounds_hold() {
        let fails = |rules: Vec<Rule>| Policy::new(rules, Action::Deny).unwrap_err();
        let good = || Rule::allow(["f"], ["web"]);
        let none: [&str; 0] = [];
        for (bad, why) in [
            (
                Rule::allow(none, ["web"]),
                "policy, rule 2: it names no function; `*` stands for all",
            ),
            (Rule::allow(["f"], none).named("n"), "policy, rule 2 (n): it names no caller"),
            (Rule::allow([""], ["web"]), "function \"\": it is empty"),
            (Rule::allow(["a**"], ["web"]), "function \"a**\""),
            (Rule::allow(["f".repeat(256)], ["web"]), "up to 255 bytes"),
            (Rule::allow(["f"], ["spiffe://td/x"]), "caller \"spiffe://td/x\""),
            (Rule::allow(["f"], vec!["web"; 65]), "names 65 callers, more than 64"),
            (good().named(""), "its name is of 1 to 255 bytes"),
            (good().named("a\x1b[2J"), "its name has control characters"),
            (Rule::allow(["f"], ["a\x1b[2J"]), "caller \"a\\u{1b}[2J\""),
        ] {
            let error = fails(vec![good(), bad]);
            assert_eq!(error.rule(), Some(2));
            assert!(error.to_string().contains(why), "{error}");
        }
        let most = Policy::RULES_MAX;
        Policy::new(vec![good(); most], Action::Deny).unwrap();
        assert_eq!(
            fails(vec![good(); most + 1]).to_string(),
            "policy: 257 rules are more than 256"
        );
        let full = Rule::allow(vec!["f".repeat(255); 64], vec!["w".repeat(255); 64]);
        Policy::new(vec![full], Action::Deny).unwrap();
    }
}
