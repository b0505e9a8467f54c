//! What an eavesdropper sees.

use meshx_e2e::capture::{Capture, Packet, stream};
use meshx_e2e::{Mesh, Need, skips, sockets};

use crate::{A, B};

const SECRET: &str = "the quick brown fox jumps over the lazy dog";

/// Whether a stream of bytes is a sequence of TLS records (RFC 8446, section 5.1).
fn is_tls(mut bytes: &[u8]) -> bool {
    while let [kind, 3, 1 | 3, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !(20..=23).contains(kind) || rest.len() < length {
            return false;
        }
        bytes = &rest[length..];
    }
    bytes.is_empty()
}

/// Both directions of every connection to `port`.
fn streams(packets: &[Packet], port: u16) -> Vec<Vec<u8>> {
    let mut clients: Vec<u16> = packets
        .iter()
        .filter(|packet| packet.destination == port)
        .map(|packet| packet.source)
        .collect();
    clients.sort_unstable();
    clients.dedup();
    clients
        .into_iter()
        .flat_map(|client| [stream(packets, client, port), stream(packets, port, client)])
        .collect()
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn only_tls_between_the_sidecars() {
    if skips(&[Need::Erlang, Need::Tcpdump, Need::Root]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = mesh.vm(A);
    let mut b = mesh.vm(B);
    let port = |address: String| address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let public = [port(mesh.public_address(A)), port(mesh.public_address(B))];
    let inside = sockets::listening(a.pid()).first().expect("the VM listens").port();
    let capture = Capture::start(mesh.home(), "lo", &[public[0], public[1], inside]);
    assert_eq!(b.connect(A), "true", "{}", b.stderr());
    let echo = format!("erpc:call('{A}', erlang, list_to_binary, [\"{SECRET}\"])");
    assert_eq!(b.eval(&echo), format!("<<\"{SECRET}\">>"));
    assert_eq!(a.eval(&format!("erpc:call('{B}', erlang, node, [])")), B);
    let packets = capture.stop();

    let between: Vec<Vec<u8>> = public.iter().flat_map(|port| streams(&packets, *port)).collect();
    let bytes: usize = between.iter().map(Vec::len).sum();
    assert!(bytes > 1000, "the sidecars talked: {bytes} bytes");
    for stream in &between {
        assert!(is_tls(stream), "not TLS: {:?}", &stream[..stream.len().min(64)]);
        for text in [SECRET, A, B] {
            assert!(!contains(stream, text), "`{text}` in the clear");
        }
    }
    // The capture can see: on the VM's own port the same bytes are in the clear.
    let inner = streams(&packets, inside).concat();
    assert!(contains(&inner, SECRET) && contains(&inner, B), "{} bytes", inner.len());
}

#[test]
fn vms_listen_on_loopback_only_and_without_epmd() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    for mut vm in [mesh.vm(A), mesh.vm("node2@pod-2.app.mesh")] {
        let mut addresses = sockets::listening(vm.pid());
        assert!(!addresses.is_empty(), "the VM listens");
        addresses.extend(sockets::listening(vm.wrapper().pid()));
        for address in addresses {
            assert!(address.ip().is_loopback(), "{address}");
            assert_ne!(address.port(), 4369, "EPMD's port");
        }
        let children =
            "length([P || P <- erlang:ports(), erlang:port_info(P, name) =:= {name, \"epmd\"}])";
        assert_eq!(vm.eval(children), "0");
    }
}

#[cfg(test)]
mod tests {
    use super::is_tls;

    #[test]
    fn tells_tls_from_other_bytes() {
        assert!(is_tls(&[22, 3, 1, 0, 2, 9, 9, 23, 3, 3, 0, 1, 7]));
        assert!(!is_tls(&[22, 3, 1, 0, 2, 9, 9, 0, 4, b's', b'o', b'k']));
        assert!(!is_tls(&[0, 20, b'N']));
        assert!(!is_tls(&[22, 3, 1, 0, 2, 9]));
    }
}
