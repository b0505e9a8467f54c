//! What the commands say about a mesh that runs.

use std::time::Duration;

use meshx_e2e::{Mesh, Need, Process, skips};

use crate::{A, B, pair};

#[test]
fn services_and_status_show_who_is_there() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let (_a, _b) = pair(&mesh);
    for arguments in [&["services", "list"][..], &["status"]] {
        let text = mesh.cli_ok(arguments);
        assert!(text.contains(A) && text.contains(B), "{arguments:?}: {text}");
        assert!(text.contains("passing"), "{arguments:?}: {text}");
        let json = mesh.json(arguments).to_string();
        assert!(json.contains(A) && json.contains(B), "{arguments:?}: {json}");
    }
    let check = mesh.cli(&["check"]);
    assert_eq!(check.code, 0, "{check:?}");
}

#[test]
fn why_says_that_all_is_well() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let (_a, _b) = pair(&mesh);
    let why = mesh.cli(&["why", B, A]);
    assert_eq!(why.code, 0, "{why:?}");
    let json = mesh.json(&["why", B, A]);
    assert!(json.is_object(), "{json}");
}

#[test]
fn without_a_control_plane_commands_end_with_3() {
    let mesh = Mesh::agent();
    for arguments in
        [&["services", "list"][..], &["status"], &["intentions", "list"], &["why", A, B]]
    {
        let mut command = mesh.command(arguments);
        let mut process =
            Process::start("no agent", command.env("CONSUL_HTTP_ADDR", "127.0.0.1:1"));
        assert_eq!(process.wait(Duration::from_secs(15)).code(), Some(3), "{arguments:?}");
        assert!(process.stderr().contains("hint"), "{arguments:?}: {}", process.stderr());
    }
}

#[test]
fn version_and_completions_need_no_control_plane() {
    let mesh = Mesh::agent();
    let version = mesh.cli_ok(&["version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    for shell in ["bash", "zsh", "fish"] {
        let script = mesh.cli_ok(&["completions", shell]);
        assert!(script.contains("intentions"), "{shell}");
    }
}

#[test]
fn usage_errors_end_with_2() {
    let mesh = Mesh::agent();
    for arguments in
        [&["no-such-command"][..], &["exec"], &["exec", "--no-such-flag", "--", "true"]]
    {
        assert_eq!(mesh.cli(arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn a_second_agent_on_the_same_address_says_who_is_there() {
    let mesh = Mesh::agent();
    let second = mesh.cli(&["agent", "--dns-addr", "none", "--http-addr", mesh.address()]);
    assert!(second.code > 0, "{second:?}");
    assert!(second.stderr.contains(mesh.address()) && second.stderr.contains("hint"), "{second:?}");
}

#[test]
fn demo_tells_the_story_and_ends() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut command = mesh.command(&["demo"]);
    command.env_remove("CONSUL_HTTP_ADDR");
    let mut demo = Process::start("meshx demo", &mut command);
    demo.close_stdin();
    let status = demo.wait(Duration::from_mins(1));
    assert_eq!(status.code(), Some(0), "{}", demo.stderr());
    let mut story: String = std::iter::from_fn(|| demo.next_line(Duration::from_secs(5))).collect();
    story.push_str(&demo.stderr());
    for word in ["deny", "allow", "spiffe://"] {
        assert!(story.contains(word), "no `{word}`: {story}");
    }
}

#[test]
fn demo_works_without_erlang() {
    let mesh = Mesh::agent();
    let mut command = mesh.command(&["demo"]);
    command.env_remove("CONSUL_HTTP_ADDR").env("PATH", mesh.home());
    let mut demo = Process::start("meshx demo without erl", &mut command);
    demo.close_stdin();
    assert_eq!(demo.wait(Duration::from_mins(1)).code(), Some(0), "{}", demo.stderr());
}
