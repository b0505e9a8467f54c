//! `meshx demo e3` and `meshx demo e4`, for real.

use std::fs;
use std::time::Duration;

use meshx_e2e::{Mesh, Process};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

/// What a demo tells: stdout, stderr. It must end well.
fn demo(mesh: &Mesh, words: &[&str]) -> (String, String) {
    let mut command = mesh.command(words);
    command.env_remove("CONSUL_HTTP_ADDR").env("XDG_RUNTIME_DIR", mesh.home());
    let mut demo = Process::start("meshx demo", &mut command);
    demo.close_stdin();
    let status = demo.wait(Duration::from_mins(1));
    let lines: Vec<_> = std::iter::from_fn(|| demo.next_line(SOON)).collect();
    let (told, aside) = (lines.join("\n"), demo.stderr());
    assert_eq!(status.code(), Some(0), "{told}\n{aside}");
    (told, aside)
}

#[test]
fn e3_tells_who_may_call_what() {
    let mesh = Mesh::agent();
    let (story, _) = demo(&mesh, &["demo", "e3"]);
    let mut rest = story.as_str();
    for expected in [
        "(web)> math.add(40, 2)\n     42   in ",
        "(web)> math.caller()\n     spiffe://",
        "/svc/web\n   (guest)> math.caller()\n     spiffe://",
        "/svc/guest\n",
        "(web)> math.divide(7, 0)\n     DivisionByZero { dividend: 7 }",
        "(guest)> math.add(40, 2)\n     error[MX0853]: math.add at math: ",
        "/svc/guest call it\n     hint: allow it in the server's policy",
        "version 1 of the wire: \"math.add\", [40, 2]\n     42   in ",
        "called by spiffe://",
        "$ meshx intentions deny web math",
        "web saw the end ",
        "error[MX0862]",
        "error[MX0706]: connect web to math: denied by web → math",
        "nobody else is cut",
        "$ meshx intentions allow web math\n   (web)> math.add(40, 2)\n     42   ",
        "Done in ",
    ] {
        let Some((_, after)) = rest.split_once(expected) else {
            panic!("no `{expected}` in its place: {story}");
        };
        rest = after;
    }
}

#[test]
fn e3_gives_its_steps_to_programs() {
    let mesh = Mesh::agent();
    let (report, story) = demo(&mesh, &["demo", "e3", "--json"]);
    assert!(story.contains("deny: the live connection is cut"), "{story}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["schema"], &report["ok"]), (&"meshx.demo.e3/1".into(), &true.into()));
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    let expected = "join call call identity identity application_error denied version_1 cut refused \
        not_cut healed";
    assert_eq!(names.join(" "), expected, "{report}");
    assert!(steps.iter().all(|step| step["seconds"].is_f64()), "{report}");
    let step = |name| steps.iter().find(|step| step["step"] == name).unwrap();
    assert_eq!(step("denied")["kind"], "denied");
    assert!(step("denied")["hint"].is_string());
    assert_eq!(step("version_1")["identity"], step("identity")["identity"]);
}

#[test]
fn e4_loses_no_call_when_a_server_is_killed() {
    let mesh = Mesh::agent();
    let (report, story) = demo(&mesh, &["demo", "e4", "--json"]);
    for expected in ["kill -9 ", "squares-1 is dead", "failed calls     0", "longest call"] {
        assert!(story.contains(expected), "no `{expected}`: {story}");
    }
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["schema"], &report["ok"]), (&"meshx.demo.e4/1".into(), &true.into()));
    assert_eq!((&report["workers"], &report["failed"]), (&20.into(), &0.into()), "{report}");
    assert_eq!(report["failures"], Value::Array(Vec::new()));
    let calls = |when: &str, by: &str| report[when][by].as_u64().unwrap_or(0);
    assert!(calls("before", "squares-1") > 0 && calls("before", "squares-2") > 0, "{report}");
    assert_eq!(calls("after", "squares-1"), 0, "{report}");
    // Two seconds for 20 workers: a stall would show.
    assert!(calls("after", "squares-2") > 1000, "{report}");
    let all = calls("before", "squares-1") + calls("before", "squares-2");
    assert_eq!(report["calls"], all + calls("after", "squares-2"), "{report}");
    // What ran on the killed server was called again.
    assert!(report["retries"].as_u64().unwrap() > 0, "{report}");
    assert!(report["longest_seconds"].as_f64().unwrap() < 2.0, "{report}");
    assert!(report["back_seconds"].is_f64(), "{report}");
    // Also the killed one left nothing.
    assert!(!fs::exists(mesh.home().join("meshx")).unwrap(), "{story}");
}

#[test]
fn a_story_is_chosen_one_way() {
    let mesh = Mesh::agent();
    for words in [&["demo", "e5"][..], &["demo", "e3", "--with", "node"]] {
        assert_eq!(mesh.cli(words).code, 2, "{words:?}");
    }
}
