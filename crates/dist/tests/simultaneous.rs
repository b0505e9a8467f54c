//! Two nodes that dial each other, with every byte in any order between the connections.

use std::collections::VecDeque;

use bytes::BytesMut;
use meshx_dist::handshake::{
    Accepted, Acceptor, Cookie, Failure, Flags, Framing, Initiator, Local, Status,
    answer_to_simultaneous,
};

/// `SplitMix64`: another order for each seed, the same for the same.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(limit).expect("a size")).expect("a size")
    }
}

/// What is on its way to one end of a connection; `None` is its end.
#[derive(Default)]
struct Pipe(VecDeque<Option<u8>>);

impl Pipe {
    fn send(&mut self, bytes: &[u8]) {
        self.0.extend(bytes.iter().copied().map(Some));
    }

    fn close(&mut self) {
        self.0.push_back(None);
    }
}

/// A connection; the node at index 0 of `to` is the one that dialled it.
#[derive(Default)]
struct Connection {
    dialler: usize,
    to: [Pipe; 2],
    /// The acceptor whose hello is not whole yet.
    greeting: Option<Box<Acceptor>>,
}

enum State {
    /// Has not dialled, and nobody has dialled it; or its attempt was answered by `nok`.
    Idle,
    Dialling(usize, Box<Initiator>),
    Accepting(usize, Box<Acceptor>),
    Up(usize),
}

struct Node {
    name: &'static str,
    state: State,
    /// Its user still has to want the connection.
    wants: bool,
}

struct World {
    nodes: [Node; 2],
    connections: Vec<Connection>,
    /// Status words that were sent.
    said: Vec<Status>,
}

fn local(name: &str) -> Local {
    Local { name: name.into(), flags: Flags::NODE, creation: 7, cookie: Cookie::new("c") }
}

impl World {
    fn new() -> Self {
        let node = |name| Node { name, state: State::Idle, wants: true };
        Self { nodes: [node("a@h1"), node("b@h2")], connections: vec![], said: vec![] }
    }

    /// Which end of the connection this node is.
    fn end(&self, connection: usize, node: usize) -> usize {
        usize::from(self.connections[connection].dialler != node)
    }

    fn dial(&mut self, node: usize) {
        self.nodes[node].wants = false;
        if !matches!(self.nodes[node].state, State::Idle) {
            return;
        }
        let (own, peer) = (self.nodes[node].name, self.nodes[1 - node].name);
        let mut out = BytesMut::new();
        let initiator = Initiator::new(Framing::U16, local(own), peer, 1, &mut out).expect("hello");
        let connection = self.connections.len();
        let mut to = [Pipe::default(), Pipe::default()];
        to[1].send(&out);
        self.connections.push(Connection { dialler: node, to, greeting: None });
        self.nodes[node].state = State::Dialling(connection, Box::new(initiator));
    }

    /// Delivers some bytes, or the end, to one end of a connection.
    fn deliver(&mut self, connection: usize, end: usize, random: &mut Random) {
        let dialler = self.connections[connection].dialler;
        let node = if end == 0 { dialler } else { 1 - dialler };
        let pipe = &mut self.connections[connection].to[end];
        let count = 1 + random.below(pipe.0.len().max(1));
        let mut bytes = Vec::new();
        let mut closed = false;
        for _ in 0..count {
            match pipe.0.pop_front() {
                Some(Some(byte)) => bytes.push(byte),
                Some(None) => closed = true,
                None => break,
            }
        }
        if !bytes.is_empty() {
            self.received(node, connection, &bytes);
        }
        if closed {
            let state = &mut self.nodes[node].state;
            match state {
                State::Dialling(held, _) | State::Accepting(held, _) | State::Up(held)
                    if *held == connection =>
                {
                    *state = State::Idle;
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, node: usize, connection: usize, bytes: &[u8]) {
        let end = self.end(connection, node);
        self.connections[connection].to[1 - end].send(bytes);
    }

    fn close(&mut self, node: usize, connection: usize) {
        let end = self.end(connection, node);
        self.connections[connection].to[1 - end].close();
    }

    fn received(&mut self, node: usize, connection: usize, bytes: &[u8]) {
        let mut out = BytesMut::new();
        let state = std::mem::replace(&mut self.nodes[node].state, State::Idle);
        let state = match state {
            State::Dialling(held, mut initiator) if held == connection => {
                match initiator.received(bytes, &mut out) {
                    Ok(None) => State::Dialling(held, initiator),
                    Ok(Some(_)) => State::Up(held),
                    Err(Failure::Refused(Status::Nok)) => {
                        self.close(node, connection);
                        State::Idle
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            State::Accepting(held, mut acceptor) if held == connection => {
                match acceptor.received(bytes, &mut out).expect("a handshake") {
                    Accepted::Up(_) => State::Up(held),
                    _ => State::Accepting(held, acceptor),
                }
            }
            // What comes late for an end that was closed.
            state if self.end(connection, node) == 0 => state,
            state => self.hello(node, connection, bytes, state, &mut out),
        };
        self.nodes[node].state = state;
        self.send(node, connection, &out);
    }

    /// A new incoming connection.
    fn hello(
        &mut self,
        node: usize,
        connection: usize,
        bytes: &[u8],
        state: State,
        out: &mut BytesMut,
    ) -> State {
        let own = self.nodes[node].name;
        let greeting = self.connections[connection].greeting.take();
        let new = || Box::new(Acceptor::new(Framing::U16, local(own), 2));
        let mut acceptor = greeting.unwrap_or_else(new);
        let Accepted::Hello(peer) = acceptor.received(bytes, out).expect("a hello") else {
            self.connections[connection].greeting = Some(acceptor);
            return state;
        };
        let (status, gives_up) = match &state {
            State::Idle => (Status::Ok, None),
            State::Dialling(own_attempt, _) => {
                (answer_to_simultaneous(own, &peer.name), Some(*own_attempt))
            }
            State::Accepting(..) | State::Up(_) => (Status::Alive, None),
        };
        self.said.push(status.clone());
        match status {
            Status::Alive => {
                // The other end does not answer: it gave this attempt up already.
                acceptor.answer(Status::Alive, out).expect("alive");
                state
            }
            Status::Nok => {
                acceptor.answer(Status::Nok, out).expect_err("the end");
                state
            }
            status => {
                acceptor.answer(status, out).expect("go on");
                if let Some(own_attempt) = gives_up {
                    self.close(node, own_attempt);
                }
                State::Accepting(connection, acceptor)
            }
        }
    }

    /// Ends of connections to which something is on its way.
    fn pending(&self) -> Vec<(usize, usize)> {
        let all = self.connections.iter().enumerate();
        let ends = all.flat_map(|(at, it)| [(at, 0, it), (at, 1, it)]);
        ends.filter(|(_, end, it)| !it.to[*end].0.is_empty())
            .map(|(at, end, _)| (at, end))
            .collect()
    }
}

fn run(seed: u64) -> World {
    let (mut world, mut random) = (World::new(), Random(seed));
    loop {
        let wanting: Vec<_> = (0..2).filter(|&node| world.nodes[node].wants).collect();
        let pending = world.pending();
        match wanting.len() + pending.len() {
            0 => return world,
            choices => match random.below(choices) {
                chosen if chosen < wanting.len() => world.dial(wanting[chosen]),
                chosen => {
                    let (connection, end) = pending[chosen - wanting.len()];
                    world.deliver(connection, end, &mut random);
                }
            },
        }
    }
}

#[test]
fn of_two_attempts_one_connection_remains() {
    let mut said = Vec::new();
    for seed in 0..3000 {
        let world = run(seed);
        match (&world.nodes[0].state, &world.nodes[1].state) {
            (State::Up(a), State::Up(b)) => assert_eq!(a, b, "one connection each, seed {seed}"),
            _ => panic!("no connection with seed {seed}"),
        }
        said.extend(world.said);
    }
    // All that can happen has happened.
    for status in [Status::Ok, Status::Nok, Status::OkSimultaneous, Status::Alive] {
        let count = said.iter().filter(|it| **it == status).count();
        assert!(count > 0, "{status:?} was never said");
    }
}

#[test]
fn names_are_compared_as_bytes() {
    // By letters of a language, or by lengths, these would be the other way round.
    for (smaller, greater) in [("B@h", "a@h"), ("aa@h", "b@h"), ("a-b@h", "a@h1"), ("z@h", "å@h")]
    {
        assert_eq!(answer_to_simultaneous(greater, smaller), Status::Nok);
        assert_eq!(answer_to_simultaneous(smaller, greater), Status::OkSimultaneous);
    }
}
