//! Requests that a browser makes on behalf of a page that is not ours.
//!
//! The API has no tokens, so whoever reaches it may write and may have private keys. A page of
//! another site reaches it through the browser of somebody on this machine: directly, and then the
//! browser says so in `Origin`; or under a name of the page's own site that it lets point here (DNS
//! rebinding), and then that name is in `Host`.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, ORIGIN};
use hyper::{StatusCode, Uri};

use crate::refusal::Refusal;

/// The names of loopback in the usual hosts files.
const LOOPBACK: [&str; 4] = ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"];

/// The hosts that a request may be addressed to.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Nobody but this machine is meant to ask.
    is_loopback: bool,
    node: String,
    addresses: [IpAddr; 2],
}

impl Site {
    /// The site of an agent that listens on `http`.
    pub(crate) fn new(http: SocketAddr, advertise: IpAddr, node: &str) -> Self {
        Self {
            is_loopback: http.ip().to_canonical().is_loopback(),
            node: node.to_ascii_lowercase(),
            addresses: [http.ip().to_canonical(), advertise.to_canonical()],
        }
    }

    /// Refuses a request with 403 when a page of another site may have made it.
    ///
    /// Bound to loopback, the agent answers to the names and addresses of loopback, its own address,
    /// the advertised one and the name of its node. Bound to another address it cannot know its
    /// names; then only `Origin` is looked at. A request without `Host` is answered: browsers always
    /// send one.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = Vec::new();
        for value in headers.get_all(HOST) {
            let host = value.to_str().map_err(|_| foreign_host())?;
            if !host.is_empty() {
                hosts.push(host);
            }
        }
        // `GET http://host/path`: the form that proxies are asked in (RFC 9112 §3.2.2).
        hosts.extend(uri.authority().map(hyper::http::uri::Authority::as_str));
        if self.is_loopback && !hosts.iter().all(|host| self.is_ours(host)) {
            return Err(foreign_host());
        }
        for origin in headers.get_all(ORIGIN) {
            let page = origin.to_str().ok().and_then(page);
            let is_page = |host: &&str| page.is_some_and(|page| is_same(page, host));
            if hosts.is_empty() || !hosts.iter().all(is_page) {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "A page of another site may not ask this agent (see the header Origin)",
                ));
            }
        }
        Ok(())
    }

    fn is_ours(&self, host: &str) -> bool {
        let Some((name, _)) = split(host) else { return false };
        if let Ok(address) = name.parse::<IpAddr>() {
            let address = address.to_canonical();
            return address.is_loopback() || self.addresses.contains(&address);
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == self.node || LOOPBACK.contains(&name.as_str())
    }
}

fn foreign_host() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "This agent serves this machine alone: it answers to localhost, its own addresses and the \
         name of its node, not to the header Host of this request (a page of another site could \
         have sent it)",
    )
}

/// Host and port of `host:port`, `host`, `[v6]:port`, `[v6]`.
fn split(host: &str) -> Option<(&str, &str)> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port,
        None if rest.is_empty() => "",
        None => return None,
    };
    port.bytes().all(|b| b.is_ascii_digit()).then_some((name, port))
}

/// Host and port in the `Origin` of a page.
fn page(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

fn is_same(page: &str, host: &str) -> bool {
    let (Some((page, page_port)), Some((host, host_port))) = (split(page), split(host)) else {
        return false;
    };
    let port = |port: &str| if port.is_empty() { "80".to_owned() } else { port.to_owned() };
    page.eq_ignore_ascii_case(host) && port(page_port) == port(host_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(listens: &str, headers: &[(&str, &str)], uri: &str) -> bool {
        let site = Site::new(listens.parse().unwrap(), [192, 0, 2, 7].into(), "Laptop");
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<hyper::header::HeaderName>().unwrap(), value.parse().unwrap())
        });
        site.check(&uri.parse().unwrap(), &headers.collect()).is_ok()
    }

    const HERE: &str = "127.0.0.1:8500";

    #[test]
    fn only_names_of_this_machine_are_answered_on_loopback() {
        for host in [
            "localhost:8500",
            "LOCALHOST",
            "localhost.:8500",
            "127.0.0.1:8500",
            "127.0.0.1",
            "127.1.2.3:1",
            "[::1]:8500",
            "[::ffff:127.0.0.1]:8500",
            "192.0.2.7:8500",
            "laptop:8500",
            "ip6-localhost:8500",
            "",
        ] {
            assert!(verdict(HERE, &[("host", host)], "/"), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8500",
            "localhost.evil.example",
            "192.0.2.8:8500",
            "0.0.0.0:8500",
            "[::]:8500",
            "localhost:80@evil",
            "evil@localhost",
            "[::1",
            "[::1]x",
            "localhost:x",
            "127.0.0.1.evil.example",
            ":8500",
        ] {
            assert!(!verdict(HERE, &[("host", host)], "/"), "{host}");
            assert!(verdict("0.0.0.0:8500", &[("host", host)], "/"), "its names are unknown");
        }
        assert!(verdict(HERE, &[], "/"), "HTTP/1.0 has no Host");
        assert!(!verdict(HERE, &[("host", "localhost"), ("host", "evil.example")], "/"));
        assert!(!verdict(HERE, &[("host", "localhost")], "http://evil.example/v1/x"));
        assert!(verdict(HERE, &[("host", "localhost")], "http://localhost:8500/v1/x"));
    }

    #[test]
    fn pages_of_other_sites_are_refused_everywhere() {
        for listens in [HERE, "0.0.0.0:8500", "192.0.2.7:8500"] {
            let asks = |origin: &str| {
                verdict(listens, &[("host", "localhost:8500"), ("origin", origin)], "/")
            };
            assert!(asks("http://localhost:8500") && asks("http://LOCALHOST:8500"));
            for origin in [
                "https://evil.example",
                "http://localhost",
                "http://localhost:8501",
                "null",
                "",
                "http://127.0.0.1:8500",
                "file://localhost:8500",
                "http://localhost:8500/x",
                "http://localhost:8500.evil.example",
            ] {
                assert!(!asks(origin), "{origin}");
            }
            assert!(!verdict(listens, &[("origin", "http://localhost")], "/"), "no Host");
        }
        let (host, page) = (("host", "localhost"), ("origin", "http://localhost:80"));
        assert!(verdict(HERE, &[host, page], "/"));
        assert!(!verdict(HERE, &[host, page, ("origin", "http://evil.example")], "/"));
    }
}
