//! Whether a program listens, without knocking at its door.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use meshx_rt::net;

/// TCP state `LISTEN` in `/proc/net/tcp` (proc(5)).
const LISTEN: &str = "0A";

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listener {
    /// True when a connection to `address` would reach it.
    fn takes(&self, address: SocketAddr) -> bool {
        let ours = self.address.ip();
        // A socket on `::` takes IPv4 too, unless it was told not to, which cannot be seen here.
        let any =
            ours == Ipv6Addr::UNSPECIFIED || ours == Ipv4Addr::UNSPECIFIED && address.is_ipv4();
        self.address.port() == address.port() && (any || ours.to_canonical() == address.ip())
    }
}

/// The sockets of this network namespace that listen, from the kernel's table (proc(5)); `None`
/// where there is no such table.
pub fn listeners() -> Option<Vec<Listener>> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    if tables.iter().all(Result::is_err) {
        return None;
    }
    let lines = tables.iter().flatten().flat_map(|text| text.lines().skip(1));
    Some(lines.filter_map(listener).collect())
}

/// True when a connection to `address` would be accepted.
///
/// Read from the kernel's table, so that the program does not see a connection; where there is no
/// such table, by a connection.
pub(crate) async fn listens(address: SocketAddr) -> bool {
    match listeners() {
        Some(listeners) => listeners.iter().any(|listener| listener.takes(address)),
        None => net::dial(address, Duration::from_millis(500)).await.is_ok(),
    }
}

/// The listening socket that a line of the table describes.
fn listener(line: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != LISTEN {
        return None;
    }
    let (ip, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, each in the byte order of the machine.
    let words: Vec<u8> = (0..ip.len() / 8)
        .map(|word| u32::from_str_radix(ip.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()?
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let ip = match <[u8; 4]>::try_from(words.as_slice()) {
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(words.as_slice()).ok()?),
    };
    Some(Listener { address: SocketAddr::new(ip, port) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sees_a_listener_come_and_go() {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listens(address).await);
        let other = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port());
        assert!(!listens(other).await, "the address counts, not only the port");
        drop(listener);
        assert!(!listens(address).await);
    }
}
