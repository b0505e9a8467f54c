//! Upstreams as they are asked for, and as the program learns of them.

use std::net::SocketAddr;
use std::str::FromStr;

use meshx_core::{NameError, ServiceName, Upstream};

/// `SERVICE` or `SERVICE:PORT`: a service to reach, and the loopback port to reach it at.
///
/// ```
/// use meshx_workload::UpstreamSpec;
/// let spec: UpstreamSpec = "db:5432".parse()?;
/// assert_eq!((spec.destination.as_str(), spec.port), ("db", Some(5432)));
/// # Ok::<(), meshx_core::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpstreamSpec {
    /// The service.
    pub destination: ServiceName,
    /// The port on 127.0.0.1; `None` takes a free one.
    pub port: Option<u16>,
}

impl UpstreamSpec {
    /// As the mesh wants it.
    pub fn upstream(&self) -> Upstream {
        let bind = self.port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Upstream { destination: self.destination.clone(), bind }
    }
}

impl FromStr for UpstreamSpec {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // In `a@fdaa::3` the last colon is part of the address.
        let is_address =
            text.split_once('@').is_some_and(|(_, host)| host.matches(':').count() > 1);
        match text.rsplit_once(':') {
            Some((name, port)) if !is_address && port.parse::<u16>().is_ok() => {
                Ok(Self { destination: name.parse()?, port: port.parse().ok() })
            }
            Some(_) if !is_address => {
                Err(NameError::new("upstream", text, "after the last `:` stands no port"))
            }
            _ => Ok(Self { destination: text.parse()?, port: None }),
        }
    }
}

/// The variables that tell a program where its upstream is: `MESHX_UPSTREAM_<NAME>`, and Nomad's
/// `NOMAD_UPSTREAM_{ADDR,IP,PORT}_<NAME>`, so that programs written for Nomad's sidecars run
/// unchanged. In `<NAME>`, whatever is not a letter or digit is `_`; ours exists in upper case too.
pub fn variables(destination: &ServiceName, local: SocketAddr) -> Vec<(String, String)> {
    let name: String = destination
        .as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let mut variables = vec![
        (format!("NOMAD_UPSTREAM_ADDR_{name}"), local.to_string()),
        (format!("NOMAD_UPSTREAM_IP_{name}"), local.ip().to_string()),
        (format!("NOMAD_UPSTREAM_PORT_{name}"), local.port().to_string()),
        (format!("MESHX_UPSTREAM_{name}"), local.to_string()),
    ];
    let upper = name.to_ascii_uppercase();
    if upper != name {
        variables.push((format!("MESHX_UPSTREAM_{upper}"), local.to_string()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_colon_is_the_ports() {
        let parse = |text: &str| {
            let spec: UpstreamSpec = text.parse().unwrap();
            (spec.destination.to_string(), spec.port)
        };
        assert_eq!(parse("db"), ("db".to_owned(), None));
        assert_eq!(parse("db:5432"), ("db".to_owned(), Some(5432)));
        assert_eq!(parse("a@h:1"), ("a@h".to_owned(), Some(1)));
        assert_eq!(parse("a@fdaa::3"), ("a@fdaa::3".to_owned(), None));
        for bad in ["", "db:db", "db:", "db:99999"] {
            assert!(bad.parse::<UpstreamSpec>().is_err(), "{bad}");
        }
    }
}
