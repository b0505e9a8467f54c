//! The same bytes to OTP's daemon and to ours: the same answers, but where we say otherwise.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use meshx_epmd::Daemon;
use meshx_epmd::daemon::Config;

use crate::otp::{self, Otp};

/// How long a connection may take to answer or to close.
const SOON: Duration = Duration::from_secs(5);
/// A connection that says nothing for so long stays open.
const QUIET: Duration = Duration::from_millis(200);

/// A registration by its fields.
struct Node<'a> {
    name: &'a [u8],
    port: u16,
    kind: u8,
    protocol: u8,
    highest: u16,
    lowest: u16,
    extra: &'a [u8],
}

const SHOP: Node<'_> =
    Node { name: b"shop", port: 40123, kind: 77, protocol: 0, highest: 6, lowest: 5, extra: b"" };

impl Node<'_> {
    fn request(&self) -> Vec<u8> {
        let mut body = b"x".to_vec();
        body.extend(self.port.to_be_bytes());
        body.extend([self.kind, self.protocol]);
        body.extend(self.highest.to_be_bytes());
        body.extend(self.lowest.to_be_bytes());
        for field in [self.name, self.extra] {
            body.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
            body.extend(field);
        }
        body
    }
}

/// Reads until the daemon closes or is quiet.
fn outcome(stream: &mut TcpStream) -> Outcome {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    stream.set_read_timeout(Some(QUIET)).unwrap();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Outcome { answer, is_closed: true },
            Ok(count) => answer.extend(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Outcome { answer, is_closed: false };
            }
            // Closed with bytes unread.
            Err(_) => return Outcome { answer, is_closed: true },
        }
    }
}

/// One of the two daemons.
struct Subject {
    address: SocketAddr,
    leases: Vec<TcpStream>,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    answer: Vec<u8>,
    is_closed: bool,
}

impl Subject {
    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect_timeout(&self.address, SOON).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    fn ask(&self, body: &[u8]) -> Outcome {
        outcome(&mut self.send(&framed(body)))
    }

    /// Registers, and keeps the lease if it is one.
    fn register(&mut self, node: &Node<'_>) -> Outcome {
        let mut stream = self.send(&framed(&node.request()));
        let seen = outcome(&mut stream);
        if !seen.is_closed {
            self.leases.push(stream);
        }
        seen
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// OTP's daemon and ours with the same flags, on ports of their own.
fn both(relaxed: bool) -> Option<(Otp, Daemon, [Subject; 2])> {
    if otp::is_missing() {
        return None;
    }
    let theirs = Otp::start(if relaxed { &["-relaxed_command_check"] } else { &[] });
    let config = Config { port: 0, relaxed_command_check: relaxed, ..Config::default() };
    let ours = Daemon::bind(config).unwrap();
    let subjects = [theirs.address(), ours.addresses()[0]]
        .map(|address| Subject { address, leases: Vec::new() });
    Some((theirs, ours, subjects))
}

/// The answer without what differs by nature: ports of daemons, creations and descriptors.
fn comparable(outcome: Outcome, daemon: SocketAddr) -> (String, bool) {
    let mut bytes = outcome.answer;
    let port = u32::from(daemon.port()).to_be_bytes();
    if bytes.starts_with(&port) {
        bytes.splice(..4, *b"PORT");
    }
    match bytes[..] {
        [118, 0, ..] if bytes.len() == 6 => drop(bytes.splice(2.., *b"CREATION")),
        [121, 0, ..] if bytes.len() == 4 => {
            assert!((1..=3).contains(&bytes[3]) && bytes[2] == 0, "{bytes:?}");
            drop(bytes.splice(2.., *b"CREATION"));
        }
        _ => {}
    }
    let text: String = bytes.escape_ascii().to_string();
    let mut parts = text.split("fd = ");
    let mut shown = parts.next().unwrap().to_owned();
    for part in parts {
        shown.push_str("fd = FD");
        shown.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    (shown, outcome.is_closed)
}

fn same(subjects: &mut [Subject; 2], what: &str, run: impl Fn(&mut Subject) -> Outcome) -> String {
    let [theirs, ours] = subjects;
    let expected = comparable(run(theirs), theirs.address);
    let found = comparable(run(ours), ours.address);
    assert_eq!(found, expected, "{what}: ours, then OTP's");
    expected.0
}

// Ours runs on another thread, so that this one may block.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn answers_are_those_of_otps_daemon() {
    let Some((_theirs, _ours, mut subjects)) = both(false) else { return };
    let subjects = &mut subjects;
    let ask = |body: &'static [u8]| move |subject: &mut Subject| subject.ask(body);

    assert_eq!(same(subjects, "no names", ask(b"n")), "PORT");
    same(subjects, "nothing to dump", ask(b"d"));
    assert_eq!(same(subjects, "unknown", ask(b"zshop")), "w\\x01");
    let granted = same(subjects, "register", |it| it.register(&SHOP));
    assert_eq!(granted, "v\\x00CREATION");
    let odd = Node {
        name: b"A_9-z",
        port: 0,
        kind: 3,
        protocol: 200,
        highest: 65535,
        lowest: 9,
        extra: b"\x00\xffextra",
    };
    same(subjects, "odd but allowed", |it| it.register(&odd));
    let old = Node { name: b"old", highest: 5, ..SHOP };
    assert_eq!(same(subjects, "an old node", |it| it.register(&old)), "y\\x00CREATION");
    let long = [b'n'; 254];
    same(subjects, "the longest name", |it| it.register(&Node { name: &long, ..SHOP }));
    let extra = [7; 1020];
    let most = Node { name: b"most", extra: &extra, ..SHOP };
    same(subjects, "the longest extra", |it| it.register(&most));

    for name in ["shop", "A_9-z", "old", "most", "nobody", "shop\0", "shop@h1", "a b", "å", "@"] {
        let body = [b"z", name.as_bytes()].concat();
        same(subjects, name, |it| it.ask(&body));
    }
    same(subjects, "the longest name is found", |it| it.ask(&[b"z".as_slice(), &long].concat()));
    let names = same(subjects, "names", ask(b"n"));
    assert!(names.starts_with("PORTname most at port 40123\\nname nnn"), "{names}");
    same(subjects, "dump", ask(b"d"));

    assert_eq!(same(subjects, "kill with nodes", ask(b"k")), "NO");
    assert_eq!(same(subjects, "stop", ask(b"sshop")), "");

    // The leases end in the order that they came, and leave old names behind.
    for _ in 0..2 {
        for subject in subjects.iter_mut() {
            drop(subject.leases.remove(0));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let dump = same(subjects, "dump with old names", ask(b"d"));
    assert_eq!(dump.matches("old/unused").count(), 2, "{dump}");
    same(subjects, "again", |it| it.register(&SHOP));
    let dump = same(subjects, "dump with one old name less", ask(b"d"));
    assert_eq!(dump.matches("old/unused").count(), 1, "{dump}");

    for subject in subjects.iter_mut() {
        subject.leases.last_mut().unwrap().write_all(b"n").unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(same(subjects, "a word on the lease", ask(b"zshop")), "w\\x01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_otps_daemon_closes_ours_closes() {
    let Some((_theirs, _ours, mut subjects)) = both(false) else { return };
    let fields = SHOP.request();
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"Q".to_vec(),
        b"z".to_vec(),
        b"z\0".to_vec(),
        b"za\0b".to_vec(),
        b"z\xff\xfe".to_vec(),
        [b"z".as_slice(), &[b'n'; 256]].concat(),
        b"x".to_vec(),
        fields[..fields.len() - 1].to_vec(),
        Node { name: b"", ..SHOP }.request(),
        Node { name: b"a\0b", ..SHOP }.request(),
        b"s".to_vec(),
    ];
    for body in &bodies {
        let what = format!("{:?}", body.escape_ascii().to_string());
        assert_eq!(same(&mut subjects, &what, |it| it.ask(body)), "", "{what}");
    }
    for (what, bytes) in [
        ("one byte more", b"\0\x01nn".as_slice()),
        ("two requests", b"\0\x01n\0\x01n"),
        ("3060 bytes", &[b"\x0b\xf2".as_slice(), &[b'z'; 3058]].concat()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
        ("half", b"\0\x05zsh"),
    ] {
        same(&mut subjects, what, |it| {
            let mut stream = it.send(bytes);
            outcome(&mut stream)
        });
    }
    for (what, answer) in [("names", b"n"), ("dump", b"d")] {
        same(&mut subjects, what, |it| it.ask(answer));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn relaxed_commands_are_those_of_otps_daemon() {
    let Some((_theirs, mut ours, mut subjects)) = both(true) else { return };
    let subjects = &mut subjects;
    same(subjects, "register", |it| it.register(&SHOP));
    assert_eq!(same(subjects, "stop nobody", |it| it.ask(b"still")), "NOEXISTSTOPPED");
    assert_eq!(same(subjects, "stop", |it| it.ask(b"sshop")), "STOPPED");
    for subject in subjects.iter_mut() {
        let mut lease = subject.leases.remove(0);
        assert!(outcome(&mut lease).is_closed);
    }
    same(subjects, "register again", |it| it.register(&SHOP));
    assert_eq!(same(subjects, "kill with nodes", |it| it.ask(b"k")), "OK");
    tokio::time::timeout(SOON, ours.killed()).await.unwrap();
}

/// Where the two differ on purpose. OTP's ways are checked, too: if one of them changes, so may we.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn differences_are_those_that_are_documented() {
    let Some((_theirs, _ours, [mut theirs, mut ours])) = both(false) else { return };
    // A name that forges lines is registered there, and not here.
    let forger = Node { name: b"evil at port 1\nname x", ..SHOP };
    assert_eq!(theirs.register(&forger).answer[..2], [118, 0]);
    assert_eq!(ours.register(&forger), Outcome { answer: Vec::new(), is_closed: true });
    assert!(theirs.ask(b"n").answer.ends_with(b"name evil at port 1\nname x at port 40123\n"));
    assert_eq!(ours.ask(b"n").answer.len(), 4);
    // A name of 255 characters is registered there, and cannot be asked for.
    let longest = [b'n'; 255];
    for (subject, is_found) in [(&mut theirs, false), (&mut ours, true)] {
        assert_eq!(subject.register(&Node { name: &longest, ..SHOP }).answer[..2], [118, 0]);
        let found = subject.ask(&[b"z".as_slice(), &longest].concat());
        assert_eq!(found.answer.starts_with(b"w\0"), is_found);
    }
    // What follows the last field is not read there, and is no request here.
    let more = [&Node { name: b"more", ..SHOP }.request()[..], b"\0"].concat();
    assert_eq!(theirs.ask(&more).answer[..2], [118, 0]);
    assert_eq!(ours.ask(&more), Outcome { answer: Vec::new(), is_closed: true });
    // A refused registration is kept open there, and closed here.
    for (subject, closes) in [(&mut theirs, false), (&mut ours, true)] {
        subject.register(&SHOP);
        let refused = subject.register(&SHOP);
        assert_eq!(refused.answer, b"v\x01\0\0\0\x63");
        assert_eq!(refused.is_closed, closes);
    }
}
