//! Where the control plane is and how to talk to it, from Consul's own variables.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::ConsulError;

/// Where the agent listens when nothing is said, as for Consul's own tools.
const DEFAULT: &str = "127.0.0.1:8500";

/// Where the control plane listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// Plain HTTP or HTTPS.
    Tcp {
        /// `host:port`.
        authority: String,
        /// HTTPS.
        tls: bool,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { authority, tls: false } => write!(f, "http://{authority}"),
            Self::Tcp { authority, tls: true } => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A secret that is never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Files for HTTPS.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsFiles {
    /// PEM bundle of authorities (`CONSUL_CACERT`), or a folder of them (`CONSUL_CAPATH`); without
    /// either, the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate (`CONSUL_CLIENT_CERT`).
    pub client_cert: Option<PathBuf>,
    /// Client key (`CONSUL_CLIENT_KEY`).
    pub client_key: Option<PathBuf>,
    /// The name that the certificate must carry (`CONSUL_TLS_SERVER_NAME`).
    pub server_name: Option<String>,
}

/// How to reach the control plane.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where.
    pub address: Address,
    /// The ACL token itself (`CONSUL_HTTP_TOKEN`).
    pub token: Option<Secret>,
    /// A file that holds the ACL token (`CONSUL_HTTP_TOKEN_FILE`); read at each request, so that it
    /// may be replaced. Wins over `token`, as in Consul's own client.
    pub token_file: Option<PathBuf>,
    /// `user:password` of a proxy in front (`CONSUL_HTTP_AUTH`).
    pub auth: Option<Secret>,
    /// Files for HTTPS.
    pub tls: TlsFiles,
}

impl Config {
    /// An agent at `address`: `host:port`, `http://…`, `https://…` or `unix:///path`.
    pub fn at(address: &str) -> Result<Self, ConsulError> {
        let address = parse_address(address, false)?;
        Ok(Self { address, token: None, token_file: None, auth: None, tls: TlsFiles::default() })
    }

    /// Reads Consul's variables through `variable`, which is `std::env::var` outside of tests.
    ///
    /// ```
    /// use meshx_consul::Config;
    /// let config = Config::from_variables(|name| match name {
    ///     "CONSUL_HTTP_ADDR" => Some("unix:///run/consul/http.sock".to_owned()),
    ///     _ => None,
    /// })?;
    /// assert_eq!(config.address.to_string(), "unix:///run/consul/http.sock");
    /// # Ok::<(), meshx_consul::ConsulError>(())
    /// ```
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConsulError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let ssl = match get("CONSUL_HTTP_SSL") {
            Some(text) => parse_bool("CONSUL_HTTP_SSL", &text)?,
            None => false,
        };
        if let Some(text) = get("CONSUL_HTTP_SSL_VERIFY")
            && !parse_bool("CONSUL_HTTP_SSL_VERIFY", &text)?
        {
            return Err(ConsulError::Config {
                setting: "CONSUL_HTTP_SSL_VERIFY=false".to_owned(),
                reason: "certificates of the control plane are always verified".to_owned(),
                hint: Some("name its authority in CONSUL_CACERT instead".to_owned()),
            });
        }
        for name in ["CONSUL_NAMESPACE", "CONSUL_PARTITION"] {
            if let Some(value) = get(name).filter(|value| value != "default") {
                return Err(ConsulError::config(
                    &format!("{name}={value}"),
                    "only `default` is supported",
                ));
            }
        }
        let address = get("CONSUL_HTTP_ADDR").unwrap_or_else(|| DEFAULT.to_owned());
        Ok(Self {
            address: parse_address(&address, ssl)?,
            token: get("CONSUL_HTTP_TOKEN").map(Secret::new),
            token_file: get("CONSUL_HTTP_TOKEN_FILE").map(PathBuf::from),
            auth: get("CONSUL_HTTP_AUTH").map(Secret::new),
            tls: TlsFiles {
                ca: get("CONSUL_CACERT").or_else(|| get("CONSUL_CAPATH")).map(PathBuf::from),
                client_cert: get("CONSUL_CLIENT_CERT").map(PathBuf::from),
                client_key: get("CONSUL_CLIENT_KEY").map(PathBuf::from),
                server_name: get("CONSUL_TLS_SERVER_NAME"),
            },
        })
    }
}

fn parse_address(text: &str, ssl: bool) -> Result<Address, ConsulError> {
    // What stands before `@` may be a password.
    let shown = text.rsplit_once('@').map_or(text.to_owned(), |(_, host)| format!("…@{host}"));
    let refuse =
        |reason| Err(ConsulError::config(&format!("control plane address `{shown}`"), reason));
    let (tls, rest) = match text.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => return Ok(Address::Unix(path.into())),
        Some(("unix", _)) => return refuse("a Unix socket needs an absolute path"),
        Some(("http" | "tcp", rest)) => (ssl, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return refuse("use http://, https:// or unix://"),
        None => (ssl, text),
    };
    let authority = rest.trim_end_matches('/');
    if authority.contains('/') {
        return refuse("a path after the port is not supported");
    }
    let authority = if authority.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{authority}]:8500")
    } else if authority.ends_with(']') || !authority.contains(':') {
        format!("{authority}:8500")
    } else {
        authority.to_owned()
    };
    let (host, port) = authority.rsplit_once(':').unwrap_or_default();
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || !host.chars().all(legal) || port.parse::<u16>().is_err() {
        return refuse("write host:port");
    }
    Ok(Address::Tcp { authority, tls })
}

fn parse_bool(name: &str, text: &str) -> Result<bool, ConsulError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(ConsulError::config(&format!("{name}={text}"), "write true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_consuls_tools_read_them() {
        for (text, want) in [
            ("127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("http://h:1/", "http://h:1"),
            ("https://h", "https://h:8500"),
            ("::1", "http://[::1]:8500"),
            ("[::1]:9", "http://[::1]:9"),
            ("unix:///run/x", "unix:///run/x"),
        ] {
            assert_eq!(Config::at(text).unwrap().address.to_string(), want);
        }
        for bad in ["ftp://h", "unix://x", "h:port", "h:99999", "", "a b:1", "h:1/ui"] {
            assert!(Config::at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = Config::from_variables(|name| {
            (name == "CONSUL_HTTP_TOKEN").then(|| "canary-token".to_owned())
        });
        assert!(!format!("{config:?}").contains("canary"));
    }
}
