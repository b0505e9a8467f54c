//! Messages with a real VM over a real connection: headers, atom caches and fragments both ways.
//! Skipped with a notice where there is no `erl`.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::BytesMut;
use meshx_dist::handshake::{Cookie, Flags, Framing, Initiator, Local};
use meshx_etf::dist::{FRAGMENT, Frame, InCache, OutCache};
use meshx_etf::{Atom, Decoder, Node, Pid, Term, term};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::support::{Epmd, PATIENCE, Vm, erl_is_here, fill};
use crate::{frames, random};

/// Sends back what it is sent.
const ECHO: &str = "Loop = fun Loop() -> receive {From, Message} -> From ! {reply, Message}, Loop() \
                    end end, register(echo, spawn(Loop)).";

struct Link {
    stream: TcpStream,
    received: Vec<u8>,
    out: OutCache,
    cache: InCache,
    me: Pid,
    sequence: u64,
    /// How many frames of each kind came.
    kinds: HashMap<&'static str, u32>,
}

impl Link {
    fn dial(port: u16) -> Self {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("dial");
        stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
        let local = Local {
            name: "rust@localhost".into(),
            flags: Flags::NODE,
            creation: 77,
            cookie: Cookie::new("cookie"),
        };
        let mut out = BytesMut::new();
        let mut initiator =
            Initiator::new(Framing::U16, local, "vm@localhost", 1, &mut out).expect("a name");
        let link = loop {
            stream.write_all(&out.split()).expect("a VM that listens");
            let mut bytes = Vec::new();
            assert!(fill(&mut stream, &mut bytes), "the VM closed");
            if let Some(link) = initiator.received(&bytes, &mut out).expect("a handshake") {
                break link;
            }
        };
        stream.write_all(&out).expect("a VM that listens");
        let node = Node::new("rust@localhost".parse().expect("an atom"), 77);
        Self {
            stream,
            received: link.surplus.to_vec(),
            out: OutCache::new(),
            cache: InCache::new(),
            me: Pid { node, id: 5, serial: 0 },
            sequence: 0,
            kinds: HashMap::new(),
        }
    }

    fn send(&mut self, payload: &Term) {
        let control = term!({6, (self.me.clone()), atom "", echo});
        let payload = Term::Tuple(vec![self.me.clone().into(), payload.clone()]);
        let draft = frames::draft(&control, &payload);
        let frames = if draft.len() > FRAGMENT {
            self.sequence += 1;
            let sequence = NonZeroU64::new(self.sequence).expect("not 0");
            frames::fragments(&mut self.out, &draft, sequence, FRAGMENT)
        } else {
            vec![frames::whole(&mut self.out, &draft)]
        };
        for frame in frames {
            let len = u32::try_from(frame.len()).expect("a small frame").to_be_bytes();
            self.stream.write_all(&[&len[..], &frame].concat()).expect("a VM that listens");
        }
    }

    fn frame(&mut self) -> Vec<u8> {
        loop {
            if let Some((len, rest)) = self.received.split_first_chunk::<4>() {
                let len = u32::from_be_bytes(*len) as usize;
                if rest.len() >= len {
                    let frame = rest[..len].to_vec();
                    self.received.drain(..len + 4);
                    if !frame.is_empty() {
                        return frame;
                    }
                    continue;
                }
            }
            let mut chunk = vec![0; 1 << 16];
            let count = self.stream.read(&mut chunk).expect("a VM that answers");
            assert!(count > 0, "the VM closed");
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    /// The next message to us.
    fn receive(&mut self) -> Term {
        let mut open: HashMap<u64, (Arc<[Atom]>, Vec<u8>)> = HashMap::new();
        loop {
            let frame = self.frame();
            let frame = Frame::parse(&frame, &mut self.cache).expect("a frame");
            let atoms = Arc::clone(self.cache.atoms());
            let (atoms, whole) = match frame {
                Frame::Whole { body } => {
                    *self.kinds.entry("whole").or_default() += 1;
                    (atoms, body.to_vec())
                }
                Frame::First { sequence, body, .. } => {
                    *self.kinds.entry("first").or_default() += 1;
                    open.insert(sequence, (atoms, body.to_vec()));
                    continue;
                }
                Frame::Next { sequence, left, body } => {
                    *self.kinds.entry("next").or_default() += 1;
                    open.get_mut(&sequence).expect("a first one").1.extend_from_slice(body);
                    if left > 1 {
                        continue;
                    }
                    open.remove(&sequence).expect("a first one")
                }
                other => panic!("{other:?}"),
            };
            let decoder = Decoder::new().atoms(&atoms);
            let (control, rest) = decoder.bare(&whole).expect("a control message");
            if control.as_tuple().and_then(|parts| parts[0].as_i64()) == Some(22) {
                let (payload, rest) = decoder.bare(rest).expect("a payload");
                assert!(rest.is_empty());
                return payload;
            }
        }
    }
}

#[test]
fn a_vm_echoes_what_we_send() {
    if !erl_is_here() {
        return;
    }
    let epmd = Epmd::start();
    let _vm = Vm::start(&epmd, "vm@localhost", "cookie", ECHO);
    let mut link = Link::dial(epmd.registered("vm").0.port);

    let many = |from: u32| (from..from + 300).map(|n| Term::atom(&format!("atom_{n}"))).collect();
    let long = Term::Tuple(vec![Term::atom(&"å".repeat(255)), Term::atom(&"a".repeat(255))]);
    let large = Term::Tuple(vec![Term::from(&vec![7; 300_000][..]), term!(behind_it)]);
    let mut terms = vec![term!(hello), term!({hello, hello}), many(0), many(100), long, large];
    terms.extend((0..20).map(|n| many(n * 200)));
    let mut runner = TestRunner::deterministic();
    for _ in 0..300 {
        let term = random::term().new_tree(&mut runner).expect("a term").current();
        // Up to OTP 26 two such keys are one.
        if !term.to_string().contains("-0.0") {
            terms.push(term);
        }
    }
    // Twice, so that all of it meets a cache that is full.
    for term in terms.iter().chain(&terms) {
        // The echo may not be there yet.
        while link.kinds.is_empty() {
            link.send(&term!(ready));
            let patience = std::time::Duration::from_millis(300);
            link.stream.set_read_timeout(Some(patience)).expect("time limit");
            let mut byte = [0];
            let ready = link.stream.peek(&mut byte).is_ok_and(|count| count > 0);
            link.stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
            if ready {
                assert_eq!(link.receive(), term!({reply, ready}));
            }
        }
        link.send(term);
        assert_eq!(link.receive(), Term::Tuple(vec![term!(reply), term.clone()]));
    }
    assert!(link.kinds["whole"] > 600 && link.kinds["first"] == 2 && link.kinds["next"] >= 8);
}
