//! `meshx rpc`: a server, and what asks it, each a process of its own.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use meshx_e2e::{ControlPlane, Mesh, Need, Process, skips};
use rustix::process::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

/// `meshx rpc serve` at a port that was free.
struct Server {
    process: Process,
    address: String,
}

impl Server {
    fn start(mesh: &Mesh, arguments: &[&str]) -> Self {
        let all = [&["rpc", "serve", "--listen", "127.0.0.1:0", "--json"], arguments].concat();
        let process = Process::start("meshx rpc serve", &mut mesh.command(&all));
        let ready = process.next_line(SOON);
        let ready = ready.unwrap_or_else(|| panic!("no server: {}", process.stderr()));
        let ready: Value = serde_json::from_str(&ready).unwrap();
        assert_eq!(ready["schema"], "meshx.rpc.serve/1", "{ready}");
        let address = ready["addresses"][0].as_str().unwrap().to_owned();
        Self { process, address }
    }
}

/// The error of a command that must fail, as it tells it to programs.
fn error(mesh: &Mesh, arguments: &[&str]) -> (i32, Value) {
    let outcome = mesh.cli(&[arguments, &["--json"]].concat());
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    let mut error: Value = serde_json::from_str(&outcome.stderr).unwrap();
    assert_eq!(error["error"]["exit"], outcome.code, "{error}");
    (outcome.code, error["error"].take())
}

/// A file of this name, which is its owner's alone.
fn secret(mesh: &Mesh, name: &str, text: &str) -> String {
    let path = mesh.home().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Waits for more calls than a bench makes before it begins to count. The server tells of each.
fn await_calls(server: &Server, function: &str) {
    let words = format!("server call {function} → ok");
    let said = || server.process.stderr().matches(&words).count();
    server.process.until("calls", SOON, || (said() >= 3).then_some(()));
}

#[test]
fn json_goes_in_and_json_comes_out() {
    let mesh = Mesh::agent();
    let server = Server::start(&mesh, &[]);
    let call =
        |arguments: &[&str]| mesh.cli_ok(&[&["rpc", "call", &server.address], arguments].concat());
    assert_eq!(call(&["add", "[40, 2]"]), "42\n");
    assert_eq!(call(&["echo"]), "null\n");
    assert_eq!(call(&["echo", "-7"]), "-7\n");
    // As it was written: digits, and the order of keys.
    for text in ["1.50", "123456789012345678901234567890", r#"{"z": 1, "a": ["é"]}"#] {
        assert_eq!(call(&["echo", text]), format!("{text}\n"));
    }
    // What is no JSON, and the bytes themselves.
    assert_eq!(call(&["big", "3"]), "{\"binary\":\"Li4u\"}\n");
    assert_eq!(call(&["big", "3", "--raw"]).trim_end(), "...");
    let answer = mesh.json(&["rpc", "call", &server.address, "add", "[1, 2]"]);
    let expected = json!({
        "schema": "meshx.rpc.call/1", "address": server.address, "function": "add",
        "codec": "json", "result": 3,
    });
    assert_eq!(answer, expected);
    let who = mesh.json(&["rpc", "call", &server.address, "who", "--metadata", "tenant=blue"]);
    assert_eq!(who["result"]["metadata"], json!([["tenant", "blue"]]), "{who}");
    let verbose = mesh.cli(&["rpc", "call", &server.address, "add", "[1, 2]", "-v"]);
    assert_eq!(verbose.stdout, "3\n");
    assert!(verbose.stderr.contains("client call add → ok"), "{verbose:?}");
    // From stdin.
    let words = ["rpc", "call", &server.address, "echo", "-"];
    let mut late = Process::start("meshx rpc call", &mut mesh.command(&words));
    late.write("[1,\n2]");
    late.close_stdin();
    assert_eq!(late.next_line(SOON).as_deref(), Some("[1,"), "{}", late.stderr());
    assert_eq!(late.next_line(SOON).as_deref(), Some("2]"));
    assert_eq!(late.wait(SOON).code(), Some(0));
}

#[test]
fn a_result_cannot_command_the_terminal() {
    let mesh = Mesh::agent();
    let server = Server::start(&mesh, &[]);
    let words = ["rpc", "call", &server.address, "echo", "\"\u{9b}2J\u{202e}\""];
    assert_eq!(mesh.cli_ok(&words), "\"\\u009b2J\\u202e\"\n");
}

#[test]
fn errors_say_who_failed_and_have_a_status_each() {
    let mesh = Mesh::agent();
    let server = Server::start(&mesh, &[]);
    let address = &*server.address;
    let call = |arguments: &[&str]| error(&mesh, &[&["rpc", "call", address], arguments].concat());

    let (code, failed) = call(&["fail", r#"{"cart": 7}"#]);
    assert_eq!((code, &failed["code"]), (1, &json!("MX0851")), "{failed}");
    assert_eq!(failed["rpc"]["value"], json!({"cart": 7}), "{failed}");
    assert_eq!(failed["rpc"]["executed"], "yes");
    let text = mesh.cli(&["rpc", "call", address, "fail", r#"{"cart": 7}"#]);
    assert!(text.stderr.contains("fail at ") && text.stderr.contains("value: {\"cart\":7}"));

    let (code, failed) = call(&["nothing"]);
    assert_eq!((code, &failed["rpc"]["executed"]), (4, &json!("never")), "{failed}");
    assert!(failed["message"].as_str().unwrap().contains(address), "{failed}");

    let (code, failed) = call(&["add", r#"[1, "x"]"#]);
    assert_eq!((code, &failed["rpc"]["kind"]), (8, &json!("value")), "{failed}");

    let (code, failed) = call(&["sleep", "60000", "--timeout", "100ms"]);
    assert_eq!((code, &failed["rpc"]["kind"]), (6, &json!("deadline")), "{failed}");

    let (code, failed) = call(&["add", "[1, 2"]);
    assert_eq!((code, &failed["code"]), (2, &json!("MX0840")), "{failed}");

    for what in [&["call", "127.0.0.1:1", "f"][..], &["cast", "127.0.0.1:1", "f"]] {
        let (code, failed) = error(&mesh, &[&["rpc"], what].concat());
        assert_eq!((code, &failed["rpc"]["kind"]), (3, &json!("transport")), "{failed}");
        assert!(failed["hint"].is_string() && failed["message"].to_string().contains(":1: "));
    }
    assert_eq!(error(&mesh, &["rpc", "ping", "127.0.0.1:1"]).0, 1);
    for usage in [&["call", "/no/where", "f"][..], &["call", address, ""], &["ping", "unix:"]] {
        assert_eq!(mesh.cli(&[&["rpc"], usage].concat()).code, 2, "{usage:?}");
    }
    // What listens there is something else: the control plane.
    let (code, failed) = error(&mesh, &["rpc", "call", mesh.address(), "f"]);
    assert_eq!(code, 3, "{failed}");
}

#[test]
fn a_server_tells_what_it_offers_only_if_it_may() {
    let mesh = Mesh::agent();
    let silent = Server::start(&mesh, &["--functions", "add,echo"]);
    for words in [&["list", &silent.address][..], &["describe", &silent.address, "add"]] {
        let (code, failed) = error(&mesh, &[&["rpc"], words].concat());
        assert_eq!(code, 4, "{failed}");
        assert!(failed["hint"].as_str().unwrap().contains("--listing"), "{failed}");
    }
    assert_eq!(error(&mesh, &["rpc", "call", &silent.address, "who"]).0, 4);

    let server = Server::start(&mesh, &["--functions", "add,echo", "--listing"]);
    let address = &*server.address;
    let list = mesh.cli_ok(&["rpc", "list", address]);
    assert!(list.contains("add ") && list.contains("two integers"), "{list}");
    let list = mesh.json(&["rpc", "list", address]);
    let names: Vec<_> =
        list["functions"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["add", "echo"], "{list}");
    let one = mesh.json(&["rpc", "describe", address, "add"]);
    assert!(one["name"] == "add" && one["about"].as_str().unwrap().contains("[A, B]"), "{one}");
    let (code, failed) = error(&mesh, &["rpc", "describe", address, "who"]);
    assert!(code == 4 && failed["hint"].as_str().unwrap().contains("rpc list"), "{failed}");
}

#[test]
fn a_policy_denies_and_hides_what_it_does_not_allow() {
    let mesh = Mesh::agent();
    let policy = mesh.home().join("policy.json");
    let rules = json!({"rules": [
        {"functions": ["add", "meshx.*"], "callers": ["*"], "action": "allow"},
    ]});
    fs::write(&policy, rules.to_string()).unwrap();
    let policy = policy.to_str().unwrap();
    let server = Server::start(&mesh, &["--policy", policy, "--listing"]);
    let address = &*server.address;
    assert_eq!(mesh.cli_ok(&["rpc", "call", address, "add", "[1, 2]"]), "3\n");
    for function in ["echo", "nothing"] {
        let (code, failed) = error(&mesh, &["rpc", "call", address, function]);
        assert_eq!((code, &failed["rpc"]["executed"]), (5, &json!("never")), "{failed}");
    }
    let list = mesh.json(&["rpc", "list", address]);
    assert_eq!(list["functions"].as_array().unwrap().len(), 1, "{list}");
    // It is there, whatever may be called.
    mesh.cli_ok(&["rpc", "ping", address]);

    fs::write(mesh.home().join("wrong"), "{\"rule\": []}").unwrap();
    let wrong = mesh.home().join("wrong");
    let (code, failed) = error(&mesh, &["rpc", "serve", "--policy", wrong.to_str().unwrap()]);
    assert_eq!((code, &failed["code"]), (9, &json!("MX0842")), "{failed}");
    assert!(failed["message"].as_str().unwrap().contains("unknown field `rule`"), "{failed}");
}

#[test]
fn who_has_another_key_is_not_let_in() {
    const KEY: &str = "canary-of-the-right-key";
    let mesh = Mesh::agent();
    let right = secret(&mesh, "right", &format!("{KEY}\n"));
    let wrong = secret(&mesh, "wrong", "canary-of-the-wrong-key\n");
    let server = Server::start(&mesh, &["--key-file", &right, "-v"]);
    let words = ["rpc", "call", &server.address, "add", "[1, 2]"];
    assert_eq!(mesh.cli_ok(&[&words[..], &["--key-file", &right]].concat()), "3\n");
    for command in ["call", "ping"] {
        let words = ["rpc", command, &server.address];
        let function: &[&str] = if command == "call" { &["add", "[1, 2]"] } else { &[] };
        let words = [&words[..], function, &["--key-file", &wrong]].concat();
        let (code, failed) = error(&mesh, &words);
        assert_eq!((code, &failed["code"]), (5, &json!("MX0853")), "{failed}");
        assert!(failed["hint"].as_str().unwrap().contains("--key-file"), "{failed}");
    }
    let open = Server::start(&mesh, &[]);
    let (code, failed) =
        error(&mesh, &["rpc", "call", &open.address, "add", "[1, 2]", "--key-file", &right]);
    assert_eq!(code, 5, "a server without a key proves nothing: {failed}");
    assert!(!server.process.stderr().contains("canary"), "{}", server.process.stderr());

    for (name, text, mode) in [("short", "123", 0o400), ("readable", KEY, 0o444)] {
        let path = secret(&mesh, name, text);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        for words in [&["serve"][..], &["ping", &server.address]] {
            let words = [&["rpc"], words, &["--key-file", &path]].concat();
            let (code, failed) = error(&mesh, &words);
            assert_eq!((code, &failed["code"]), (9, &json!("MX0841")), "{failed}");
        }
    }
}

#[test]
fn a_cast_is_accepted_and_leaves_its_trace_at_the_server() {
    let mesh = Mesh::agent();
    let server = Server::start(&mesh, &["-v"]);
    let address = &*server.address;
    let cast = mesh.json(&["rpc", "cast", address, "echo", "1", "--metadata", "a=b"]);
    assert_eq!((&cast["accepted"], &cast["function"]), (&json!(true), &json!("echo")), "{cast}");
    server.process.await_stderr("server cast echo → ok", SOON);
    // What becomes of it is the server's to tell.
    assert_eq!(mesh.cli(&["rpc", "cast", address, "fail"]).code, 0);
    server.process.await_stderr("server cast fail → application", SOON);
    assert_eq!(error(&mesh, &["rpc", "cast", address, "nothing"]).0, 4);
}

#[test]
fn a_server_that_is_there_answers_pings() {
    let mesh = Mesh::agent();
    let server = Server::start(&mesh, &["--name", "math", "--v1"]);
    let words = ["rpc", "ping", &server.address, "--count", "3", "--interval", "0"];
    let ping = mesh.json(&words);
    assert_eq!((&ping["service"], &ping["protocol"]), (&json!("math"), &json!("v2")), "{ping}");
    assert_eq!(ping["round_trip_milliseconds"].as_array().unwrap().len(), 3, "{ping}");
    let text = mesh.cli_ok(&words);
    assert!(text.contains("math, v2, connected in") && text.contains("3 round trips: min"));
    // A series that is broken off has its end, too.
    let words = ["rpc", "ping", &server.address, "--count", "1000", "--interval", "1h"];
    let mut long = Process::start("meshx rpc ping", &mut mesh.command(&words));
    long.next_line(SOON).unwrap();
    assert!(long.next_line(SOON).unwrap().starts_with("pong in"));
    long.signal(Signal::INT);
    assert_eq!(long.wait(SOON).code(), Some(130), "{}", long.stderr());
}

#[test]
fn a_bench_counts_calls_and_what_became_of_them() {
    let mesh = Mesh::agent();
    let server = Server::start(&mesh, &[]);
    let bench = |arguments: &[&str]| {
        let words = [&["rpc", "bench", &server.address], arguments, &["--json"]].concat();
        let outcome = mesh.cli(&words);
        let report: Value = serde_json::from_str(&outcome.stdout)
            .unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
        (outcome.code, report)
    };
    let (code, report) = bench(&[
        "echo",
        "\"hello\"",
        "--calls",
        "500",
        "--concurrency",
        "20",
        "--connections",
        "3",
        "--threads",
        "2",
        "--duration",
        "30s",
    ]);
    assert_eq!((code, &report["calls"], &report["errors"]), (0, &json!(500), &json!({})));
    assert_eq!((&report["sent_bytes"], &report["received_bytes"]), (&json!(3500), &json!(3500)));
    let latency = |which: &str| report["latency_milliseconds"][which].as_f64().unwrap();
    assert!(latency("p50") <= latency("p99") && latency("p99_9") <= latency("max"), "{report}");
    assert!(report["calls_per_second"].as_f64().unwrap() > 0.0, "{report}");

    let (code, report) = bench(&["fail", "1", "--calls", "7", "--duration", "30s"]);
    assert_eq!((code, &report["errors"]), (1, &json!({"application": 7})), "{report}");
    assert_eq!((&report["calls"], &report["latency_milliseconds"]), (&json!(0), &Value::Null));

    // Until the time is over.
    let (code, report) = bench(&["sleep", "1", "-c", "2", "--duration", "200ms"]);
    assert!(code == 0 && report["seconds"].as_f64().unwrap() >= 0.2, "{report}");
    let text = mesh.cli_ok(&["rpc", "bench", &server.address, "echo", "--calls", "10"]);
    assert!(text.contains("per second") && text.contains("errors    none"), "{text}");
    let (code, failed) = error(&mesh, &["rpc", "bench", &server.address, "nothing"]);
    assert_eq!(code, 4, "{failed}");

    // Interrupted, it says what it has.
    let server = Server::start(&mesh, &["-v"]);
    let words = ["rpc", "bench", &server.address, "sleep", "10", "-c", "1", "--duration", "1h"];
    let mut long = Process::start("meshx rpc bench", &mut mesh.command(&words));
    await_calls(&server, "sleep");
    long.signal(Signal::INT);
    assert_eq!(long.wait(SOON).code(), Some(130), "{}", long.stderr());
    assert!(long.next_line(SOON).unwrap().starts_with("sleep at "), "{}", long.stderr());
}

#[test]
fn a_bench_outlives_its_server_and_says_so() {
    let mesh = Mesh::agent();
    let server = Server::start(&mesh, &["-v"]);
    let words = ["rpc", "bench", &server.address, "sleep", "10", "-c", "2", "--duration", "2s"];
    let mut bench = Process::start("meshx rpc bench", &mut mesh.command(&words));
    await_calls(&server, "sleep");
    server.process.signal(Signal::KILL);
    assert_eq!(bench.wait(SOON).code(), Some(1), "{}", bench.stderr());
    let report: Vec<_> = std::iter::from_fn(|| bench.next_line(SOON)).collect();
    let errors = report.iter().find(|line| line.starts_with("errors"));
    assert!(errors.is_some_and(|line| line.contains(" transport")), "{report:?}");
}

#[test]
fn unix_sockets_lead_to_servers_too_and_vanish_with_them() {
    let mesh = Mesh::agent();
    let path = mesh.home().join("rpc.sock");
    let address = format!("unix:{}", path.display());
    let mut server = Server::start(&mesh, &["--listen", &address]);
    assert_eq!(mesh.cli_ok(&["rpc", "call", &address, "add", "[1, 2]"]), "3\n");
    mesh.cli_ok(&["rpc", "ping", &address]);
    // The place is taken, as is the port.
    for taken in [&*address, &*server.address] {
        let (code, failed) = error(&mesh, &["rpc", "serve", "--listen", taken]);
        assert_eq!((code, &failed["code"]), (7, &json!("MX0843")), "{failed}");
    }
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait(SOON).code(), Some(0), "{}", server.process.stderr());
    assert!(!path.exists());
    assert_eq!(error(&mesh, &["rpc", "call", &address, "add"]).0, 3);
}

#[test]
fn a_server_that_stops_lets_calls_end() {
    let mesh = Mesh::agent();
    let mut server = Server::start(&mesh, &["-v"]);
    let words = ["rpc", "call", &server.address, "sleep", "1000"];
    let mut call = Process::start("meshx rpc call", &mut mesh.command(&words));
    server.process.await_stderr("server connected", SOON);
    // The call follows at once; another process begins, asks and ends meanwhile.
    mesh.cli_ok(&["rpc", "ping", &server.address]);
    server.process.signal(Signal::TERM);
    assert_eq!(call.wait(SOON).code(), Some(0), "{}", call.stderr());
    assert_eq!(call.next_line(SOON).as_deref(), Some("1000"));
    assert_eq!(server.process.wait(SOON).code(), Some(0), "{}", server.process.stderr());
}

#[test]
fn a_call_can_be_interrupted() {
    let mesh = Mesh::agent();
    let server = Server::start(&mesh, &["-v"]);
    let words = ["rpc", "call", &server.address, "sleep", "60000", "--timeout", "2m"];
    let mut call = Process::start("meshx rpc call", &mut mesh.command(&words));
    server.process.await_stderr("server connected", SOON);
    call.signal(Signal::INT);
    assert_eq!(call.wait(SOON).code(), Some(130), "{}", call.stderr());
    server.process.await_stderr("server disconnected", SOON);
}

#[test]
fn services_of_the_mesh_are_asked_by_name() {
    asked_by_name(ControlPlane::Agent);
}

#[test]
fn services_of_consuls_mesh_are_asked_by_name() {
    if skips(&[Need::Consul]) {
        return;
    }
    asked_by_name(ControlPlane::Consul);
}

fn asked_by_name(kind: ControlPlane) {
    let mesh = Mesh::start(kind);
    let policy = mesh.home().join("policy.json");
    let rules = json!({"rules": [
        {"functions": ["add", "meshx.list"], "callers": ["web"], "action": "allow"},
        {"functions": ["who"], "callers": ["*"], "action": "allow"},
    ]});
    fs::write(&policy, rules.to_string()).unwrap();
    let words = ["--mesh", "--name", "math", "--listing", "--policy", policy.to_str().unwrap()];
    let all = [&["rpc", "serve", "--json"], &words[..]].concat();
    let mut server = Process::start("meshx rpc serve", &mut mesh.command(&all));
    let ready = server.next_line(SOON);
    let ready = ready.unwrap_or_else(|| panic!("no server: {}", server.stderr()));
    assert!(ready.contains("\"addresses\":[\"math\"]"), "only in the mesh: {ready}");

    // Under Consul an instance is led to up to two seconds after it is passing.
    let who = |arguments: &[&str]| mesh.cli(&[&["rpc", "call", "math", "who"], arguments].concat());
    server.until("the service is passing", SOON, || (who(&[]).code == 0).then_some(()));
    let web = who(&["--as", "web"]);
    assert!(web.stdout.contains("/svc/web\""), "{web:?}");
    let call = ["rpc", "call", "math", "add", "[1, 2]"];
    assert_eq!(mesh.cli_ok(&[&call[..], &["--as", "web"]].concat()), "3\n");
    let list = mesh.json(&["rpc", "list", "math", "--as", "web"]);
    assert_eq!(list["functions"].as_array().unwrap().len(), 2, "{list}");
    let ping = mesh.json(&["rpc", "ping", "math"]);
    assert_eq!((&ping["address"], &ping["service"]), (&json!("math"), &json!("math")), "{ping}");
    let (code, failed) = error(&mesh, &call);
    assert_eq!((code, &failed["code"]), (5, &json!("MX0853")), "{failed}");
    assert!(failed["message"].as_str().unwrap().starts_with("add at math: "), "{failed}");
    let (code, failed) = error(&mesh, &["rpc", "call", "nobody", "add"]);
    assert_eq!((code, &failed["code"]), (4, &json!("MX0201")), "{failed}");

    // An intention is told apart from the policy.
    mesh.cli_ok(&["intentions", "deny", "*", "math"]);
    for words in [&call[..], &["rpc", "ping", "math"]] {
        let (code, failed) = error(&mesh, words);
        assert_eq!((code, &failed["code"]), (5, &json!("MX0706")), "{failed}");
        let hint = failed["hint"].as_str().unwrap();
        assert!(hint.contains("--as") && !hint.contains("meshx why"), "{failed}");
    }
    // Who has asked has left, at once.
    assert!(web.took < Duration::from_secs(5), "{web:?}");
    let services = mesh.cli_ok(&["services", "list"]);
    assert!(services.contains("math") && !services.contains("web"), "{services}");
    assert!(!services.contains("meshx-"), "{services}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(SOON).code(), Some(0), "{}", server.stderr());
    assert!(!mesh.cli_ok(&["services", "list"]).contains("math"));
}

#[test]
fn a_server_counts_for_prometheus() {
    let mesh = Mesh::agent();
    let metrics = Mesh::free_address();
    let server = Server::start(&mesh, &["--metrics", &metrics]);
    mesh.cli_ok(&["rpc", "call", &server.address, "add", "[1, 2]"]);
    let page = get(&metrics, "/metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    let counted = page.lines().find(|line| {
        line.starts_with("meshx_rpc_calls_total{") && line.contains("function=\"add\"")
    });
    assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{page}");
    assert!(get(&metrics, "/").starts_with("HTTP/1.1 404 "));
    let (code, failed) = error(&mesh, &["rpc", "serve", "--metrics", &metrics]);
    assert_eq!((code, &failed["code"]), (7, &json!("MX0843")), "{failed}");
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
