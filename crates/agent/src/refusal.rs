//! Why a request is refused, in Consul's words.

use hyper::StatusCode;

/// A refusal: a status and one plain sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// 400: the client must change its request.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 404.
    pub(crate) fn missing(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// 500: what Consul says about everything that its RPC layer refuses, wrong requests included.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// A bound of the agent was reached.
    pub(crate) fn full(what: &str, limit: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the embedded agent holds at most {limit} {what}"),
        )
    }

    /// The same with Consul's prefix of the Connect endpoints.
    pub(crate) fn prefixed(mut self, prefix: &str) -> Self {
        self.text.insert_str(0, prefix);
        self
    }
}

/// The text of Go's `go-multierror` for these problems.
pub(crate) fn several(problems: &[String]) -> String {
    use std::fmt::Write as _;
    let mut text = match problems.len() {
        1 => "1 error occurred:\n".to_owned(),
        count => format!("{count} errors occurred:\n"),
    };
    for problem in problems {
        let _infallible = writeln!(text, "\t* {problem}");
    }
    text.push('\n');
    text
}
