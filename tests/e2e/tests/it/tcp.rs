//! Any TCP program.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use meshx_e2e::{ControlPlane, Mesh, Need, Process, skips, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// A server of the test's own that sends back what it got once the client has finished writing.
fn reversing_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).is_ok() {
                    all.reverse();
                    let _ignored = stream.write_all(&all);
                }
            });
        }
    });
    port
}

/// A program that prints the variables with upstreams and stays.
const PRINT_UPSTREAMS: &[&str] = &["sh", "-c", "env | grep UPSTREAM | sort; echo end; cat"];

/// The address in `MESHX_UPSTREAM_DB`, as the wrapped program sees it.
fn upstream(process: &Process) -> String {
    let mut lines = Vec::new();
    while let Some(line) = process.next_line(SOON) {
        if line == "end" {
            break;
        }
        lines.push(line);
    }
    let address = lines.iter().find_map(|line| line.strip_prefix("MESHX_UPSTREAM_DB="));
    assert!(lines.iter().any(|line| line.starts_with("NOMAD_UPSTREAM_ADDR_db=")), "{lines:?}");
    address.unwrap_or_else(|| panic!("{lines:?}\n{}", process.stderr())).to_owned()
}

fn exchange(address: &str, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[test]
fn client_and_server_with_meshx_agent() {
    client_and_server(ControlPlane::Agent);
}

#[test]
fn client_and_server_with_consul() {
    if skips(&[Need::Consul]) {
        return;
    }
    client_and_server(ControlPlane::Consul);
}

fn client_and_server(kind: ControlPlane) {
    let mesh = Mesh::start(kind);
    let port = reversing_server().to_string();
    let _db = mesh.exec(&["--name", "db", "--port", &port], &["cat"]);
    let web = mesh.exec(&["--name", "web", "--upstream", "db"], PRINT_UPSTREAMS);
    let address = upstream(&web);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    wait_until("an answer through the mesh", SOON, || {
        (exchange(&address, b"hello").ok()? == b"olleh").then_some(())
    });
    // Half-close arrives, and nothing of a large body is lost.
    let body: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut expected = body.clone();
    expected.reverse();
    assert!(exchange(&address, &body).unwrap() == expected);

    // Not Erlang nodes: one way only, and said so.
    let mut live = TcpStream::connect(&address).unwrap();
    live.set_read_timeout(Some(SOON)).unwrap();
    live.write_all(b"x").unwrap();
    thread::sleep(Duration::from_millis(200));
    let deny = mesh.cli(&["intentions", "deny", "web", "db"]);
    assert_eq!(deny.code, 0, "{deny:?}");
    assert!(deny.stdout.contains("closed 1"), "{deny:?}");
    assert_eq!(mesh.cli(&["intentions", "check", "db", "web"]).code, 0);
    let cut = live.read(&mut [0; 16]);
    assert!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
    assert!(exchange(&address, b"hello").map_or(true, |answer| answer.is_empty()));
    mesh.cli_ok(&["intentions", "allow", "web", "db"]);
    wait_until("an answer after allow", SOON, || {
        (exchange(&address, b"hello").ok()? == b"olleh").then_some(())
    });
}

#[test]
fn upstream_on_the_port_that_was_asked_for() {
    let mesh = Mesh::agent();
    let port = reversing_server().to_string();
    let _db = mesh.exec(&["--name", "db", "--port", &port], &["cat"]);
    let local = Mesh::free_address();
    let spec = format!("db:{}", local.rsplit(':').next().unwrap());
    let web = mesh.exec(&["--name", "web", "--upstream", &spec], PRINT_UPSTREAMS);
    assert_eq!(upstream(&web), local);
}

#[test]
fn another_instance_takes_over() {
    let mesh = Mesh::agent();
    let port = reversing_server().to_string();
    let mut first = mesh.exec(&["--name", "db", "--port", &port], &["cat"]);
    let web = mesh.exec(&["--name", "web", "--upstream", "db"], PRINT_UPSTREAMS);
    let address = upstream(&web);
    wait_until("an answer", SOON, || exchange(&address, b"ab").ok().filter(|got| got == b"ba"));
    first.close_stdin();
    first.wait(SOON);
    assert!(exchange(&address, b"ab").map_or(true, |answer| answer.is_empty()));
    let _second = mesh.exec(&["--name", "db", "--port", &port], &["cat"]);
    wait_until("an answer of the second", SOON, || {
        exchange(&address, b"ab").ok().filter(|got| got == b"ba")
    });
}

#[test]
fn sidecar_alone_for_a_program_started_elsewhere() {
    let mesh = Mesh::agent();
    let port = reversing_server().to_string();
    let arguments = ["proxy", "--service", "db", "--port", &port];
    let mut proxy = Process::start("meshx proxy", &mut mesh.command(&arguments));
    let web = mesh.exec(&["--name", "web", "--upstream", "db"], PRINT_UPSTREAMS);
    let address = upstream(&web);
    wait_until("an answer through `meshx proxy`", SOON, || {
        exchange(&address, b"ab").ok().filter(|got| got == b"ba")
    });
    proxy.signal(rustix::process::Signal::TERM);
    proxy.wait(Duration::from_secs(15));
}
