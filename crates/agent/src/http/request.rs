//! A request, decoded once.

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::refusal::Refusal;

/// A request whose path and query are decoded.
///
/// The whole path is decoded before it is matched, as Go does: `n1%40h` and `n1@h`, `a%2Fb` and `a/b`
/// are the same.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The parameters of a request, in their order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b&c=x%20y+z`.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| Refusal::bad("The query is not UTF-8"))
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The first value of a parameter; empty when it was given without one.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The first value, when there is one that is not empty.
    pub(crate) fn filled(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// True when the parameter is there, whatever its value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A flag: absent is false, `?passing` is true, else Go's words for booleans.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, Refusal> {
        match self.get(key) {
            None => Ok(false),
            Some("") => Ok(true),
            Some(word) => {
                go_bool(word).ok_or_else(|| Refusal::bad(format!("Invalid value for ?{key}")))
            }
        }
    }
}

/// Go's `strconv.ParseBool`.
pub(crate) fn go_bool(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The decoded path.
pub(crate) fn decode_path(raw: &str) -> Result<String, Refusal> {
    percent_decode_str(raw)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Refusal::bad("The path is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("passing&tag=a%2Fb&tag=c+d&dc=&x=1=2").unwrap();
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a/b", "c d"]);
        assert_eq!(
            (query.get("dc"), query.filled("dc"), query.get("x")),
            (Some(""), None, Some("1=2"))
        );
        assert_eq!(query.flag("passing"), Ok(true));
        assert_eq!(query.flag("absent"), Ok(false));
        assert_eq!(
            Query::parse("passing=abc").unwrap().flag("passing").unwrap_err().text,
            "Invalid value for ?passing"
        );
        assert!(Query::parse("a=%ff").is_err());
        assert_eq!(decode_path("/v1/n1%40h%3A5/a%2Fb").unwrap(), "/v1/n1@h:5/a/b");
    }
}
