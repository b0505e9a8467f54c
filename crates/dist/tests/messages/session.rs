//! A connection to a VM, and what can be said and asked on it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, BytesMut};
use meshx_dist::control::{Control, Destination, Target};
use meshx_dist::handshake::{Cookie, Flags, Framing, Initiator, Local};
use meshx_dist::link::{Batch, Event, Limits, Outbox, Receiver};
use meshx_etf::dist::Draft;
use meshx_etf::{Atom, Node, Pid, Reference, Term, term};

use crate::support::{PATIENCE, fill};

/// A connection to a VM, and the process that does there what it is told.
pub(crate) struct Session {
    stream: TcpStream,
    pub(crate) flags: Flags,
    pub(crate) outbox: Outbox,
    receiver: Receiver,
    pub(crate) node: Node,
    pub(crate) me: Pid,
    pub(crate) driver: Pid,
    references: u32,
    /// What came while something else was awaited.
    pub(crate) others: VecDeque<(Control, Option<Term>, bool)>,
}

pub(crate) fn atom(text: &str) -> Atom {
    text.parse().expect("an atom")
}

pub(crate) fn reference_in(term: Term) -> Reference {
    match term {
        Term::Reference(reference) => *reference,
        other => panic!("{other}"),
    }
}

impl Session {
    pub(crate) fn dial(port: u16, name: &str, flags: Flags) -> Self {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("dial");
        stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
        stream.set_nodelay(true).expect("no delay");
        let cookie = Cookie::new("cookie");
        let local = Local { name: name.into(), flags, creation: 77, cookie };
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
        let node = Node::new(atom(name), 77);
        let peer = Node::new(atom("vm@localhost"), link.peer.creation.expect("a creation"));
        let me = Pid { node: node.clone(), id: 5, serial: 1 };
        let receiver =
            Receiver::new(link.flags, node.clone(), peer, Limits::default(), link.surplus);
        let mut session = Self {
            stream,
            flags: link.flags,
            outbox: Outbox::new(link.flags),
            receiver,
            node,
            driver: me.clone(),
            me,
            references: 0,
            others: VecDeque::new(),
        };
        session.wait_for_driver();
        session
    }

    /// The expression that makes it runs after the node is up.
    pub(crate) fn wait_for_driver(&mut self) {
        let start = Instant::now();
        loop {
            let reference = self.monitor(Target::Name(atom("driver")));
            let call = term!({apply, (self.me.clone()), erlang, self, []});
            let control = Control::SendName { from: self.me.clone(), to: atom("driver") };
            self.send(&control, Some(&call));
            let (control, payload, _) = self.next();
            if let Control::Down { reference: of, .. } = control {
                // A name that nobody has.
                assert_eq!((of, payload), (reference, Some(term!(noproc))));
                assert!(start.elapsed() < PATIENCE, "no driver");
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            match payload {
                Some(Term::Tuple(elements)) => match &elements[..] {
                    [_, Term::Pid(pid)] => self.driver = pid.clone(),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
            let to = Target::Name(atom("driver"));
            let control = Control::Demonitor { from: self.me.clone(), to, reference };
            return self.send(&control, None);
        }
    }

    pub(crate) fn reference(&mut self) -> Reference {
        self.references += 1;
        Reference::new(self.node.clone(), &[self.references, 2, 3]).expect("3 words")
    }

    pub(crate) fn push(&mut self, sender: u64, control: &Control, payload: Option<&Term>) {
        let mut draft = Draft::new(self.outbox.form());
        if control.write(self.flags, payload, &mut draft).expect("a control message") {
            draft.payload(payload.expect("a payload")).expect("a term");
        }
        self.outbox.push(sender, &mut draft);
    }

    pub(crate) fn flush(&mut self) {
        let mut batch = Batch::new();
        while !self.outbox.is_empty() {
            self.outbox.take(&mut batch);
            while batch.has_remaining() {
                let count = self.stream.write(batch.chunk()).expect("a VM that listens");
                batch.advance(count);
            }
        }
    }

    pub(crate) fn send(&mut self, control: &Control, payload: Option<&Term>) {
        self.push(1, control, payload);
        self.flush();
    }

    /// The next message, as it comes.
    pub(crate) fn next(&mut self) -> (Control, Option<Term>, bool) {
        loop {
            match self.receiver.event().expect("what a VM sends") {
                Some(Event::Message(message)) => {
                    let payload = message.payload.map(|it| it.term().expect("a term"));
                    return (message.control, payload, message.priority);
                }
                Some(Event::Tick) => {
                    self.outbox.tick();
                    self.flush();
                }
                None => {
                    let mut space = self.receiver.space();
                    let len = space.chunk_mut().len().min(1 << 20);
                    let mut chunk = vec![0; len];
                    let count = self.stream.read(&mut chunk).expect("a VM that answers");
                    assert!(count > 0, "the VM closed");
                    space.put_slice(&chunk[..count]);
                }
            }
        }
    }

    /// Whether a message of this content is one that only a peer with `V4_NC` can read.
    pub(crate) fn is_wide(&self, content: &Term) -> bool {
        let mut draft = Draft::new(self.outbox.form());
        draft.payload(content).expect("a term");
        draft.is_wide()
    }

    /// Waits until the VM closes the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        loop {
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// The next message that is none for `me`, in its order.
    pub(crate) fn other(&mut self) -> (Control, Option<Term>, bool) {
        let held = self.others.pop_front();
        held.unwrap_or_else(|| self.next())
    }

    pub(crate) fn control(&mut self) -> Control {
        let (control, payload, priority) = self.other();
        assert!(payload.is_none() && !priority, "{control:?} {payload:?}");
        control
    }

    /// A message to `me` by its pid.
    pub(crate) fn message(&mut self) -> Term {
        loop {
            let (control, payload, priority) = self.next();
            match (control, payload) {
                (Control::Send { from, to }, Some(payload)) if to == self.me => {
                    assert_eq!(from.is_some(), self.flags.contains(Flags::SEND_SENDER));
                    return payload;
                }
                (control, payload) => self.others.push_back((control, payload, priority)),
            }
        }
    }

    pub(crate) fn tell_driver(&mut self, payload: &Term) {
        let from = self.flags.contains(Flags::SEND_SENDER).then(|| self.me.clone());
        self.send(&Control::Send { from, to: self.driver.clone() }, Some(payload));
    }

    /// Has the driver do something; all that it caused before its answer is in `others`.
    pub(crate) fn apply(&mut self, module: &str, function: &str, arguments: Vec<Term>) -> Term {
        let (module, function) = (atom(module), atom(function));
        let arguments = Term::List(arguments);
        self.tell_driver(&term!({apply, (self.me.clone()), (module), (function), (arguments)}));
        match self.message() {
            Term::Tuple(mut elements) if elements[0] == term!(result) => elements.remove(1),
            other => panic!("{other}"),
        }
    }

    pub(crate) fn erlang(
        &mut self,
        function: &str,
        arguments: impl IntoIterator<Item = Term>,
    ) -> Term {
        self.apply("erlang", function, arguments.into_iter().collect())
    }

    /// What the driver got next, and passed on.
    pub(crate) fn got(&mut self) -> Term {
        match self.message() {
            Term::Tuple(mut elements) if elements[0] == term!(got) => elements.remove(1),
            other => panic!("{other}"),
        }
    }

    /// A process that does nothing.
    pub(crate) fn sleeper(&mut self) -> Pid {
        // Not of a module that the VM would have to load first: meanwhile exits are another's.
        let arguments = [term!(erlang), term!(hibernate), term!([erlang, node, []])];
        match self.erlang("spawn", arguments) {
            Term::Pid(pid) => pid,
            other => panic!("{other}"),
        }
    }

    pub(crate) fn monitor(&mut self, to: Target) -> Reference {
        let reference = self.reference();
        let from = self.me.clone();
        self.send(&Control::Monitor { from, to, reference: reference.clone() }, None);
        reference
    }

    pub(crate) fn is_down(&mut self, from: Target, reference: Reference, reason: &Term) {
        let down = Control::Down { from, to: self.me.clone(), reference };
        assert_eq!(self.other(), (down, Some(reason.clone()), false));
    }

    pub(crate) fn kill(&mut self, victim: &Pid, reason: &Term) {
        let (from, to) = (self.me.clone(), Destination::Pid(victim.clone()));
        self.send(&Control::ExitSignal { from, to }, Some(reason));
    }

    pub(crate) fn links(&mut self, of: &Pid) -> Term {
        match self.erlang("process_info", [of.clone().into(), term!(links)]) {
            Term::Tuple(mut elements) => elements.remove(1),
            other => panic!("{other}"),
        }
    }
}
