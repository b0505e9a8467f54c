//! `?filter=`: the part of Consul's expressions (go-bexpr) that compares and combines.
//!
//! `Kind == "connect-proxy" and not ("v1" in Tags)`: `==`, `!=`, `in`, `not in`, `contains`,
//! `not contains`, `is empty`, `is not empty`, `and`, `or`, `not`, brackets. There are no regular
//! expressions (`matches`).

use serde::Serialize;
use serde_json::Value;

use crate::refusal::Refusal;

/// Longest expression, in bytes.
const MAX_TEXT: usize = 4_096;
/// Deepest nesting of an expression.
const MAX_DEPTH: usize = 32;

/// What is filtered: decides which selectors are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    AgentService,
    Check,
    HealthEntry,
    CatalogService,
    Node,
    NodeService,
    Intention,
}

/// An expression that was read.
#[derive(Debug, PartialEq)]
pub(crate) struct Filter(Expression);

#[derive(Debug, PartialEq)]
enum Expression {
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Equal(Vec<String>, String),
    Contains(Vec<String>, String),
    Empty(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    Equal,
    NotEqual,
    /// A bare word: a keyword, a selector, or a value without quotes.
    Word(String),
    Quoted(String),
}

impl Filter {
    /// Reads an expression about items of this kind.
    pub(crate) fn parse(text: &str, kind: Kind) -> Result<Self, Refusal> {
        let failed = |why: String| {
            Refusal::internal(format!("Failed to create boolean expression evaluator: {why}"))
        };
        if text.len() > MAX_TEXT {
            return Err(failed(format!("longer than {MAX_TEXT} bytes")));
        }
        let mut parser = Parser { tokens: tokens(text).map_err(failed)?, at: 0, kind };
        let expression = parser.either(0).map_err(failed)?;
        match parser.next() {
            None => Ok(Self(expression)),
            Some(token) => Err(failed(format!("unexpected {}", describe(Some(&token))))),
        }
    }

    /// True when the item is wanted.
    pub(crate) fn matches<T: Serialize>(&self, item: &T) -> bool {
        serde_json::to_value(item).is_ok_and(|value| self.0.holds(&value))
    }
}

impl Expression {
    fn holds(&self, item: &Value) -> bool {
        match self {
            Self::And(a, b) => a.holds(item) && b.holds(item),
            Self::Or(a, b) => a.holds(item) || b.holds(item),
            Self::Not(inner) => !inner.holds(item),
            Self::Equal(path, value) => text_of(select(item, path)) == *value,
            Self::Contains(path, value) => match select(item, path) {
                Value::Array(items) => items.iter().any(|item| text_of(item) == *value),
                Value::Object(map) => map.contains_key(value),
                other => text_of(other).contains(value.as_str()),
            },
            Self::Empty(path) => match select(item, path) {
                Value::Array(items) => items.is_empty(),
                Value::Object(map) => map.is_empty(),
                other => text_of(other).is_empty(),
            },
        }
    }
}

fn select<'a>(item: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(item, |value, key| value.get(key).unwrap_or(&Value::Null))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => {
                tokens.push(if first == '(' { Token::Open } else { Token::Close });
                1
            }
            '=' | '!' if rest[1..].starts_with('=') => {
                tokens.push(if first == '=' { Token::Equal } else { Token::NotEqual });
                2
            }
            '"' | '`' => {
                let end = rest[1..].find(first).ok_or("a quote is not closed")?;
                tokens.push(Token::Quoted(rest[1..=end].to_owned()));
                end + 2
            }
            _ => {
                let is_end = |c: char| c.is_whitespace() || "()=!\"`".contains(c);
                let end = rest.find(is_end).unwrap_or(rest.len());
                if end == 0 {
                    return Err(format!("unexpected {first:?}"));
                }
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    kind: Kind,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    /// Takes the word when it comes next.
    fn take(&mut self, word: &str) -> bool {
        let is_next = self.tokens.get(self.at) == Some(&Token::Word(word.to_owned()));
        self.at += usize::from(is_next);
        is_next
    }

    fn either(&mut self, depth: usize) -> Result<Expression, String> {
        let mut left = self.both(depth)?;
        while self.take("or") {
            left = Expression::Or(Box::new(left), Box::new(self.both(depth)?));
        }
        Ok(left)
    }

    fn both(&mut self, depth: usize) -> Result<Expression, String> {
        let mut left = self.one(depth)?;
        while self.take("and") {
            left = Expression::And(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn one(&mut self, depth: usize) -> Result<Expression, String> {
        if depth > MAX_DEPTH {
            return Err("nested too deeply".to_owned());
        }
        if self.take("not") {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        match self.next() {
            Some(Token::Open) => {
                let inner = self.either(depth + 1)?;
                match self.next() {
                    Some(Token::Close) => Ok(inner),
                    other => Err(format!("expected \")\", not {}", describe(other.as_ref()))),
                }
            }
            Some(Token::Word(word) | Token::Quoted(word)) => self.comparison(word),
            other => Err(format!("unexpected {}", describe(other.as_ref()))),
        }
    }

    fn comparison(&mut self, first: String) -> Result<Expression, String> {
        if self.take("in") {
            let path = self.selector_next()?;
            return Ok(Expression::Contains(path, first));
        }
        if self.take("contains") {
            let path = self.selector(&first)?;
            return Ok(Expression::Contains(path, self.value()?));
        }
        if self.take("is") {
            let path = self.selector(&first)?;
            let is_not = self.take("not");
            if !self.take("empty") {
                return Err("expected \"empty\"".to_owned());
            }
            let empty = Expression::Empty(path);
            return Ok(if is_not { Expression::Not(Box::new(empty)) } else { empty });
        }
        if self.take("not") {
            let inner = if self.take("in") {
                Expression::Contains(self.selector_next()?, first)
            } else if self.take("contains") {
                Expression::Contains(self.selector(&first)?, self.value()?)
            } else {
                return Err("expected \"in\" or \"contains\" after \"not\"".to_owned());
            };
            return Ok(Expression::Not(Box::new(inner)));
        }
        match self.next() {
            Some(Token::Equal) => {
                let path = self.selector(&first)?;
                Ok(Expression::Equal(path, self.value()?))
            }
            Some(Token::NotEqual) => {
                let path = self.selector(&first)?;
                Ok(Expression::Not(Box::new(Expression::Equal(path, self.value()?))))
            }
            Some(Token::Word(word)) if word == "matches" => {
                Err("the embedded agent has no regular expressions (matches)".to_owned())
            }
            other => Err(format!("expected a comparison, not {}", describe(other.as_ref()))),
        }
    }

    fn value(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Word(text) | Token::Quoted(text)) => Ok(text),
            other => Err(format!("expected a value, not {}", describe(other.as_ref()))),
        }
    }

    fn selector_next(&mut self) -> Result<Vec<String>, String> {
        let text = self.value()?;
        self.selector(&text)
    }

    /// A selector of this kind of item: `Service.Meta.version`.
    fn selector(&self, text: &str) -> Result<Vec<String>, String> {
        let path: Vec<String> = text.split('.').map(str::to_owned).collect();
        if is_known(self.kind, &path) {
            return Ok(path);
        }
        let first = path.first().map(String::as_str).unwrap_or_default();
        Err(format!("Selector \"{}\" is not valid", if path.len() == 1 { first } else { text }))
    }
}

fn describe(token: Option<&Token>) -> String {
    match token {
        None => "the end".to_owned(),
        Some(Token::Open) => "\"(\"".to_owned(),
        Some(Token::Close) => "\")\"".to_owned(),
        Some(Token::Equal) => "\"==\"".to_owned(),
        Some(Token::NotEqual) => "\"!=\"".to_owned(),
        Some(Token::Word(text) | Token::Quoted(text)) => format!("{text:?}"),
    }
}

/// True when items of this kind have the field. What is below a map of the client's keys is free.
fn is_known(kind: Kind, path: &[String]) -> bool {
    const SERVICE: &[&str] = &[
        "Kind",
        "ID",
        "Service",
        "Tags",
        "Meta",
        "Port",
        "Address",
        "TaggedAddresses",
        "Weights",
        "EnableTagOverride",
        "Proxy",
        "Connect",
    ];
    const NODE: &[&str] = &["ID", "Node", "Address", "Datacenter", "TaggedAddresses", "Meta"];
    const CHECK: &[&str] = &[
        "Node",
        "CheckID",
        "Name",
        "Status",
        "Notes",
        "Output",
        "ServiceID",
        "ServiceName",
        "ServiceTags",
        "Type",
    ];
    const CATALOG: &[&str] = &[
        "ID",
        "Node",
        "Address",
        "Datacenter",
        "TaggedAddresses",
        "NodeMeta",
        "ServiceKind",
        "ServiceID",
        "ServiceName",
        "ServiceTags",
        "ServiceAddress",
        "ServiceTaggedAddresses",
        "ServiceWeights",
        "ServiceMeta",
        "ServicePort",
        "ServiceEnableTagOverride",
        "ServiceProxy",
        "ServiceConnect",
    ];
    const INTENTION: &[&str] = &[
        "ID",
        "Description",
        "SourceNS",
        "SourceName",
        "DestinationNS",
        "DestinationName",
        "SourceType",
        "Action",
        "Meta",
        "Precedence",
    ];
    let Some((first, rest)) = path.split_first() else { return false };
    let fields = match kind {
        Kind::AgentService | Kind::NodeService => SERVICE,
        Kind::Check => CHECK,
        Kind::CatalogService => CATALOG,
        Kind::Node => NODE,
        Kind::Intention => INTENTION,
        Kind::HealthEntry => {
            return match first.as_str() {
                "Node" => is_known(Kind::Node, rest),
                "Service" => is_known(Kind::NodeService, rest),
                _ => false,
            };
        }
    };
    let is_open = matches!(
        first.as_str(),
        "Meta"
            | "NodeMeta"
            | "ServiceMeta"
            | "TaggedAddresses"
            | "ServiceTaggedAddresses"
            | "Weights"
            | "ServiceWeights"
            | "Proxy"
            | "ServiceProxy"
            | "Connect"
            | "ServiceConnect"
    );
    fields.contains(&first.as_str()) && (rest.is_empty() || is_open)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn keeps(filter: &str) -> bool {
        let item = json!({
            "Kind": "connect-proxy", "ID": "web-1", "Service": "web", "Tags": ["v1", "p"],
            "Meta": {"os": "linux"}, "Port": 80,
        });
        Filter::parse(filter, Kind::AgentService).unwrap().matches(&item)
    }

    #[test]
    fn the_forms_that_clients_use() {
        for wanted in [
            r#"Kind == "connect-proxy""#,
            "Service==web",
            "Port == 80",
            r#""v1" in Tags"#,
            r#"Tags contains "v1""#,
            r#""v2" not in Tags and Meta.os == linux"#,
            "os in Meta",
            "not (ID == other or Service != `web`)",
            "Tags is not empty and Address is empty",
            "Address == \"\"",
        ] {
            assert!(keeps(wanted), "{wanted}");
        }
        for unwanted in ["Kind != connect-proxy", "not Service == web", "Meta.os is empty"] {
            assert!(!keeps(unwanted), "{unwanted}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| Filter::parse(text, Kind::HealthEntry).unwrap_err().text;
        assert_eq!(
            error("Foo == 1"),
            "Failed to create boolean expression evaluator: Selector \"Foo\" is not valid"
        );
        for bad in ["", "(", "Service.ID", "Service.ID ==", "Service.ID == a b", "a in", "\"x", "!"]
        {
            assert!(error(bad).starts_with("Failed to create"), "{bad}");
        }
        assert!(error("Service.ID matches \"a.*\"").contains("regular expressions"));
        assert!(error(&"not ".repeat(1_000)).contains("too deeply"));
        assert!(error(&"(".repeat(1_000)).contains("too deeply"));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,60}") {
            let _any = Filter::parse(&text, Kind::Node);
        }
    }
}
