//! Every kind of message with real VMs, in both directions, in each form and with every flag that
//! changes how it is written. Skipped with a notice where there is no `erl`; releases beside the
//! machine's own run where `cargo xtask provision --otp` put them.

mod identifiers;
mod sending;
mod session;
#[path = "../support/mod.rs"]
mod support;
mod watching;

use std::io::Write;
use std::process::{Command, Stdio};

use meshx_dist::handshake::Flags;
use meshx_etf::term;
use session::Session;
use support::{Epmd, Vm, erl_is_here};

/// Does what it is told, and passes on what else it gets.
const DRIVER: &str = "Loop = fun Loop(Owner) -> receive \
                        {apply, From, M, F, A} -> From ! {result, catch apply(M, F, A)}, Loop(From); \
                        Other -> Owner ! {got, Other}, Loop(Owner) end end, \
                      register(driver, spawn(fun() -> process_flag(trap_exit, true), \
                                                      Loop(self()) end)).";

/// What the releases at hand have beyond those of OTP 23.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Since {
    Otp23,
    Otp25,
    Otp28,
}

/// Each form; with an atom cache and without reasons behind, and so on.
fn flag_sets() -> [Flags; 5] {
    let plain = Flags::NODE.without(Flags::DIST_HDR_ATOM_CACHE);
    let few = Flags::EXIT_PAYLOAD | Flags::SEND_SENDER;
    [
        Flags::NODE | Flags::ALTACT_SIG,
        Flags::NODE.without(few | Flags::FRAGMENTS),
        plain,
        plain.without(Flags::FRAGMENTS) | Flags::ALTACT_SIG,
        plain.without(Flags::FRAGMENTS | few),
    ]
}

fn all_with(program: &[String], since: Since) {
    let epmd = Epmd::start();
    let mut command = Command::new(&program[0]);
    let template = Vm::command(Some("vm@localhost"), "cookie", DRIVER);
    command
        .args(&program[1..])
        .args(template.get_args())
        .args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
        .env_remove("ERL_AFLAGS")
        .env_remove("ERL_ZFLAGS")
        .env("ERL_EPMD_PORT", epmd.port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let _vm = Vm::spawn(command);
    let port = epmd.registered("vm").0.port;
    for (number, flags) in flag_sets().into_iter().enumerate() {
        let mut session = Session::dial(port, &format!("rust{number}@localhost"), flags);
        let has_altact = session.flags.contains(Flags::ALTACT_SIG);
        assert_eq!(has_altact, since == Since::Otp28 && flags.contains(Flags::ALTACT_SIG));
        let newer = Flags::UNLINK_ID | Flags::V4_NC | Flags::ALIAS;
        let expected = if since == Since::Otp23 { Flags::NONE } else { newer };
        assert_eq!(session.flags & newer, expected);
        watching::links(&mut session);
        watching::monitors(&mut session);
        sending::messages(&mut session);
        if since >= Since::Otp25 {
            sending::aliases(&mut session);
        }
        sending::spawns(&mut session);
        sending::large(&mut session);
        if has_altact {
            sending::alternatives(&mut session);
        }
        // Nothing is left, and the connection is well.
        assert_eq!(session.links(&session.driver.clone()), term!([]));
        assert_eq!(session.others, []);
    }
    identifiers::limits(port, since == Since::Otp23);
}

#[test]
fn with_the_release_of_this_machine() {
    if erl_is_here() {
        all_with(&["erl".to_owned()], Since::Otp25);
    }
}

/// A release in a folder for `chroot`, as the end-to-end tests have it; skipped where there is none.
fn with_release(release: u32, since: Since) {
    let given = std::env::var_os(format!("MESHX_TEST_OTP{release}"));
    let cached = || {
        let home = std::env::var_os("HOME")?;
        Some(std::path::Path::new(&home).join(format!(".cache/meshx-test/otp-{release}")).into())
    };
    let folder = given.or_else(cached).map(std::path::PathBuf::from);
    let Some(folder) = folder.filter(|folder| folder.join("usr/bin/erl").exists()) else {
        writeln!(std::io::stderr(), "skipped: no Erlang/OTP {release}").expect("stderr");
        return;
    };
    let folder = folder.display();
    let script = format!(
        "for it in tmp dev etc; do mount --bind /$it '{folder}'/$it || exit; done; \
         exec chroot '{folder}' /usr/bin/erl \"$@\""
    );
    all_with(&["unshare", "--mount", "sh", "-c", &script, "erl"].map(str::to_owned), since);
}

#[test]
fn with_23() {
    with_release(23, Since::Otp23);
}

#[test]
fn with_27() {
    with_release(27, Since::Otp25);
}

#[test]
fn with_29() {
    with_release(29, Since::Otp28);
}
