//! Too many connections, too many names, rubbish: the daemon lives and answers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use meshx_e2e::netns::{Namespace, Pair};
use meshx_e2e::{Need, skips};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::wire::{alive, ask, connect, framed, lookup, register};
use super::{Daemon, SOON, p99, timed};

/// This process has to hold the other end of every connection.
fn allow_descriptors(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
    let limit = getrlimit(Resource::Nofile).current;
    assert!(limit.is_none_or(|limit| limit >= count), "the test needs {count} descriptors");
}

#[test]
fn out_of_descriptors_it_lives_and_serves() {
    let mut daemon = Daemon::with_descriptors(64);
    let (_lease, _) = register(daemon.port, "shop", 40123);
    let idle: Vec<TcpStream> = (0..200).map(|_| connect(daemon.port)).collect();
    let (found, took) = timed(|| lookup(daemon.port, "shop"));
    assert_eq!(found, Some(40123), "a lease is never closed for another connection");
    assert!(took < Duration::from_secs(2), "{took:?}");
    for number in 0..50 {
        assert_eq!(lookup(daemon.port, "shop"), Some(40123), "{number}");
    }
    let (_second, _) = register(daemon.port, "till", 40124);
    drop(idle);
    assert_eq!(lookup(daemon.port, "till"), Some(40124));
    assert!(daemon.is_running());
}

#[test]
fn more_nodes_than_descriptors_leave_room_for_questions() {
    let mut daemon = Daemon::with_descriptors(64);
    let mut leases = Vec::new();
    for number in 0..100 {
        let mut stream = connect(daemon.port);
        stream.write_all(&framed(&alive(&format!("n{number}"), 1))).unwrap();
        let mut answer = [0; 6];
        match stream.read_exact(&mut answer) {
            Ok(()) => leases.push(stream),
            Err(_) => break,
        }
    }
    assert!((20..64).contains(&leases.len()), "{} leases", leases.len());
    assert_eq!(lookup(daemon.port, "n0"), Some(1));
    leases.truncate(10);
    std::thread::sleep(Duration::from_millis(100));
    let (_lease, _) = register(daemon.port, "late", 2);
    assert!(daemon.is_running());
}

#[test]
fn two_thousand_idle_connections() {
    allow_descriptors(3000);
    let mut daemon = Daemon::start(&[]);
    let (_lease, _) = register(daemon.port, "shop", 40123);
    let _idle: Vec<TcpStream> = (0..2000).map(|_| connect(daemon.port)).collect();
    let took = (0..200).map(|_| timed(|| assert_eq!(lookup(daemon.port, "shop"), Some(40123))).1);
    let slow = p99(took.collect());
    assert!(slow < Duration::from_secs(1), "{slow:?}");
    let resident = resident_kib(daemon.process.pid());
    assert!(resident < 100 * 1024, "{resident} KiB");
    assert!(daemon.is_running());
}

#[test]
fn a_thousand_names() {
    allow_descriptors(2000);
    let daemon = Daemon::start(&[]);
    let leases: Vec<(TcpStream, u32)> =
        (0..1000).map(|number| register(daemon.port, &format!("n{number}"), number + 1)).collect();
    let took = (0..1000).map(|number| {
        let (found, took) = timed(|| lookup(daemon.port, &format!("n{number}")));
        assert_eq!(found, Some(number + 1));
        took
    });
    let slow = p99(took.collect());
    assert!(slow < Duration::from_millis(50), "{slow:?}");
    let names = String::from_utf8(ask(daemon.port, b"n")[4..].to_vec()).unwrap();
    assert_eq!(names.lines().count(), 1000);
    let mut creations: Vec<u32> = leases.iter().map(|(_, creation)| *creation).collect();
    creations.sort_unstable();
    creations.dedup();
    assert_eq!(creations.len(), 1000);
    drop(leases);
    let begun = Instant::now();
    while lookup(daemon.port, "n999").is_some() {
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn rubbish_changes_nothing() {
    let mut daemon = Daemon::start(&[]);
    let (_lease, _) = register(daemon.port, "shop", 40123);
    // xorshift, so that a failure repeats.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below).unwrap()
    };
    for number in 0..3000 {
        let mut bytes: Vec<u8> = match random(4) {
            0 => (0..random(64)).map(|_| u8::try_from(random(256)).unwrap()).collect(),
            1 => {
                let whole = [b"zshop".as_slice(), b"n", b"d", b"sshop", b"k"][random(5)];
                framed(&whole[..random(8).min(whole.len())])
            }
            _ => {
                let codes = b"xznds\0\xff";
                let mut body = vec![codes[random(7)]];
                body.extend((0..random(40)).map(|_| u8::try_from(random(256)).unwrap()));
                framed(&body)
            }
        };
        if random(8) == 0 {
            bytes.truncate(random(64).min(bytes.len()));
        }
        let mut stream = connect(daemon.port);
        drop(stream.write_all(&bytes));
        match random(3) {
            0 => drop(stream.shutdown(Shutdown::Write)),
            1 => drop(stream.set_read_timeout(Some(Duration::from_millis(1)))),
            _ => continue,
        }
        drop(stream.read(&mut [0; 64]));
        if number % 100 == 0 {
            assert_eq!(lookup(daemon.port, "shop"), Some(40123), "after {number}");
        }
    }
    assert_eq!(lookup(daemon.port, "shop"), Some(40123));
    assert!(daemon.is_running());
}

#[test]
fn half_a_request_is_cut_by_the_packet_timeout() {
    let daemon = Daemon::start(&["-packet_timeout", "1"]);
    let (lease, _) = register(daemon.port, "shop", 40123);
    let mut half = connect(daemon.port);
    half.write_all(b"\0\x05zsh").unwrap();
    let (read, took) = timed(|| half.read(&mut [0; 1]).unwrap());
    assert_eq!(read, 0);
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&took), "{took:?}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(lookup(daemon.port, "shop"), Some(40123), "a lease has no time-out");
    drop(lease);
}

/// What another host is answered, in hexadecimal.
fn asked_from(host: &Namespace, address: &str, port: u16, body: &str) -> String {
    let length = body.len();
    let script = format!(
        "exec 3<>/dev/tcp/{address}/{port} && printf '\\x00\\x{length:02x}{body}' >&3 && \
         timeout 5 od -An -v -tx1 <&3"
    );
    let mut command = host.command(Path::new("bash"));
    let output = command.args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn another_machine_may_ask_and_nothing_else() {
    if skips(&[Need::Ip, Need::Root]) {
        return;
    }
    let pair = Pair::make();
    let (here, there) = (&pair.a, &pair.b);
    let port = super::free_port();
    let start = |flags: &[&str]| {
        let mut command = here.command(&meshx_e2e::meshx());
        command.args(["--json", "epmd", "-port", &port.to_string(), "-relaxed_command_check"]);
        let process = meshx_e2e::Process::start("meshx epmd", command.args(flags));
        process.await_stdout("addresses", SOON);
        process
    };
    let alive_shop = "x\\x9c\\xbbM\\x00\\x00\\x06\\x00\\x05\\x00\\x04shop\\x00\\x00";
    let alive_length = 17;

    let mut closed = start(&[]);
    assert_eq!(asked_from(there, here.address(), port, "n"), "", "it listens on loopback");
    assert_ne!(asked_from(here, "127.0.0.1", port, "n"), "");
    closed.end();

    let mut open = start(&["-address", here.address()]);
    let script = format!(
        "exec 3<>/dev/tcp/{}/{port} && printf '\\x00\\x{alive_length:02x}{alive_shop}' >&3 && \
         echo held && sleep 60",
        here.address()
    );
    let mut own = here.command(Path::new("bash"));
    // From the machine's own address: as local as loopback.
    let holder = meshx_e2e::Process::start("a lease", own.args(["-c", &script]));
    holder.await_stdout("held", SOON);
    let found = "77 00 9c bb 4d 00 00 06 00 05 00 04 73 68 6f 70 00 00";
    assert_eq!(asked_from(there, here.address(), port, "zshop"), found);
    assert!(asked_from(there, here.address(), port, "n").ends_with("0a"));
    for refused in ["d", "k", "sshop"] {
        assert_eq!(asked_from(there, here.address(), port, refused), "", "{refused}");
    }
    let script = format!(
        "exec 3<>/dev/tcp/{}/{port} && \
         printf '\\x00\\x11x\\x9c\\xbbM\\x00\\x00\\x06\\x00\\x05\\x00\\x04evil\\x00\\x00' >&3 && \
         timeout 5 od -An -tx1 <&3",
        here.address()
    );
    let output = there.command(Path::new("bash")).args(["-c", &script]).output().unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    assert_eq!(asked_from(there, here.address(), port, "zevil"), "77 01");
    assert_eq!(asked_from(there, here.address(), port, "zshop"), found, "still there");
    assert!(open.is_running());
    assert_eq!(asked_from(here, here.address(), port, "sshop"), "53 54 4f 50 50 45 44");
    assert_eq!(asked_from(here, "127.0.0.1", port, "k"), "4f 4b");
    assert_eq!(open.wait(SOON).code(), Some(0));
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
