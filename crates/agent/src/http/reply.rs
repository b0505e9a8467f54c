//! A reply, and the headers that Consul's clients rely on.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use meshx_core::Action;
use serde::Serialize;

use crate::refusal::Refusal;

/// A reply to one request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// Consul says `Vary` about everything but paths that it does not know.
    has_vary: bool,
}

/// How fresh the answer to a catalog or health query is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Consistency {
    #[default]
    Leader,
    Stale,
    Consistent,
}

impl Consistency {
    fn word(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Stale => "stale",
            Self::Consistent => "consistent",
        }
    }
}

impl Reply {
    fn new(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Self {
        let headers =
            if kind.is_empty() { Vec::new() } else { vec![("content-type", kind.to_owned())] };
        Self { status, headers, body: body.into(), has_vary: true }
    }

    /// 200 and nothing else.
    pub(crate) fn empty() -> Self {
        Self::new(StatusCode::OK, "", Bytes::new())
    }

    /// JSON.
    pub(crate) fn json<T: Serialize + ?Sized>(value: &T, is_pretty: bool) -> Result<Self, Refusal> {
        let body =
            if is_pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
        let mut body = body.map_err(|error| Refusal::internal(error.to_string()))?;
        if is_pretty {
            body.push(b'\n');
        }
        Ok(Self::new(StatusCode::OK, "application/json", body))
    }

    /// Text of this type.
    pub(crate) fn text(status: StatusCode, kind: &str, text: impl Into<String>) -> Self {
        Self::new(status, kind, text.into())
    }

    /// A path that nobody knows: 404 and nothing else.
    pub(crate) fn unknown_path() -> Self {
        Self { has_vary: false, ..Self::new(StatusCode::NOT_FOUND, "", Bytes::new()) }
    }

    /// With this status.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With this header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With the index of the result set and what goes with it.
    pub(crate) fn indexed(self, index: u64, default: Action) -> Self {
        self.header("x-consul-index", index.to_string())
            .header("x-consul-knownleader", "true")
            .header("x-consul-lastcontact", "0")
            .header("x-consul-default-acl-policy", default.to_string())
    }

    /// With the consistency of a catalog or health query.
    pub(crate) fn consistency(self, consistency: Consistency) -> Self {
        self.header("x-consul-effective-consistency", consistency.word())
    }

    /// With the marks of Consul's agent cache; the age is that of what was in it.
    pub(crate) fn cached(self, age: Option<u64>) -> Self {
        match age {
            Some(age) => self.header("x-cache", "HIT").header("age", age.to_string()),
            None => self.header("x-cache", "MISS"),
        }
    }

    /// The reply on the wire.
    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.has_vary {
            headers.insert("vary", HeaderValue::from_static("Accept-Encoding"));
        }
        for (name, value) in self.headers {
            // A reason may repeat a name of the client's: what no header may hold is left out.
            let value: String = value.chars().filter(|c| !c.is_control()).take(1024).collect();
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::text(refusal.status, "text/plain; charset=utf-8", refusal.text)
    }
}
