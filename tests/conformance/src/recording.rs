//! What Consul 1.8.7 was asked and answered, and how an answer is compared with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Answer, Subject};

/// One recorded request and its answer.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Its file, without the ending.
    pub name: String,
    method: String,
    path: String,
    /// The body of the request.
    pub body: Option<Value>,
    status: u16,
    headers: Value,
    /// The body of the answer.
    pub answer: Value,
}

impl Recording {
    /// The recording of this name: `state/…` for one that needs something to be there before.
    pub fn load(name: &str) -> Self {
        Self::read(&folder().join(format!("{name}.json")))
    }

    /// The recordings that need nothing to be there before.
    pub fn of_errors() -> Vec<Self> {
        let files = fs::read_dir(folder()).expect("the recordings");
        let files = files.map(|file| file.expect("a file").path());
        let mut all: Vec<Self> = files
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .map(|path| Self::read(&path))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut all: Value = serde_json::from_str(&text).expect("JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
            method: text(&all["request"]["method"]),
            path: text(&all["request"]["path"]),
            body: Some(all["request"]["body"].take()).filter(|body| !body.is_null()),
            status: all["response"]["status"].as_u64().unwrap_or_default().try_into().unwrap(),
            headers: all["response"]["headers"].take(),
            answer: all["response"]["body"].take(),
        }
    }

    /// Asks the subject the same.
    pub async fn replay(&self, subject: &Subject) -> Answer {
        subject.ask(&self.method, &self.path, self.body.as_ref()).await
    }

    /// Whether an answer says what was recorded: status, type, text or shape, and `Allow`.
    pub fn matches(&self, answer: &Answer) -> Result<(), String> {
        let name = &self.name;
        if answer.status != self.status {
            return Err(format!("{name}: {} {}, not {}", answer.status, answer.body, self.status));
        }
        for header in ["Content-Type", "Allow", "Vary", "X-Consul-Reason"] {
            let recorded = self.headers[header].as_str();
            if answer.header(header) != recorded {
                let have = answer.header(header);
                return Err(format!("{name}: {header} is {have:?}, not {recorded:?}"));
            }
        }
        match &self.answer {
            Value::String(text) if answer.json().is_null() || !text.is_empty() => {
                if answer.body == *text || answer.json() == self.answer {
                    Ok(())
                } else {
                    Err(format!("{name}: {:?}, not {text:?}", answer.body))
                }
            }
            recorded => like(recorded, &answer.json()).map_err(|e| format!("{name}: {e}")),
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// Keys whose values are of one run: only their type is compared.
const OF_ONE_RUN: &[&str] = &[
    "CreateIndex",
    "ModifyIndex",
    "ContentHash",
    "Hash",
    "CreatedAt",
    "UpdatedAt",
    "SerialNumber",
    "SigningKeyID",
    "NotBefore",
    "NotAfter",
    "RootCert",
    "ActiveRootID",
    "TrustDomain",
    "ExternalTrustDomain",
    "CertPEM",
    "PrivateKeyPEM",
    "ServiceURI",
    "ValidAfter",
    "ValidBefore",
    "id",
    "port",
    "wan_join_port",
    "Height",
];

/// Whether an answer has the shape and the values of the recorded one. The error says where not.
pub fn like(recorded: &Value, answer: &Value) -> Result<(), String> {
    compare("", recorded, answer)
}

fn compare(at: &str, recorded: &Value, answer: &Value) -> Result<(), String> {
    match (recorded, answer) {
        (Value::Object(recorded), Value::Object(answer)) => {
            let keys = |map: &serde_json::Map<String, Value>| -> BTreeSet<String> {
                map.keys().cloned().collect()
            };
            let (want, have) = (keys(recorded), keys(answer));
            if want != have {
                let lacks: Vec<_> = want.difference(&have).collect();
                let extra: Vec<_> = have.difference(&want).collect();
                return Err(format!("{at}: lacks {lacks:?}, has {extra:?} as well"));
            }
            for (key, value) in recorded {
                let at = format!("{at}/{key}");
                if is_of_one_run(key, recorded) {
                    same_type(&at, value, &answer[key])?;
                } else {
                    compare(&at, value, &answer[key])?;
                }
            }
            Ok(())
        }
        (Value::Array(recorded), Value::Array(answer)) => {
            if recorded.len() != answer.len() {
                return Err(format!("{at}: {} items, not {}", answer.len(), recorded.len()));
            }
            for (number, (recorded, answer)) in recorded.iter().zip(answer).enumerate() {
                compare(&format!("{at}/{number}"), recorded, answer)?;
            }
            Ok(())
        }
        (recorded, answer) if recorded == answer => Ok(()),
        (recorded, answer) => Err(format!("{at}: {answer}, not {recorded}")),
    }
}

fn is_of_one_run(key: &str, object: &serde_json::Map<String, Value>) -> bool {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let is_uuid = |text: &str| text.len() == 36 && text.matches('-').count() == 4;
    match key {
        "ID" => is_uuid(text("ID")) || text("ID").contains(':'),
        // The name of a root, and where a server listens.
        "Name" => text("Name").ends_with("CA Root Cert"),
        "Port" => text("Service") == "consul" || object.contains_key("ProtocolCur"),
        // A probe has its own pace.
        "Output" => text("Type") == "tcp",
        _ => OF_ONE_RUN.contains(&key),
    }
}

fn same_type(at: &str, recorded: &Value, answer: &Value) -> Result<(), String> {
    if std::mem::discriminant(recorded) == std::mem::discriminant(answer) {
        return Ok(());
    }
    Err(format!("{at}: {answer}, which is not of the type of {recorded}"))
}
