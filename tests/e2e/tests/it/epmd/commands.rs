//! The commands, beside those of OTP's program.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use meshx_e2e::{Epmd, Home, Mesh, Need, Release, meshx, skips, wait_until};

use super::wire::{lookup, register};
use super::{Daemon, SOON, forget_settings, free_port};

/// What a command left: its status, stdout and stderr.
type Left = (Option<i32>, String, String);

fn run(program: &Path, words: &[&str]) -> Left {
    let mut command = Command::new(program);
    forget_settings(&mut command);
    let output = command.args(words).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Our binary by the name `epmd`.
fn link() -> (Home, PathBuf) {
    let home = Mesh::folder();
    let link = home.path().join("epmd");
    symlink(meshx(), &link).unwrap();
    (home, link)
}

fn by_name(words: &[&str]) -> Left {
    run(&meshx(), &[&["epmd"], words].concat())
}

#[test]
fn says_and_exits_as_otps() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let (_home, ours) = link();
    let theirs = Path::new("epmd");
    let same = |words: &[&str]| {
        let expected = run(theirs, words);
        assert_eq!(run(&ours, words), expected, "{words:?}");
        expected
    };
    let nobody = free_port().to_string();
    for words in [["-names"].as_slice(), &["-kill"], &["-stop", "shop"], &["-started"]] {
        let left = same(&[&["-port", &nobody], words].concat());
        assert_eq!(left.0, Some(1));
    }
    for words in [["-nonsense"].as_slice(), &["-port"], &["-port", "x", "-names"], &["-help"]] {
        let (status, stdout, stderr) = run(&ours, words);
        assert_eq!((status, stdout), (Some(1), String::new()), "{words:?}");
        assert_eq!(run(theirs, words).0, Some(1), "{words:?}");
        assert!(stderr.contains("usage: epmd"), "{stderr}");
    }

    // Each program asks each daemon.
    let otp = Epmd::start(Release::Machine);
    let daemon = Daemon::start(&[]);
    let mut answers = Vec::new();
    for port in [otp.port(), daemon.port] {
        let (_lease, _) = register(port, "shop", 40123);
        let port = port.to_string();
        let ask = |words: &[&str]| {
            let (status, stdout, stderr) = same(&[&["-port", port.as_str()], words].concat());
            (status, stdout.replace(&port, "PORT"), stderr)
        };
        let names = ask(&["-names"]);
        let text = "epmd: up and running on port PORT with data:\nname shop at port 40123\n";
        assert_eq!(names, (Some(0), text.to_owned(), String::new()));
        let kill = ask(&["-kill"]);
        assert_eq!(kill.0, Some(1));
        answers.push([names, kill, ask(&["-started"]), ask(&["-stop", "shop"])]);
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn relaxed_commands() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let (_home, ours) = link();
    for program in [Path::new("epmd"), &ours] {
        let mut daemon = Daemon::start(&["-relaxed_command_check"]);
        let port = daemon.port.to_string();
        let (_lease, _) = register(daemon.port, "shop", 40123);
        let left = |status, text: &str| (Some(status), text.to_owned(), String::new());
        let ask = |words: &[&str]| run(program, &[&["-port", port.as_str()], words].concat());
        assert_eq!(ask(&["-stop", "till"]), left(0, "NOEXIST\n"));
        assert_eq!(ask(&["-stop", "shop"]), left(0, "STOPPED\n"));
        assert_eq!(lookup(daemon.port, "shop"), None);
        let (_lease, _) = register(daemon.port, "shop", 40123);
        assert_eq!(ask(&["-kill"]), left(0, "Killed\n"));
        assert_eq!(daemon.process.wait(SOON).code(), Some(0));
    }
}

#[test]
fn by_its_own_name_it_speaks_as_meshx() {
    let port = free_port().to_string();
    let (status, stdout, stderr) = by_name(&["-port", &port, "-names"]);
    assert_eq!((status, stdout.as_str()), (Some(3), ""));
    assert!(stderr.contains("MX0620") && stderr.contains("meshx epmd -daemon"), "{stderr}");
    let (status, _, stderr) = by_name(&["-nonsense"]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("-nonsense") && stderr.contains("meshx epmd --help"), "{stderr}");
    let (status, _, stderr) = by_name(&["-systemd"]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("not supported"), "{stderr}");
    let (status, stdout, _) = by_name(&["--help"]);
    assert_eq!(status, Some(0));
    for flag in ["-port N", "-address LIST", "-daemon", "-relaxed_command_check", "-stop NAME"] {
        assert!(stdout.contains(flag), "{stdout}");
    }

    let daemon = Daemon::start(&[]);
    let port = daemon.port.to_string();
    let (_lease, _) = register(daemon.port, "shop", 40123);
    let in_json = [
        run(&meshx(), &["--json", "epmd", "-port", &port, "-names"]),
        by_name(&["-port", &port, "-names", "--json"]),
    ];
    for (status, stdout, _) in in_json {
        let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(status, Some(0));
        assert_eq!(value["nodes"], serde_json::json!([{ "name": "shop", "port": 40123 }]));
    }
    let (status, _, stderr) = by_name(&["-port", &port, "-kill"]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("MX0634"), "{stderr}");
    assert_eq!(by_name(&["-port", &port, "-stop", "shop"]).0, Some(1));
    let (status, _, stderr) = by_name(&["-port", &port]);
    assert_eq!(status, Some(7));
    assert!(stderr.contains("MX0630"), "{stderr}");
}

#[test]
fn the_background_is_a_session_of_its_own() {
    let (_home, ours) = link();
    let number = free_port();
    let port = number.to_string();
    let quiet = (Some(0), String::new(), String::new());
    // Output is collected to its end, so this would hang if the daemon kept it open.
    assert_eq!(run(&ours, &["-port", &port, "-daemon"]), quiet);
    assert_eq!(lookup(number, "shop"), None, "it listens before its parent returns");
    assert_eq!(run(&ours, &["-port", &port, "-daemon"]), quiet, "as OTP's where one runs");
    assert_eq!(run(&ours, &["-port", &port]), quiet, "as OTP's where one runs");
    assert_eq!(by_name(&["-port", &port, "-daemon"]), quiet);
    let (lease, _) = register(number, "shop", 40123);
    let (status, names, _) = run(&ours, &["-port", &port, "-names"]);
    assert_eq!(status, Some(0));
    assert!(names.ends_with("name shop at port 40123\n"), "{names}");
    drop(lease);
    wait_until("it ends", SOON, || {
        (run(&ours, &["-port", &port, "-kill"]).1 == "Killed\n").then_some(())
    });

    // Whoever holds the port and is no EPMD is told of.
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = other.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || while other.accept().is_ok() {});
    let (status, _, stderr) = by_name(&["-port", &taken, "-daemon"]);
    assert_eq!(status, Some(7), "{stderr}");
    let (status, _, stderr) = by_name(&["-port", &port, "-daemon", "-address", "192.0.2.77"]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("192.0.2.77"), "{stderr}");
}
