//! Events as a text for people.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::text::{Foreign, Ref};
use super::{Amount, Called, Event, Observe, Times};
use crate::context::Peer;
use crate::error::Error;

/// Writes a block of lines for each event, as `MeshxRpc.attach_telemetry` does: for the development of
/// a program, to be read while it runs. Times are UTC.
///
/// ```text
/// 12:17:11.869  client call ping → ok
///   local   e9sJqA  nonode@nohost  Elixir.Example2.Client
///   remote  QglsBQ  nonode@nohost  Elixir.Example2.Server
///   peer    127.0.0.1:4000  v1  hsk_ref 4034  req_ref 4066
///   time        total      queue        ser       send       exec       recv       dser       idle
///            2153.0µs      1.0µs      3.0µs    105.0µs   2002.0µs     36.0µs      6.0µs  17547.3µs
///   size    sent 31 B in 1 block, received 1.50 MiB in 96 blocks
/// ```
///
/// Reasons of errors are shown whatever they repeat; arguments and results are not. Writing waits for
/// the writer, and with it does who has called: this is not for production.
pub struct Pretty(Mutex<Box<dyn Write + Send>>);

/// What is shown of a text that peers choose, in characters.
const SHOWN: usize = 64;

/// The same of a reason.
const REASON: usize = 400;

impl Pretty {
    /// To stderr.
    pub fn new() -> Self {
        Self::to(io::stderr())
    }

    /// To another writer. What cannot be written is lost.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(writer)))
    }
}

impl Default for Pretty {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Pretty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pretty").finish_non_exhaustive()
    }
}

impl Observe for Pretty {
    fn event(&self, event: &Event<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = Block { event, now }.to_string();
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody could be told that it failed.
        drop(writer.write_all(text.as_bytes()).and_then(|()| writer.flush()));
    }
}

/// The lines of an event.
struct Block<'a> {
    event: &'a Event<'a>,
    now: Duration,
}

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.now.as_secs(), self.now.subsec_millis());
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{hour:02}:{minute:02}:{second:02}.{millis:03}  ")?;
        match *self.event {
            Event::Called(called) => call(f, called),
            Event::Connected { side, peer, took } => {
                writeln!(f, "{} connected in {}", side.name(), Time(took))?;
                sides(f, peer, None)
            }
            Event::Disconnected { side, peer, error } => {
                writeln!(f, "{} disconnected → {}", side.name(), Outcome(error))?;
                sides(f, peer, None)
            }
            Event::Unreachable { address, error } => {
                let address = Foreign(address, SHOWN);
                writeln!(f, "client no connection to {address} → {}", Outcome(Some(error)))
            }
            Event::HandshakeFailed { side, address, error } => {
                let (side, address) = (side.name(), Foreign(address, SHOWN));
                writeln!(f, "{side} no handshake with {address} → {}", Outcome(Some(error)))
            }
            Event::CastLost { function, error } => {
                let function = Foreign(function, SHOWN);
                writeln!(f, "client cast {function} is lost → {}", Outcome(Some(error)))
            }
        }
    }
}

fn call(f: &mut fmt::Formatter<'_>, called: &Called<'_>) -> fmt::Result {
    let (side, way) = (called.side.name(), called.way.name());
    let function = Foreign(called.function, SHOWN);
    write!(f, "{side} {way} {function} → {}", Outcome(called.result.err()))?;
    if called.attempt > 1 {
        write!(f, "  (attempt {})", called.attempt)?;
    }
    f.write_char('\n')?;
    match called.peer {
        Some(peer) => sides(f, peer, Some(called.req_ref))?,
        None => writeln!(f, "  peer    none: it never got onto a connection")?,
    }
    if let Some(trace) = called.trace {
        writeln!(f, "  trace   {trace}")?;
    }
    times(f, &called.times)?;
    let (sent, received) = (Size(called.sent), Size(called.received));
    writeln!(f, "  size    sent {sent}, received {received}")
}

/// Who speaks with whom.
fn sides(f: &mut fmt::Formatter<'_>, peer: &Peer, req_ref: Option<u64>) -> fmt::Result {
    let columns = [&peer.local, &peer.remote].map(|refs| {
        let conn_ref = Foreign(&Ref(&refs.conn_ref).to_string(), 12).to_string();
        let node_ref = Foreign(&refs.node_ref, SHOWN).to_string();
        (conn_ref, node_ref, Foreign(&refs.svc_ref, SHOWN))
    });
    let length = |text: &str| text.chars().count();
    let conn = columns.iter().map(|(conn, ..)| length(conn)).max().unwrap_or(0);
    let node = columns.iter().map(|(_, node, _)| length(node)).max().unwrap_or(0);
    for (side, (conn_ref, node_ref, svc_ref)) in ["local ", "remote"].into_iter().zip(&columns) {
        writeln!(f, "  {side}  {conn_ref:conn$}  {node_ref:node$}  {svc_ref}")?;
    }
    let address = Foreign(&peer.address, SHOWN);
    write!(f, "  peer    {address}  {}  hsk_ref {}", peer.protocol.name(), peer.hsk_ref)?;
    if let Some(req_ref) = req_ref {
        write!(f, "  req_ref {req_ref}")?;
    }
    f.write_char('\n')?;
    match &peer.identity {
        Some(identity) => writeln!(f, "  who     {}", Foreign(identity, REASON)),
        None => Ok(()),
    }
}

/// Where the time went: a line of names, a line of numbers.
fn times(f: &mut fmt::Formatter<'_>, times: &Times) -> fmt::Result {
    let columns = [
        ("total", times.total()),
        ("queue", times.queue),
        ("ser", times.ser),
        ("send", times.send),
        ("exec", times.exec),
        ("recv", times.recv),
        ("dser", times.dser),
        ("idle", times.idle),
    ]
    .map(|(name, time)| (name, Time(time).to_string()));
    let width = |time: &str| time.chars().count().max(9);
    f.write_str("  time  ")?;
    for (name, time) in &columns {
        write!(f, "  {name:>0$}", width(time))?;
    }
    f.write_str("\n        ")?;
    for (_, time) in &columns {
        write!(f, "  {time:>0$}", width(time))?;
    }
    f.write_char('\n')
}

/// How it ended.
struct Outcome<'a>(Option<&'a Error>);

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(error) = self.0 else { return f.write_str("ok") };
        let (kind, executed) = (error.kind().token(), error.executed().token());
        write!(f, "{kind} (executed: {executed}): {}", Foreign(error.reason(), REASON))
    }
}

/// Microseconds, with one decimal.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.as_nanos().saturating_add(50) / 100;
        write!(f, "{}.{}µs", tenths / 10, tenths % 10)
    }
}

/// Bytes and blocks.
struct Size(Amount);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Amount { bytes, blocks } = self.0;
        let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.into_iter().find(|(_, unit)| bytes >= *unit) {
            None => write!(f, "{bytes} B")?,
            Some((name, unit)) => {
                // Cut, not rounded: 1023.99 KiB must not become 1024.00.
                let hundredths = (bytes % unit).saturating_mul(100) / unit;
                write!(f, "{}.{hundredths:02} {name}", bytes / unit)?;
            }
        }
        write!(f, " in {blocks} block{}", if blocks == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::super::samples::{called, error, peer};
    use super::super::{Side, Way};
    use super::*;
    use crate::error::{Executed, Kind};

    fn block(event: &Event<'_>) -> String {
        Block { event, now: Duration::from_millis(86_400_000 * 20_000 + 44_231_869) }.to_string()
    }

    #[test]
    fn a_call_is_a_block_of_aligned_columns() {
        let mut peer = peer();
        peer.local.node_ref = "a@b".into();
        let called = Called { peer: Some(&peer), ..called("ping", Ok(())) };
        let wanted = "\
12:17:11.869  client call ping → ok
  local   e9sJqA  a@b            Elixir.Example2.Client
  remote  QglsBQ  nonode@nohost  Elixir.Example2.Server
  peer    127.0.0.1:4000  v1  hsk_ref 4034  req_ref 4066
  who     spiffe://ab.consul/ns/default/dc/dc1/svc/web
  time        total      queue        ser       send       exec       recv       dser       idle
           2153.0µs      1.0µs      3.0µs    105.0µs   2002.0µs     36.0µs      6.0µs  17547.3µs
  size    sent 31 B in 1 block, received 1.50 MiB in 96 blocks
";
        assert_eq!(block(&Event::Called(&called)), wanted);
    }

    #[test]
    fn a_failure_says_what_and_whether_it_ran() {
        let error = error(Kind::Deadline);
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let called = Called {
            side: Side::Server,
            way: Way::Cast,
            attempt: 3,
            trace: trace.parse().ok(),
            times: Times { exec: Duration::from_millis(3_600_001), ..Times::default() },
            ..called("f", Err(&error))
        };
        let text = block(&Event::Called(&called));
        let lines: Vec<_> = text.lines().collect();
        let first =
            "12:17:11.869  server cast f → deadline (executed: maybe): it is hunter2  (attempt 3)";
        assert_eq!(lines[0], first);
        assert_eq!(lines[1], "  peer    none: it never got onto a connection");
        assert_eq!(lines[2], format!("  trace   {trace}"));
        // Columns give way to what is longer than they are.
        assert!(lines[4].contains("  3600001000.0µs  "));
        assert_eq!(lines[3].chars().count(), lines[4].chars().count());
    }

    #[test]
    fn connections_are_told_in_a_line_or_a_block() {
        let (peer, error) = (peer(), error(Kind::Transport));
        let side = Side::Server;
        let took = Duration::from_micros(1500);
        let events = [
            (Event::Connected { side, peer: &peer, took }, "server connected in 1500.0µs", 5),
            (Event::Disconnected { side, peer: &peer, error: None }, "server disconnected → ok", 5),
            (
                Event::Unreachable { address: "a:1", error: &error },
                "client no connection to a:1",
                1,
            ),
            (
                Event::HandshakeFailed { side, address: "a:1", error: &error },
                "server no handshake with a:1 → transport (executed: maybe)",
                1,
            ),
            (Event::CastLost { function: "f", error: &error }, "client cast f is lost → tr", 1),
        ];
        for (event, begins, lines) in events {
            let text = block(&event);
            assert!(text["12:17:11.869  ".len()..].starts_with(begins), "{text}");
            assert_eq!(text.lines().count(), lines, "{text}");
        }
    }

    #[test]
    fn a_peer_cannot_write_on_the_terminal() {
        let error = Error::new(Kind::Application, Executed::Yes, "x\x1b[2J\n".repeat(1000));
        let mut peer = peer();
        peer.remote.svc_ref = "evil\x1b]0;\n\u{202e}".into();
        peer.remote.node_ref = "n".repeat(100_000);
        peer.remote.conn_ref = vec![0; 100_000];
        peer.address = "a\r".into();
        peer.identity = Some("i\n".into());
        let called = Called { peer: Some(&peer), ..called("f\ng", Err(&error)) };
        let text = block(&Event::Called(&called));
        assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
        assert_eq!(text.lines().count(), 8);
        assert!(text.len() < 3000, "{}", text.len());
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B in 0 blocks"),
            (1023, "1023 B in 0 blocks"),
            (1024, "1.00 KiB in 0 blocks"),
            (1_048_575, "1023.99 KiB in 0 blocks"),
            (1 << 30, "1.00 GiB in 0 blocks"),
            (u64::MAX, "17179869183.99 GiB in 0 blocks"),
        ] {
            assert_eq!(Size(Amount { bytes, blocks: 0 }).to_string(), text);
        }
    }

    #[test]
    fn blocks_go_to_the_writer_whole() {
        #[derive(Clone, Default)]
        struct Writes(Arc<Mutex<Vec<String>>>);
        impl Write for Writes {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let writes = Writes::default();
        let pretty = Pretty::to(writes.clone());
        for _ in 0..2 {
            pretty.event(&Event::Called(&called("f", Ok(()))));
        }
        let writes = writes.0.lock().unwrap();
        assert_eq!(writes.len(), 2);
        assert!(writes.iter().all(|it| it.contains(" client call f → ok\n") && it.ends_with('\n')));
    }
}
