//! What must not get in, and what is said about it.

use std::time::Duration;

use meshx_e2e::hostile::{Credential, Impostor, hello, plain, tls};
use meshx_e2e::{Mesh, Need, Vm, skips};
use serde_json::json;

use crate::{A, B};

/// Lets a process of the VM count the connections that its distribution listener accepts.
fn count_accepted(vm: &mut Vm) {
    vm.eval(
        "begin Counter = spawn(fun() -> register(counter, self()),
         erlang:trace(whereis(net_kernel), true, ['receive']),
         Loop = fun Loop(N) -> receive {trace, _, 'receive', {accept, _, _, _, _}} -> Loop(N + 1);
         {get, From} -> From ! {accepted, N}, Loop(N); _ -> Loop(N) end end, Loop(0) end), ok end",
    );
    vm.await_eval("whereis(counter) =/= undefined", "true", Duration::from_secs(2));
    vm.forget();
}

fn accepted(vm: &mut Vm) -> u32 {
    let count = vm.eval("begin counter ! {get, self()}, receive {accepted, N} -> N end end");
    vm.forget();
    count.parse().unwrap()
}

#[test]
fn nothing_hostile_reaches_the_vm() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = mesh.vm(A);
    let mut b = mesh.vm(B);
    count_accepted(&mut a);
    let public = mesh.public_address(A);

    let garbage: Vec<u8> =
        (0..4096_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut tls_record_bomb = vec![0x16, 3, 1, 0xff, 0xff];
    tls_record_bomb.resize(70_000, 0x41);
    for (what, bytes) in [
        ("garbage", garbage.as_slice()),
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a distribution hello in the clear", &hello(B)),
        ("an oversized TLS record", &tls_record_bomb),
    ] {
        let answer = plain(&public, bytes);
        // At most a TLS alert: content type 21.
        assert!(answer.is_empty() || answer[0] == 21, "{what}: {answer:?}");
    }
    let refused = |what: &str, credential: Option<Credential>, bytes: &[u8]| {
        let answer = tls(&public, credential, bytes);
        assert!(answer.is_empty(), "{what}: {answer:?}");
    };
    let genuine = Credential::of(&mesh, B);
    refused("no client certificate", None, &hello(B));
    refused("a forged certificate", Some(Credential::forged(&mesh, B)), &hello(B));
    refused("another service's certificate", Some(Credential::of(&mesh, "mallory")), &hello(B));
    refused("garbage in the place of the hello", Some(genuine.clone()), &garbage);
    refused(
        "an endless hello",
        Some(genuine.clone()),
        &[&[0xff_u8, 0xff, b'N'], &garbage[..]].concat(),
    );
    refused("an empty hello", Some(genuine.clone()), &[0, 0]);
    refused("somebody else's name", Some(genuine.clone()), &hello("root@myhost"));
    assert_eq!(accepted(&mut a), 0);
    assert_eq!(a.nodes(), "[]");

    // The counter counts: a genuine peer gets in, by hand and with a real node.
    let answer = tls(&public, Some(genuine), &hello(B));
    assert_eq!(answer.get(..5), Some(&[0, 3, b's', b'o', b'k'][..]), "{answer:?}");
    assert_eq!(accepted(&mut a), 1);
    assert_eq!(b.connect(A), "true", "{}", b.stderr());
    assert_eq!(accepted(&mut a), 2);
    let status = mesh.json(&["status"]);
    let text = status.to_string();
    assert!(text.contains("refused"), "{text}");
}

#[test]
fn a_scan_is_logged_once_and_not_a_thousand_times() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let a = mesh.vm(A);
    let public = mesh.public_address(A);
    for _ in 0..50 {
        plain(&public, b"GET / HTTP/1.1\r\n\r\n");
    }
    std::thread::sleep(Duration::from_millis(200));
    let lines = a.stderr().lines().filter(|line| line.contains("(tls)")).count();
    assert!((1..=5).contains(&lines), "{lines} lines:\n{}", a.stderr());
}

#[test]
fn a_server_with_the_wrong_certificate_is_not_talked_to() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut b = mesh.vm(B);
    for (name, credential) in [
        ("victim1@myhost", Credential::of(&mesh, "mallory@myhost")),
        ("victim2@myhost", Credential::forged(&mesh, "victim2@myhost")),
    ] {
        let impostor = Impostor::listen(credential);
        let (address, port) = (impostor.address().ip(), impostor.address().port());
        mesh.put(
            "/v1/agent/service/register",
            &json!({
                "ID": name, "Name": name, "Address": address, "Port": 1,
                "Connect": {"SidecarService": {"Address": address, "Port": port, "Checks": []}},
            }),
        );
        mesh.put(
            "/v1/agent/service/register",
            &json!({
                "ID": format!("{name}-sidecar-proxy"), "Name": format!("{name}-sidecar-proxy"),
                "Kind": "connect-proxy", "Address": address, "Port": port,
                "Proxy": {"DestinationServiceName": name, "DestinationServiceID": name},
            }),
        );
        assert_eq!(b.connect(name), "false");
        assert!(impostor.connections() > 0, "{name}: nobody came\n{}", b.stderr());
        assert_eq!(impostor.received(), b"", "{name}");
        b.wrapper().await_stderr(name, Duration::from_secs(2));
    }
}
