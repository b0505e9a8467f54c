//! Where a daemon listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

use super::{ADDRESSES_MAX, BindError};

/// Connections that may wait to be accepted, on each address.
const BACKLOG: u32 = 1024;
/// How often port 0 is tried: a port that is free on one address may be taken on another.
const FREE_PORT_TRIES: usize = 16;
/// Debian gives the machine's own name this address, so its nodes are asked for there.
const OWN_NAME: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

/// Listens on loopback and on what is wanted beside. The first listener is the one of IPv4.
///
/// What was not asked for, `::1` and `127.0.1.1`, may be missing on the machine.
pub(super) fn listen(port: u16, wanted: &[IpAddr]) -> Result<Vec<TcpListener>, BindError> {
    let places = places(wanted)?;
    let mut tries = 0;
    loop {
        match listen_at(port, &places) {
            Err(BindError::InUse(_)) if port == 0 && tries < FREE_PORT_TRIES => tries += 1,
            done => return done,
        }
    }
}

fn listen_at(port: u16, places: &[(IpAddr, bool)]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::with_capacity(places.len());
    let mut port = port;
    for &(ip, is_required) in places {
        let address = SocketAddr::new(ip, port);
        match bind(address).and_then(|listener| Ok((listener.local_addr()?.port(), listener))) {
            Ok((bound, listener)) => {
                port = bound;
                listeners.push(listener);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(BindError::InUse(address));
            }
            Err(error) if !is_required => {
                tracing::debug!(%address, %error, "this machine does not have it");
            }
            Err(source) => return Err(BindError::Listen { address, source }),
        }
    }
    Ok(listeners)
}

/// The addresses, each with whether it must be there. An unspecified one replaces all others of its
/// family.
fn places(wanted: &[IpAddr]) -> Result<Vec<(IpAddr, bool)>, BindError> {
    let unspecified = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let [all_v4, all_v6] = unspecified.map(|all| wanted.contains(&all));
    let mut places: Vec<(IpAddr, bool)> = Vec::new();
    let loopback = [
        (IpAddr::V4(Ipv4Addr::LOCALHOST), true),
        (OWN_NAME, false),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), false),
    ];
    let asked = wanted.iter().map(|&ip| (ip, true));
    for (ip, is_required) in loopback.into_iter().chain(asked) {
        let is_covered = if ip.is_ipv4() { all_v4 } else { all_v6 } && !ip.is_unspecified();
        match places.iter_mut().find(|(known, _)| *known == ip) {
            _ if is_covered => {}
            Some((_, required)) => *required |= is_required,
            None => places.push((ip, is_required)),
        }
    }
    places.sort_by_key(|(ip, _)| ip.is_ipv6());
    if places.len() > ADDRESSES_MAX { Err(BindError::TooMany) } else { Ok(places) }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        // `::` must leave IPv4 to the socket beside it.
        SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<IpAddr> = wanted.iter().map(|ip| ip.parse().unwrap()).collect();
        places(&wanted).unwrap().iter().map(|(ip, _)| ip.to_string()).collect()
    }

    #[test]
    fn loopback_is_always_there_and_nothing_twice() {
        assert_eq!(at(&[]), ["127.0.0.1", "127.0.1.1", "::1"]);
        assert_eq!(at(&["127.0.0.1"]), ["127.0.0.1", "127.0.1.1", "::1"]);
        assert_eq!(at(&["192.0.2.7"]), ["127.0.0.1", "127.0.1.1", "192.0.2.7", "::1"]);
        assert_eq!(at(&["0.0.0.0", "192.0.2.7"]), ["0.0.0.0", "::1"]);
        assert_eq!(at(&["0.0.0.0", "::"]), ["0.0.0.0", "::"]);
    }

    #[test]
    fn what_was_asked_for_must_be_there() {
        let places = places(&["::1".parse().unwrap()]).unwrap();
        assert!(places.contains(&(IpAddr::V6(Ipv6Addr::LOCALHOST), true)));
    }

    #[test]
    fn addresses_are_bounded() {
        let wanted: Vec<IpAddr> = (1..=14).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        assert!(matches!(places(&wanted), Err(BindError::TooMany)));
        assert!(places(&wanted[..13]).is_ok());
    }
}
