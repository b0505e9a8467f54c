//! `meshx etf`, with what real VMs write.

use std::time::Duration;

use meshx_e2e::{Mesh, PlainVm, Process, Release, skips};

const SOON: Duration = Duration::from_secs(10);

/// Terms of every kind that a VM can make, each as a line of hexadecimal digits.
const TERMS: &str = "
    [lists:flatten([io_lib:format(\"~2.16.0b\", [Byte]) || <<Byte>> <= term_to_binary(Term)])
     || Term <- [0, 255, 256, -1, 1 bsl 31, 1 bsl 70, -(1 bsl 3000), 1.5, -0.0, 1.0e300,
     ok, 'with space', list_to_atom([16#e9]), list_to_atom([16#4e2d]), [], \"text\", [1, 2 | three],
     lists:seq(1, 1000), {}, {a, {b}}, list_to_tuple(lists:seq(1, 300)), <<>>, <<\"bytes\">>, <<5:3>>,
     binary:copy(<<7>>, 100000), #{}, #{z => 1, 2 => y, \"k\" => #{b => 1, a => 2}},
     maps:from_list([{N, {N}} || N <- lists:seq(1, 100)]), self(), make_ref(), Port,
     fun lists:map/2, fun(X) -> {X, TERMS} end, [self(), {make_ref(), [1.5, <<1>>]}]]]";

fn hex_of_terms(vm: &mut PlainVm) -> Vec<String> {
    vm.eval("TERMS = {captured, 1}");
    // OTP 26 has one form for all ports; we write the shorter one of OTP 25, which it reads too.
    vm.eval(
        "Port = case erlang:system_info(otp_release) of [$2, D] when D < $6 -> hd(erlang:ports());
         _ -> no_port end",
    );
    let printed = vm.eval(TERMS);
    let digits = |text: &&str| text.len() > 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
    printed.split('"').filter(digits).map(str::to_owned).collect()
}

fn same_bytes(release: Release, minor_version: &str) {
    if skips(release.needs()) {
        return;
    }
    let mesh = Mesh::folder();
    let mut vm = PlainVm::builder(release, "", "", 1).start();
    let terms = hex_of_terms(&mut vm);
    assert_eq!(terms.len(), 34, "{terms:?}");
    let mut filter = filter(mesh.path(), &["--minor-version", minor_version]);
    for term in terms {
        filter.write(&format!("{term}00ff\n"));
        let answer = filter.next_line(SOON);
        assert_eq!(answer, Some(format!("ok {} {term}", term.len() / 2)));
    }
}

fn filter(home: &std::path::Path, arguments: &[&str]) -> Process {
    let mut command = std::process::Command::new(meshx_e2e::meshx());
    command.current_dir(home).args(["etf", "filter"]).args(arguments);
    Process::start("meshx etf filter", &mut command)
}

#[test]
fn terms_of_the_machines_own_otp_come_out_as_they_went_in() {
    let release = Release::Machine;
    if skips(release.needs()) {
        return;
    }
    let mut vm = PlainVm::builder(release, "", "", 1).start();
    let is_old = vm.eval("list_to_integer(erlang:system_info(otp_release)) < 26");
    same_bytes(release, if is_old == "true" { "1" } else { "2" });
}

#[test]
fn terms_of_otp_23_come_out_as_they_went_in() {
    same_bytes(Release::Otp23, "1");
}

#[test]
fn terms_of_otp_27_come_out_as_they_went_in() {
    same_bytes(Release::Otp27, "2");
}

#[test]
fn terms_of_otp_29_come_out_as_they_went_in() {
    same_bytes(Release::Otp29, "2");
}

#[test]
fn a_filter_answers_each_line_before_the_next_one_comes() {
    let home = Mesh::folder();
    let mut filter = filter(home.path(), &[]);
    for (line, begin) in
        [("836101", "ok 3 836101"), ("", "error "), ("83ff", "error "), ("8361017", "error ")]
    {
        filter.write(&format!("{line}\n"));
        let answer = filter.next_line(SOON).unwrap();
        assert!(answer.starts_with(begin), "{line}: {answer}");
    }
    filter.write("836a");
    filter.close_stdin();
    assert_eq!(filter.next_line(SOON).as_deref(), Some("ok 2 836a"));
    assert_eq!(filter.next_line(SOON), None);
    assert_eq!(filter.wait(SOON).code(), Some(0));
}

#[test]
fn terms_are_decoded_and_encoded_at_the_command_line() {
    let mesh = Mesh::agent();
    let hex = mesh.cli_ok(&["etf", "encode", "{ok, [1, 2.5], #{<<\"k\">> => \"v\"}}"]);
    let file = mesh.home().join("term");
    std::fs::write(&file, &hex).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(mesh.cli_ok(&["etf", "decode", file]), "{ok,[1,2.5],#{<<\"k\">> => \"v\"}}\n");
    let json = mesh.json(&["etf", "decode", file]);
    assert_eq!(json["term"]["tuple"][1], serde_json::json!([1, 2.5]), "{json}");
    assert_eq!(json["bytes"], hex.trim().len() / 2, "{json}");
    for (arguments, status, code) in [
        (["encode", "{ok"], 1, "MX0641"),
        (["decode", "/dev/null"], 1, "MX0640"),
        (["decode", "/no/such/file"], 2, "MX0642"),
    ] {
        let outcome = mesh.cli(&["etf", arguments[0], arguments[1]]);
        assert_eq!(outcome.code, status, "{outcome:?}");
        assert!(outcome.stderr.contains(code), "{outcome:?}");
    }
}
