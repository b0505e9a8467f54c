//! `meshx epmd`, and the same program called by the name `epmd`.
//!
//! By its own name it speaks as every command of meshx does. By the name `epmd` (a symbolic link)
//! all arguments are OTP's, and so are words and exit statuses, so that scripts and an unmodified
//! `erl`, which starts `epmd -daemon` from beside itself, find no difference.

mod detach;
mod flags;

use std::ffi::OsString;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use meshx_dist::epmd::{KillReply, StopReply};
use meshx_epmd::daemon::{BindError, CONNECTIONS_MAX, Config, DESCRIPTORS_KEPT};
use meshx_epmd::{Client, Daemon, Error};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use self::detach::Start;
use self::flags::{Action, Flags};
use crate::failure::{Failure, exit};
use crate::output::{self, Output};

/// How long to wait for the addresses of this machine's name.
const OWN_NAME_LIMIT: Duration = Duration::from_secs(1);

/// What OTP's program says to words that it does not know, in our words.
const USAGE: &str = "usage: epmd [-d|-debug] [-address LIST] [-port N] [-daemon] \
                     [-relaxed_command_check]\n            \
                     [-packet_timeout SECONDS] [-delay_accept SECONDS] [-delay_write SECONDS]\n       \
                     epmd [-d|-debug] [-port N] [-names|-kill|-stop NAME]\n\n\
                     This epmd is meshx's: `meshx epmd --help` says more.";

/// The arguments, if this program was called by the name `epmd`.
pub(crate) fn called_as_epmd() -> Option<Vec<OsString>> {
    let mut words = std::env::args_os();
    let name = words.next()?;
    (Path::new(&name).file_name()? == "epmd").then(|| words.collect())
}

/// In whose words to speak.
#[derive(Clone, Copy)]
enum Voice {
    Meshx(Output),
    Otp(Output),
}

/// As `epmd`.
pub(crate) fn main(words: &[OsString]) -> ExitCode {
    let output = Output::new(false, false);
    let flags = match Flags::parse(words, |name| std::env::var_os(name)) {
        Ok(flags) => flags,
        Err(why) => {
            output.line(&format!("epmd: {why}\n{USAGE}"));
            return exit::NEGATIVE.into();
        }
    };
    match run(&flags, words, Voice::Otp(output), 0) {
        Ok(code) => code.into(),
        Err(failure) => {
            output.line(&format!("epmd: {}", failure.message));
            exit::NEGATIVE.into()
        }
    }
}

/// As `meshx epmd`.
pub(crate) fn run_command(words: &[OsString], output: Output, verbose: u8) -> ExitCode {
    // Ours may come behind OTP's, too.
    let json = |word: &OsString| word == "--json";
    let output = Output { json: output.json || words.iter().any(json), ..output };
    let words: Vec<OsString> = words.iter().filter(|word| !json(word)).cloned().collect();
    let words = words.as_slice();
    let outcome = Flags::parse(words, |name| std::env::var_os(name))
        .map_err(|why| {
            Failure::new(633, exit::USAGE, why)
                .hint("the flags are those of OTP's epmd; see `meshx epmd --help`")
        })
        .and_then(|flags| run(&flags, words, Voice::Meshx(output), verbose));
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => output.fail(&failure),
    }
}

fn run(flags: &Flags, words: &[OsString], voice: Voice, verbose: u8) -> Result<u8, Failure> {
    let is_background = flags.detach && detach::is_background();
    if flags.action == Action::Serve && flags.detach && !is_background {
        return started(&detach::start(words), flags, voice);
    }
    output::start_logging(flags.debug.saturating_add(verbose));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::internal("start the runtime", &error))?;
    let client = Client::local_at(flags.port);
    let code = runtime.block_on(async {
        match &flags.action {
            Action::Serve if is_background => serve_in_background(flags).await,
            Action::Serve => serve(flags, voice).await,
            Action::Names => names(&client, voice).await,
            Action::Started => started_already(&client, voice).await,
            Action::Dump => dump(&client, voice).await,
            Action::Kill => kill(&client, voice).await,
            Action::Stop(name) => stop(&client, name, voice).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// The parent's part of `-daemon`. No word where all is well: `erl -epmd` would print it each time.
fn started(start: &Start, flags: &Flags, voice: Voice) -> Result<u8, Failure> {
    match (start, voice) {
        // As OTP's: whoever is there is taken for a daemon.
        (Start::Ready, _) | (Start::InUse(_), Voice::Otp(_)) => {}
        (Start::InUse(address), Voice::Meshx(_)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| Failure::internal("start the runtime", &e))?;
            let there = runtime.block_on(Client::local_at(flags.port).names());
            if there.is_err() {
                return Err(bind_failure(&BindError::InUse(*address)));
            }
        }
        (Start::Failed(why), _) => {
            return Err(Failure::new(631, exit::NEGATIVE, format!("no EPMD was started: {why}")));
        }
    }
    Ok(exit::SUCCESS)
}

async fn serve(flags: &Flags, voice: Voice) -> Result<u8, Failure> {
    let mut daemon = match bind(flags) {
        Ok(daemon) => daemon,
        // As OTP's, which takes whoever is there for a daemon.
        Err(BindError::InUse(_)) if matches!(voice, Voice::Otp(_)) => {
            return Ok(exit::SUCCESS);
        }
        Err(error) => return Err(bind_failure(&error)),
    };
    if let Voice::Meshx(output) = voice {
        announce(&daemon, flags, output);
        if flags.addresses.is_empty() {
            tell_own_name(&daemon, output).await;
        }
    }
    until_end(&mut daemon).await
}

async fn serve_in_background(flags: &Flags) -> Result<u8, Failure> {
    detach::settle();
    let bound = bind(flags);
    detach::report(&Start::of(bound.as_ref().map(|_| ())));
    match bound {
        Ok(mut daemon) => until_end(&mut daemon).await,
        Err(_) => Ok(exit::NEGATIVE),
    }
}

/// Serves until KILL or a signal.
async fn until_end(daemon: &mut Daemon) -> Result<u8, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::internal("listen for signals", &e));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        () = daemon.killed() => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(exit::SUCCESS)
}

fn bind(flags: &Flags) -> Result<Daemon, BindError> {
    // A node holds a descriptor for as long as it lives.
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(CONNECTIONS_MAX + DESCRIPTORS_KEPT).unwrap_or(u64::MAX);
    let current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
    if limit.current.is_some() && limit.current < current {
        let _best_effort = setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum });
    }
    Daemon::bind(Config {
        port: flags.port,
        addresses: flags.addresses.clone(),
        relaxed_command_check: flags.relaxed_command_check,
        packet_timeout: flags.packet_timeout,
        delay_accept: flags.delay_accept,
        delay_write: flags.delay_write,
    })
}

fn bind_failure(error: &BindError) -> Failure {
    use meshx_core::Diagnostic as _;
    let status = match error {
        BindError::InUse(_) => exit::CONFLICT,
        _ => exit::CONFIGURATION,
    };
    let failure = Failure::new(error.code().0, status, error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn announce(daemon: &Daemon, flags: &Flags, output: Output) {
    let addresses: Vec<String> = daemon.addresses().iter().map(ToString::to_string).collect();
    if output.json {
        let value = serde_json::json!({ "schema": "meshx.epmd/1", "addresses": addresses });
        output.data(&value, ToString::to_string);
        return;
    }
    output.say(&format!("meshx epmd: an Erlang port mapper at {}", addresses.join(", ")));
    if flags.addresses.iter().any(|address| !address.is_loopback()) {
        output.say("Warning: everybody who reaches this machine can list its nodes");
    }
}

/// A node that is not named after a loopback address is asked for where this daemon may not listen.
async fn tell_own_name(daemon: &Daemon, output: Output) {
    let found = tokio::task::spawn_blocking(own_addresses);
    let Ok(Ok(found)) = tokio::time::timeout(OWN_NAME_LIMIT, found).await else { return };
    let (host, addresses) = found;
    let listens = |ip: &IpAddr| daemon.addresses().iter().any(|known| known.ip() == *ip);
    if let Some(missing) = addresses.iter().find(|ip| !listens(ip)) {
        output.say(&format!(
            "Note: nodes called NAME@{host} are asked for at {missing}, where this daemon does not \
             listen; -address {missing} changes that"
        ));
    }
}

fn own_addresses() -> (String, Vec<IpAddr>) {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let found = (host.as_str(), 0).to_socket_addrs();
    let addresses = found.map(|found| found.map(|address| address.ip()).collect());
    (host, addresses.unwrap_or_default())
}

async fn names(client: &Client, voice: Voice) -> Result<u8, Failure> {
    let reply = client.names().await.map_err(|error| voice.failure(error))?;
    let nodes: Vec<_> = reply
        .nodes
        .iter()
        .map(|(name, port)| serde_json::json!({ "name": name, "port": port }))
        .collect();
    let value = serde_json::json!({
        "schema": "meshx.epmd.names/1", "port": reply.port, "nodes": nodes,
    });
    voice.output().data(&value, |_| {
        let lines = reply.nodes.iter().map(|(name, port)| format!("name {name} at port {port}\n"));
        format!(
            "epmd: up and running on port {} with data:\n{}",
            reply.port,
            lines.collect::<String>()
        )
    });
    if reply.ignored > 0 {
        let count = reply.ignored;
        voice.output().line(&format!("epmd: {count} lines that are not of EPMD's form, not shown"));
    }
    Ok(exit::SUCCESS)
}

async fn started_already(client: &Client, voice: Voice) -> Result<u8, Failure> {
    match (client.names().await, voice) {
        (Ok(_), _) => Ok(exit::SUCCESS),
        (Err(_), Voice::Otp(_)) => Ok(exit::NEGATIVE),
        (Err(error), Voice::Meshx(_)) => Err(voice.failure(error)),
    }
}

async fn dump(client: &Client, voice: Voice) -> Result<u8, Failure> {
    let reply = client.dump().await.map_err(|error| voice.failure(error))?;
    let list = |entries: &[meshx_dist::epmd::DumpEntry]| -> Vec<serde_json::Value> {
        let entry = |it: &meshx_dist::epmd::DumpEntry| serde_json::json!({ "name": it.name, "port": it.port, "fd": it.fd });
        entries.iter().map(entry).collect()
    };
    let value = serde_json::json!({
        "schema": "meshx.epmd.dump/1",
        "port": reply.port,
        "active": list(&reply.active),
        "old": list(&reply.old),
    });
    voice.output().data(&value, |_| {
        let mut text = format!("epmd: up and running on port {} with data:\n", reply.port);
        for it in &reply.active {
            text.push_str(&format!(
                "active name     <{}> at port {}, fd = {}\n",
                it.name, it.port, it.fd
            ));
        }
        for it in &reply.old {
            text.push_str(&format!(
                "old/unused name <{}>, port = {}, fd = {} \n",
                it.name, it.port, it.fd
            ));
        }
        text
    });
    Ok(exit::SUCCESS)
}

async fn kill(client: &Client, voice: Voice) -> Result<u8, Failure> {
    match (client.kill().await.map_err(|error| voice.failure(error))?, voice) {
        (KillReply::Ok, _) => {
            let value = serde_json::json!({ "schema": "meshx.epmd.kill/1", "killed": true });
            voice.output().data(&value, |_| "Killed".to_owned());
            Ok(exit::SUCCESS)
        }
        (KillReply::No, Voice::Otp(output)) => {
            output.story("Killing not allowed - living nodes in database.");
            Ok(exit::NEGATIVE)
        }
        (KillReply::No, Voice::Meshx(_)) => {
            let what = "the EPMD was not ended: nodes are registered";
            Err(Failure::new(634, exit::NEGATIVE, what).hint(
                "end the nodes first; only a daemon started with -relaxed_command_check ends with \
                 nodes",
            ))
        }
    }
}

async fn stop(client: &Client, name: &str, voice: Voice) -> Result<u8, Failure> {
    let reply = match (client.stop(name).await, voice) {
        (Ok(reply), _) => reply,
        (Err(Error::Closed { .. }), Voice::Otp(output)) => {
            output.story("epmd: local epmd responded with <>");
            return Ok(exit::NEGATIVE);
        }
        (Err(error), _) => return Err(voice.failure(error)),
    };
    match (reply, voice) {
        (StopReply::NoExist, Voice::Meshx(_)) => {
            return Err(Failure::new(
                635,
                exit::NOT_FOUND,
                format!("no node {name} is registered"),
            )
            .hint("`meshx epmd -names` lists the names"));
        }
        (StopReply::NoExist, Voice::Otp(output)) => output.story("NOEXIST"),
        (StopReply::Stopped, _) => {
            let value = serde_json::json!({ "schema": "meshx.epmd.stop/1", "stopped": name });
            voice.output().data(&value, |_| "STOPPED".to_owned());
        }
    }
    Ok(exit::SUCCESS)
}

impl Voice {
    fn output(self) -> Output {
        match self {
            Self::Meshx(output) | Self::Otp(output) => output,
        }
    }

    /// Why the running daemon was of no use.
    fn failure(self, error: Error) -> Failure {
        let status = match &error {
            Error::Absent { .. } | Error::Malformed { .. } => exit::UNREACHABLE,
            Error::Silent { .. } => exit::TIMED_OUT,
            Error::Request { .. } | Error::Variable(_) => exit::USAGE,
            _ => exit::NEGATIVE,
        };
        match (self, &error) {
            (Self::Otp(_), Error::Absent { .. }) => {
                Failure::new(620, status, "Cannot connect to local epmd")
            }
            _ => {
                let failure = Failure::from(error);
                Failure { exit: status, ..failure }
            }
        }
    }
}
