//! Whether a program listens, without knocking at its door.

use std::net::SocketAddr;
use std::time::Duration;

use meshx_rt::net;

/// TCP state `LISTEN` in `/proc/net/tcp` (proc(5)).
const LISTEN: &str = "0A";

/// True when some socket of this network namespace listens on the port of `address`.
///
/// Read from the kernel's table, so that the program does not see a connection; where there is no
/// such table, by a connection.
pub(crate) async fn listens(address: SocketAddr) -> bool {
    let mut readable = false;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if let Ok(text) = std::fs::read_to_string(table) {
            readable = true;
            if text.lines().skip(1).any(|line| listener_port(line) == Some(address.port())) {
                return true;
            }
        }
    }
    !readable && net::dial(address, Duration::from_millis(500)).await.is_ok()
}

/// The port of a line that describes a listening socket.
fn listener_port(line: &str) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != LISTEN {
        return None;
    }
    u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sees_a_listener_come_and_go() {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listens(address).await);
        drop(listener);
        assert!(!listens(address).await);
    }
}
