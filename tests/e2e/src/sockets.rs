//! Which addresses a process listens on, read from `/proc`.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state `LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The listening TCP sockets of a process.
pub fn listening(pid: u32) -> Vec<SocketAddr> {
    let mine = inodes(pid);
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..] else { continue };
            if mine.contains(inode) {
                found.push(read_address(local));
            }
        }
    }
    found
}

fn inodes(pid: u32) -> HashSet<String> {
    let mut inodes = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        if let Some(rest) = target.strip_prefix("socket:[") {
            inodes.insert(rest.trim_end_matches(']').to_owned());
        }
    }
    inodes
}

/// `0100007F:1F90` is 127.0.0.1:8080: words in the machine's byte order, the port in the network's.
fn read_address(text: &str) -> SocketAddr {
    let (address, port) = text.split_once(':').unwrap();
    let words: Vec<u8> = address
        .as_bytes()
        .chunks(8)
        .flat_map(|word| {
            let word = std::str::from_utf8(word).unwrap();
            u32::from_str_radix(word, 16).unwrap().to_ne_bytes()
        })
        .collect();
    let address = match <[u8; 4]>::try_from(words.as_slice()) {
        Ok(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.as_slice()).unwrap())),
    };
    SocketAddr::new(address, u16::from_str_radix(port, 16).unwrap())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn finds_our_own_listener() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let address = listener.local_addr().unwrap();
            assert!(listening(std::process::id()).contains(&address), "{address}");
        }
    }
}
