//! From a deny to the end of a live connection.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Kind};
use crate::http;
use crate::peer;
use crate::report::{Row, Sample, Section, Unit};
use crate::route::{CLIENT, Route, SERVER, without_consul};
use crate::stage::Stage;

/// How long a client may take to be let in again.
const HEALED: Duration = Duration::from_secs(15);

/// How long a cut may take before we say that there was none.
const CUT: Duration = Duration::from_secs(5);

/// How long Consul's own sidecars are watched not cutting.
const WATCHED: Duration = Duration::from_secs(3);

pub(crate) fn measure(stage: &Stage, section: &mut Section) -> Result<()> {
    let server = peer::serve()?;
    for kind in Kind::all(stage) {
        under(stage, section, kind, server).with_context(|| kind.title())?;
    }
    if stage.consul.is_some() {
        consuls_own(stage, section, server)?;
    } else {
        without_consul(section);
    }
    Ok(())
}

/// Our pair under this control plane.
fn under(stage: &Stage, section: &mut Section, kind: Kind, server: u16) -> Result<()> {
    let plane = ControlPlane::start(stage, kind)?;
    plane.await_authority(stage)?;
    let route = Route::meshx(stage, &plane, server)?;
    let (mut sent, mut answered, mut typed) =
        (Sample::default(), Sample::default(), Sample::default());
    for _ in 0..stage.runs * 4 {
        if stage.budget.is_spent()? {
            break;
        }
        let watch = allowed(stage, &plane, &route)?;
        let id = intention(&plane)?;
        let begun = Instant::now();
        http::put(&plane.address, &format!("/v1/connect/intentions/{id}"), &deny(CLIENT, SERVER))?;
        let done = Instant::now();
        let cut = watch.cut()?;
        sent.push(milliseconds(cut.saturating_duration_since(begun)));
        // Often the sidecar is quicker than the control plane's answer to who asked.
        answered.push(milliseconds(cut.saturating_duration_since(done)));
    }
    for _ in 0..stage.runs * 4 {
        if stage.budget.is_spent()? {
            break;
        }
        let watch = allowed(stage, &plane, &route)?;
        let begun = Instant::now();
        meshx(stage, &plane, "deny")?;
        typed.push(milliseconds(watch.cut()?.saturating_duration_since(begun)));
    }
    let subject = match kind {
        Kind::Meshx => "meshx proxy pair, meshx agent",
        Kind::Consul => "meshx proxy pair, Consul 1.8.7",
    };
    let rows = [
        ("PUT of the deny sent, until the client's socket ends", sent),
        ("PUT of the deny answered, until the client's socket ends", answered),
        ("`meshx intentions deny` started, until the client's socket ends", typed),
    ];
    for (what, sample) in rows {
        section.row(Row::new(what, subject, Unit::Milliseconds, sample).at_most(1000.0));
    }
    Ok(())
}

/// A peer that looks at intentions at the handshake only.
fn consuls_own(stage: &Stage, section: &mut Section, server: u16) -> Result<()> {
    let plane = ControlPlane::start(stage, Kind::Consul)?;
    plane.await_authority(stage)?;
    let route = Route::consul(stage, &plane, server)?;
    let stream = peer::echoing(route.address).context("no echo through Consul's proxies")?;
    stream.set_read_timeout(Some(WATCHED))?;
    let watch = Watch::over(stream);
    let begun = Instant::now();
    http::post(&plane.address, "/v1/connect/intentions", &deny("peer-web", "peer-db"))?;
    let said = match watch.end()? {
        Some(cut) => format!("cut it after {:?}", cut.saturating_duration_since(begun)),
        None => format!("had not cut it after {WATCHED:?}"),
    };
    section.notice(format!("a live connection, denied: consul connect proxy {said}"));
    Ok(())
}

/// Allows the pair, and waits until a connection passes.
fn allowed(stage: &Stage, plane: &ControlPlane, route: &Route) -> Result<Watch> {
    meshx(stage, plane, "allow")?;
    let passes = || peer::echoing(route.address);
    let stream = stage.budget.until(
        "an echo after the deny is lifted",
        HEALED,
        Duration::from_millis(5),
        passes,
    )?;
    stream.set_read_timeout(Some(CUT))?;
    Ok(Watch::over(stream))
}

/// `meshx intentions ACTION CLIENT SERVER`.
fn meshx(stage: &Stage, plane: &ControlPlane, action: &str) -> Result<()> {
    let output = stage
        .meshx(&plane.address, &["--quiet", "intentions", action, CLIENT, SERVER])
        .output()
        .context("cannot start meshx")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("meshx intentions {action}: {}: {said}", output.status);
    }
    Ok(())
}

/// The id of our pair's intention: Consul 1.8 changes intentions by id only.
fn intention(plane: &ControlPlane) -> Result<String> {
    let intentions = http::get(&plane.address, "/v1/connect/intentions")?;
    let known = intentions.as_array().into_iter().flatten();
    known
        .filter(|known| known["SourceName"] == CLIENT && known["DestinationName"] == SERVER)
        .find_map(|known| known["ID"].as_str().map(str::to_owned))
        .context("the intention has no id")
}

fn deny(source: &str, destination: &str) -> Value {
    json!({"SourceName": source, "DestinationName": destination, "SourceType": "consul",
        "Action": "deny"})
}

/// A client that sits on a connection until it ends.
struct Watch(thread::JoinHandle<Result<Option<Instant>>>);

impl Watch {
    fn over(mut stream: TcpStream) -> Self {
        Self(thread::spawn(move || match stream.read(&mut [0]) {
            Ok(0) => Ok(Some(Instant::now())),
            Ok(_) => bail!("bytes that nobody sent"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Some(Instant::now())),
            Err(error) => Err(error.into()),
        }))
    }

    /// When it ended; `None` at the stream's time limit.
    fn end(self) -> Result<Option<Instant>> {
        self.0.join().unwrap_or_else(|_| bail!("the client panicked"))
    }

    fn cut(self) -> Result<Instant> {
        self.end()?.with_context(|| format!("a denied connection lives after {CUT:?}"))
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
