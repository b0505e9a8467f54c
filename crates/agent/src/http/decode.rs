//! Reading request bodies as Consul 1.8.7 reads them.
//!
//! Keys are accepted in any case, and with underscores where Consul takes them so. A key that is
//! not known is refused with Consul's text. Only the first JSON value of a body counts.

use meshx_consul_api::GoDuration;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The keys of an object.
#[derive(Debug)]
pub(crate) struct Schema {
    fields: &'static [(&'static str, Field)],
    /// Keys may have underscores.
    is_snake: bool,
    /// Keys that are not known are left out, not refused.
    is_lenient: bool,
}

/// What stands under a key.
#[derive(Debug)]
enum Field {
    /// A plain value, or one whose keys are the client's own.
    Plain,
    /// A duration.
    Time,
    /// Known to Consul, of no meaning here.
    Ignored,
    /// An object.
    Object(&'static Schema),
    /// A list of objects.
    List(&'static Schema),
    /// A map whose keys are the client's own, to objects.
    Map(&'static Schema),
}

use Field::{Ignored, List, Object, Plain, Time};

/// Reads a body. The error is what Consul says after `Request decode failed: `.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8], schema: &Schema) -> Result<T, String> {
    typed(read(body, schema)?)
}

/// Reads a body whose keys have become those of the schema.
pub(crate) fn read(body: &[u8], schema: &Schema) -> Result<Value, String> {
    let first = serde_json::Deserializer::from_slice(body).into_iter::<Value>().next();
    let value = match first {
        None => return Err("EOF".to_owned()),
        Some(Err(error)) if error.is_eof() => return Err("unexpected EOF".to_owned()),
        Some(Err(error)) => return Err(error.to_string()),
        Some(Ok(value)) => value,
    };
    match value {
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(map) => normalise(map, schema).map(Value::Object),
        _ => Err("json: cannot unmarshal a value that is not an object".to_owned()),
    }
}

/// The value as its type.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("json: {error}"))
}

fn normalise(map: Map<String, Value>, schema: &Schema) -> Result<Map<String, Value>, String> {
    let mut known = Map::new();
    for (key, value) in map {
        let folded: String = match schema.is_snake {
            true => key.chars().filter(|c| *c != '_').collect(),
            false => key.clone(),
        };
        let field = schema.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(&folded));
        let Some((name, field)) = field else {
            if schema.is_lenient {
                continue;
            }
            return Err(format!("json: unknown field \"{key}\""));
        };
        let value = match (field, value) {
            (Ignored, _) | (_, Value::Null) => continue,
            (Object(schema), Value::Object(map)) => Value::Object(normalise(map, schema)?),
            (List(schema), Value::Array(items)) => Value::Array(
                items.into_iter().map(|item| inner(item, schema)).collect::<Result<_, _>>()?,
            ),
            (Field::Map(schema), Value::Object(map)) => Value::Object(
                map.into_iter()
                    .map(|(key, item)| Ok((key, inner(item, schema)?)))
                    .collect::<Result<_, String>>()?,
            ),
            (Time, Value::String(text)) => {
                let time = text.strip_prefix('-').unwrap_or(&text);
                if !text.is_empty() && time.parse::<GoDuration>().is_err() {
                    return Err(format!("time: invalid duration \"{text}\""));
                }
                // A negative duration is as good as zero: what needs one is refused for lacking it.
                Value::String(if text.starts_with('-') { "0s".to_owned() } else { text })
            }
            (_, value) => value,
        };
        known.insert((*name).to_owned(), value);
    }
    Ok(known)
}

fn inner(value: Value, schema: &Schema) -> Result<Value, String> {
    match value {
        Value::Object(map) => normalise(map, schema).map(Value::Object),
        other => Ok(other),
    }
}

const fn exact(fields: &'static [(&'static str, Field)]) -> Schema {
    Schema { fields, is_snake: false, is_lenient: false }
}

const fn snake(fields: &'static [(&'static str, Field)]) -> Schema {
    Schema { fields, is_snake: true, is_lenient: false }
}

/// `PUT /v1/agent/service/register`.
pub(crate) static SERVICE: Schema = snake(&[
    ("Kind", Plain),
    ("ID", Plain),
    ("Name", Plain),
    ("Tags", Plain),
    ("Address", Plain),
    ("TaggedAddresses", Field::Map(&SERVICE_ADDRESS)),
    ("Meta", Plain),
    ("Port", Plain),
    ("Check", Object(&CHECK)),
    ("Checks", List(&CHECK)),
    ("Weights", Object(&WEIGHTS)),
    ("Token", Ignored),
    ("EnableTagOverride", Plain),
    ("Proxy", Object(&PROXY)),
    ("Connect", Object(&CONNECT)),
]);

static SERVICE_ADDRESS: Schema = exact(&[("Address", Plain), ("Port", Plain)]);

static WEIGHTS: Schema = exact(&[("Passing", Plain), ("Warning", Plain)]);

static CONNECT: Schema = Schema {
    fields: &[("Native", Plain), ("SidecarService", Object(&SERVICE))],
    is_snake: true,
    is_lenient: true,
};

static PROXY: Schema = snake(&[
    ("DestinationServiceName", Plain),
    ("DestinationServiceID", Plain),
    ("LocalServiceAddress", Plain),
    ("LocalServicePort", Plain),
    ("Config", Plain),
    ("Upstreams", List(&UPSTREAM)),
    ("MeshGateway", Plain),
    ("Expose", Plain),
]);

static UPSTREAM: Schema = snake(&[
    ("DestinationType", Plain),
    ("DestinationNamespace", Plain),
    ("DestinationName", Plain),
    ("Datacenter", Plain),
    ("LocalBindAddress", Plain),
    ("LocalBindPort", Plain),
    ("Config", Plain),
    ("MeshGateway", Plain),
]);

static CHECK: Schema = snake(&[
    ("CheckID", Plain),
    ("Name", Plain),
    ("Status", Plain),
    ("Notes", Plain),
    ("ScriptArgs", Plain),
    ("Args", Plain),
    ("HTTP", Plain),
    ("Header", Plain),
    ("Method", Plain),
    ("Body", Plain),
    ("TCP", Plain),
    ("Interval", Time),
    ("AliasNode", Plain),
    ("AliasService", Plain),
    ("DockerContainerID", Ignored),
    ("Shell", Ignored),
    ("GRPC", Plain),
    ("GRPCUseTLS", Ignored),
    ("TLSSkipVerify", Plain),
    ("Timeout", Time),
    ("TTL", Time),
    ("SuccessBeforePassing", Plain),
    ("FailuresBeforeCritical", Plain),
    ("ProxyHTTP", Ignored),
    ("ProxyGRPC", Ignored),
    ("DeregisterCriticalServiceAfter", Time),
    ("OutputMaxSize", Ignored),
]);

/// `PUT /v1/agent/check/register`.
pub(crate) static AGENT_CHECK: Schema = snake(&[
    ("ID", Plain),
    ("CheckID", Plain),
    ("Name", Plain),
    ("Notes", Plain),
    ("ServiceID", Plain),
    ("Token", Ignored),
    ("Status", Plain),
    ("ScriptArgs", Plain),
    ("Args", Plain),
    ("HTTP", Plain),
    ("Header", Plain),
    ("Method", Plain),
    ("Body", Plain),
    ("TCP", Plain),
    ("Interval", Time),
    ("AliasNode", Plain),
    ("AliasService", Plain),
    ("DockerContainerID", Ignored),
    ("Shell", Ignored),
    ("GRPC", Plain),
    ("GRPCUseTLS", Ignored),
    ("TLSSkipVerify", Plain),
    ("Timeout", Time),
    ("TTL", Time),
    ("SuccessBeforePassing", Plain),
    ("FailuresBeforeCritical", Plain),
    ("DeregisterCriticalServiceAfter", Time),
    ("OutputMaxSize", Ignored),
]);

/// `PUT /v1/agent/check/update/:id`.
pub(crate) static CHECK_UPDATE: Schema = exact(&[("Status", Plain), ("Output", Plain)]);

/// An intention, as clients of every version write it.
pub(crate) static INTENTION: Schema = exact(&[
    ("ID", Plain),
    ("Description", Plain),
    ("SourceNS", Plain),
    ("SourceName", Plain),
    ("DestinationNS", Plain),
    ("DestinationName", Plain),
    ("SourceType", Plain),
    ("Action", Plain),
    ("DefaultAddr", Ignored),
    ("DefaultPort", Ignored),
    ("Meta", Plain),
    ("Precedence", Ignored),
    ("CreatedAt", Ignored),
    ("UpdatedAt", Ignored),
    ("Hash", Ignored),
    ("CreateIndex", Ignored),
    ("ModifyIndex", Ignored),
    ("Permissions", Plain),
]);

/// `POST /v1/agent/connect/authorize`.
pub(crate) static AUTHORIZE: Schema =
    exact(&[("Target", Plain), ("ClientCertURI", Plain), ("ClientCertSerial", Plain)]);

/// `PUT /v1/connect/ca/configuration`.
pub(crate) static CA_CONFIGURATION: Schema = exact(&[
    ("Provider", Plain),
    ("Config", Plain),
    ("State", Ignored),
    ("ForceWithoutCrossSigning", Plain),
    ("CreateIndex", Ignored),
    ("ModifyIndex", Ignored),
]);

/// `PUT /v1/catalog/register`.
pub(crate) static CATALOG_REGISTRATION: Schema = exact(&[
    ("Datacenter", Plain),
    ("ID", Plain),
    ("Node", Plain),
    ("Address", Plain),
    ("TaggedAddresses", Plain),
    ("NodeMeta", Plain),
    ("Service", Object(&NODE_SERVICE)),
    ("Check", Object(&HEALTH_CHECK)),
    ("Checks", List(&HEALTH_CHECK)),
    ("SkipNodeUpdate", Plain),
    ("WriteRequest", Ignored),
]);

static NODE_SERVICE: Schema = exact(&[
    ("Kind", Plain),
    ("ID", Plain),
    ("Service", Plain),
    ("Tags", Plain),
    ("Address", Plain),
    ("TaggedAddresses", Field::Map(&SERVICE_ADDRESS)),
    ("Meta", Plain),
    ("Port", Plain),
    ("Weights", Object(&WEIGHTS)),
    ("EnableTagOverride", Plain),
    ("Proxy", Object(&PROXY)),
    ("Connect", Plain),
    ("CreateIndex", Ignored),
    ("ModifyIndex", Ignored),
]);

static HEALTH_CHECK: Schema = exact(&[
    ("Node", Plain),
    ("CheckID", Plain),
    ("Name", Plain),
    ("Status", Plain),
    ("Notes", Plain),
    ("Output", Plain),
    ("ServiceID", Plain),
    ("ServiceName", Ignored),
    ("ServiceTags", Ignored),
    ("Type", Ignored),
    ("Definition", Plain),
    ("CreateIndex", Ignored),
    ("ModifyIndex", Ignored),
]);

/// `PUT /v1/catalog/deregister`.
pub(crate) static CATALOG_DEREGISTRATION: Schema = exact(&[
    ("Datacenter", Plain),
    ("Node", Plain),
    ("ServiceID", Plain),
    ("CheckID", Plain),
    ("WriteRequest", Ignored),
]);

#[cfg(test)]
mod tests {
    use meshx_consul_api::{AgentServiceRegistration, IntentionDefinition};
    use proptest::prelude::*;

    use super::*;

    fn service(body: &str) -> Result<AgentServiceRegistration, String> {
        decode(body.as_bytes(), &SERVICE)
    }

    #[test]
    fn keys_come_in_any_case() {
        let snake = service(
            r#"{"name":"snk","port":5,"enable_tag_override":true,
                "tagged_addresses":{"lan":{"address":"1.2.3.4","port":9}},
                "connect":{"sidecar_service":{"proxy":{"upstreams":[
                    {"destination_name":"echo","local_bind_port":3334}]}}},
                "check":{"ttl":"5s","deregister_critical_service_after":"1m"}} trailing"#,
        )
        .unwrap();
        assert!(snake.enable_tag_override);
        assert_eq!(snake.tagged_addresses["lan"].port, 9);
        let sidecar = snake.connect.unwrap().sidecar_service.unwrap();
        assert_eq!(sidecar.proxy.unwrap().upstreams[0].local_bind_port, 3334);
        assert_eq!(snake.check.unwrap().ttl.unwrap().to_string(), "5s");
    }

    #[test]
    fn unknown_keys_are_refused_in_consuls_words() {
        for body in [
            r#"{"Name":"x","Bogus":1}"#,
            r#"{"Name":"x","Check":{"TTL":"5s","Bogus":1}}"#,
            r#"{"Connect":{"SidecarService":{"Proxy":{"Upstreams":[{"Bogus":1}]}}}}"#,
            r#"{"TaggedAddresses":{"lan":{"Bogus":1}}}"#,
        ] {
            assert_eq!(service(body).unwrap_err(), "json: unknown field \"Bogus\"", "{body}");
        }
        assert!(service(r#"{"Connect":{"Bogus":1},"Meta":{"Bogus":"1"}}"#).is_ok());
        let intention = decode::<IntentionDefinition>(br#"{"source_name":"s"}"#, &INTENTION);
        assert_eq!(intention.unwrap_err(), "json: unknown field \"source_name\"");
    }

    #[test]
    fn broken_bodies_are_named() {
        assert_eq!(service("").unwrap_err(), "EOF");
        assert_eq!(service("{\"Name\":").unwrap_err(), "unexpected EOF");
        assert_eq!(
            service(r#"{"Check":{"TTL":"abc"}}"#).unwrap_err(),
            "time: invalid duration \"abc\""
        );
        assert!(service("null").unwrap().name.is_empty());
        for bad in ["[]", "\"s\"", "{bad", r#"{"Name":5}"#, r#"{"Port":"80"}"#, r#"{"Port":-1}"#] {
            assert!(service(bad).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(service(&format!("{{\"Meta\":{deep}")).is_err());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = decode::<AgentServiceRegistration>(&body, &SERVICE);
        }
    }
}
