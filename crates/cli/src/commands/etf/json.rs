//! Terms as JSON.
//!
//! The mapping, which the help of `meshx etf decode` documents, loses nothing: what is no object is
//! one kind of term only, and an object says its kind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use meshx_etf::{Node, Pid, Term};
use serde_json::{Value, json};

use super::input::hex;

/// The largest integer that every reader of JSON takes exactly (RFC 8259, section 6).
const EXACT: u64 = (1 << 53) - 1;

pub(crate) fn value(term: &Term) -> Value {
    match term {
        Term::Integer(number) if number.unsigned_abs() <= EXACT => json!(number),
        Term::Integer(number) => json!({ "int": number.to_string() }),
        Term::Big(number) => json!({ "int": number.to_string() }),
        Term::Float(number) => json!(number),
        Term::Atom(atom) => match atom.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => json!({ "atom": text }),
        },
        Term::Binary(bytes) => match std::str::from_utf8(bytes.as_slice()) {
            Ok(text) => json!(text),
            Err(_) => json!({ "binary": BASE64.encode(bytes.as_slice()) }),
        },
        Term::Bits(bits) => {
            json!({ "bits": BASE64.encode(bits.as_slice()), "size": bits.bit_len() })
        }
        Term::List(elements) => values(elements),
        Term::Improper(list) => {
            json!({ "list": values(list.elements()), "tail": value(list.tail()) })
        }
        Term::Tuple(elements) => json!({ "tuple": values(elements) }),
        Term::Map(map) => {
            let pairs: Vec<_> =
                map.iter().map(|(key, of)| json!([value(key), value(of)])).collect();
            json!({ "map": pairs })
        }
        Term::Pid(pid) => json!({ "pid": self::pid(pid) }),
        Term::Port(port) => json!({ "port": with_node(&port.node, json!({ "id": port.id })) }),
        Term::Reference(reference) => {
            let words = json!({ "words": reference.words() });
            json!({ "reference": with_node(reference.node(), words) })
        }
        Term::Export(export) => json!({ "export": {
            "module": export.module.as_str(),
            "function": export.function.as_str(),
            "arity": export.arity,
        }}),
        Term::Fun(fun) => json!({ "fun": {
            "module": fun.module.as_str(),
            "arity": fun.arity,
            "uniq": hex(&fun.uniq),
            "index": fun.index,
            "old_index": fun.old_index,
            "old_uniq": fun.old_uniq,
            "pid": pid(&fun.pid),
            "free": values(&fun.free),
        }}),
        Term::Record(record) => {
            let fields = record.fields.iter().map(|(name, of)| json!([name.as_str(), value(of)]));
            json!({ "record": {
                "module": record.module.as_str(),
                "name": record.name.as_str(),
                "exported": record.exported,
                "fields": fields.collect::<Vec<_>>(),
            }})
        }
        // A kind of term that this mapping does not know yet.
        other => json!({ "term": other.to_string() }),
    }
}

fn values(terms: &[Term]) -> Value {
    terms.iter().map(value).collect()
}

fn pid(pid: &Pid) -> Value {
    with_node(&pid.node, json!({ "id": pid.id, "serial": pid.serial }))
}

fn with_node(node: &Node, mut of: Value) -> Value {
    of["node"] = json!(node.name().as_str());
    of["creation"] = json!(node.creation());
    of
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshx_etf::text::parse;

    #[test]
    fn terms_of_every_kind_have_json_of_their_own() {
        for (term, json) in [
            ("1", "1"),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("9007199254740991", "9007199254740991"),
            ("9007199254740992", r#"{"int":"9007199254740992"}"#),
            ("-18446744073709551616", r#"{"int":"-18446744073709551616"}"#),
            ("true", "true"),
            ("ok", r#"{"atom":"ok"}"#),
            ("nil", r#"{"atom":"nil"}"#),
            ("<<\"true\">>", r#""true""#),
            ("<<\"ä\"/utf8>>", r#""ä""#),
            ("<<255>>", r#"{"binary":"/w=="}"#),
            ("<<1,1:3>>", r#"{"bits":"ASA=","size":11}"#),
            ("[]", "[]"),
            ("\"ab\"", "[97,98]"),
            ("[1|a]", r#"{"list":[1],"tail":{"atom":"a"}}"#),
            ("{}", r#"{"tuple":[]}"#),
            ("#{1 => a, b => {}}", r#"{"map":[[1,{"atom":"a"}],[{"atom":"b"},{"tuple":[]}]]}"#),
            ("<n@h.9.1!3>", r#"{"pid":{"creation":3,"id":9,"node":"n@h","serial":1}}"#),
            ("#Port<n@h.9!3>", r#"{"port":{"creation":3,"id":9,"node":"n@h"}}"#),
            ("#Ref<n@h.3.2.1!4>", r#"{"reference":{"creation":4,"node":"n@h","words":[1,2,3]}}"#),
            ("fun m:f/2", r#"{"export":{"arity":2,"function":"f","module":"m"}}"#),
        ] {
            let parsed = parse(term).unwrap_or_else(|error| panic!("{term}: {error}"));
            assert_eq!(value(&parsed).to_string(), json, "{term}");
        }
    }
}
