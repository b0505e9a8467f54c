//! Recorded bytes of the Elixir package, in both roles: our client says what the Elixir client said,
//! our server answers what the Elixir server answered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use meshx_etf::{Term, decode};
use meshx_rpc::transport::{Memory, MemoryListening};
use meshx_rpc::v1::wire::{Answer, Answers, Hello, Request, Requests};
use meshx_rpc::v1::{Client, ClientOptions, Common, Server, ServerOptions};
use meshx_rpc::{Body, Codec, Error, Executed, Functions, Kind, Refs};
use tokio_util::sync::CancellationToken;

use crate::captures::{self, Seen, bytes};
use crate::peer::Peer;

const LIMIT: usize = 1 << 20;

/// How the sides of a capture were configured, besides what is in their handshakes.
fn common(name: &str, client: bool, hello: &Hello) -> Common {
    let mut common = Common::default();
    common.block_size = if name.starts_with("07") && !client { 16384 } else { hello.block_size };
    common.checksums = match &name[..2] {
        "03" | "04" | "13" => true,
        "08" => client,
        "09" => !client,
        _ => false,
    };
    if name == "06b_shared_key_ok" || (name.starts_with("06") && !client) {
        common.shared_key = "secret_1".into();
    }
    let Hello { conn_ref, node_ref, svc_ref, .. } = hello.clone();
    common.refs = Refs { conn_ref, node_ref, svc_ref };
    common
}

fn frame(seen: &Seen) -> &[u8] {
    match seen {
        Seen::Client(bytes) | Seen::Server(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

/// What is in the first message of a side, whatever its digest.
fn hello_of(frame: &[u8]) -> Hello {
    let message = Bytes::copy_from_slice(&frame[2..]);
    let size = u64::from_be_bytes(*message[15..].first_chunk().unwrap());
    let key = |key: &[u8]| match message[0] {
        0xd2 => Hello::read_request(&message, size, key).ok(),
        _ => {
            let number = u64::from_be_bytes(*message[1..].first_chunk().unwrap());
            Hello::read_answer(&message, number, size, key).ok()
        }
    };
    key(b"").or_else(|| key(b"secret_1")).unwrap()
}

/// The requests of a connection, and what was answered.
fn exchanges(connection: &[Seen]) -> Vec<(Request, Answer)> {
    let (mut exchanges, mut open) = (Vec::new(), None);
    if connection.len() < 3 || !matches!(connection[1], Seen::Server(_)) {
        return exchanges;
    }
    let (client, server) = (frame(&connection[0]), frame(&connection[1]));
    if server[2] == 0xdb {
        return exchanges;
    }
    let (client, server) = (hello_of(client).conn_ref, hello_of(server).conn_ref);
    let mut requests = Requests::new(client.into(), false, LIMIT);
    let mut answers = None;
    for seen in &connection[2..] {
        match seen {
            Seen::Client(bytes) => {
                let message = Bytes::copy_from_slice(&bytes[4..]);
                if let Some(request) = requests.take(&message).unwrap() {
                    let peer = Bytes::from(server.clone());
                    answers = Some(Answers::new(peer, false, LIMIT, request.req_ref));
                    assert!(open.replace(request).is_none());
                }
            }
            Seen::Server(bytes) => {
                let message = Bytes::copy_from_slice(&bytes[4..]);
                if let Some(answer) = answers.as_mut().unwrap().take(&message).unwrap() {
                    exchanges.push((open.take().unwrap(), answer));
                }
            }
            Seen::ClientEnd | Seen::ServerEnd => {}
        }
    }
    assert!(open.is_none());
    exchanges
}

fn body(flag: u8, bytes: Bytes) -> Body {
    Body { codec: if flag == 0 { Codec::Raw } else { Codec::Etf }, bytes }
}

// ---- our client against what the Elixir server said

/// The numbers of handshakes and requests, in order.
fn numbers(connections: &[Vec<Seen>]) -> VecDeque<u64> {
    let mut numbers = VecDeque::new();
    for connection in connections {
        let frames = connection.iter().filter_map(|seen| match seen {
            Seen::Client(bytes) => Some(bytes),
            _ => None,
        });
        for (index, frame) in frames.enumerate() {
            let place = if index == 0 { 3 } else { 5 };
            let number = u64::from_be_bytes(*frame[place..].first_chunk().unwrap());
            if index < 2 || numbers.back() != Some(&number) {
                numbers.push_back(number);
            }
        }
    }
    numbers
}

/// Plays the server: every byte of the client is the recorded one.
async fn play_server(mut listener: MemoryListening, connections: Vec<Vec<Seen>>) {
    for connection in connections {
        let mut peer = Peer::accept(&mut listener).await;
        for seen in connection {
            match seen {
                Seen::Client(bytes) => peer.hear(&bytes).await,
                Seen::Server(bytes) => peer.say(&bytes).await,
                Seen::ClientEnd => assert_eq!(peer.rest().await, b""),
                Seen::ServerEnd => peer.close().await,
            }
        }
    }
}

/// What our client makes of the answers.
async fn client_of(name: &str) -> Vec<Result<Body, Error>> {
    let connections = captures::connections(name);
    let exchanges: Vec<_> = connections.iter().flat_map(|it| exchanges(it)).collect();
    let mut options = ClientOptions::default();
    (options.connections, options.spares, options.retries) = (1, 0, 0);
    options.common = common(name, true, &hello_of(frame(&connections[0][0])));
    if name.starts_with("11") {
        options.idle = Some(Duration::from_millis(500));
    }
    let numbers = Mutex::new(numbers(&connections));
    options.numbers = Some(Arc::new(move || numbers.lock().unwrap().pop_front().unwrap_or(0)));
    let (memory, listener) = Memory::pair();
    let last = connections.len();
    let playing = tokio::spawn(play_server(listener, connections));
    let client = Client::new(memory, options).unwrap();
    if name.starts_with("11") {
        // Three times half a second without a word, give or take a tenth.
        tokio::time::sleep(Duration::from_millis(1700)).await;
    }
    let mut results = Vec::new();
    for (request, _) in exchanges {
        let function = String::from_utf8(request.function.to_vec()).unwrap();
        let argument = body(request.flag, request.content);
        let call = client.request(&function);
        results.push(match request.cast {
            true => call.cast_raw(argument).await.map(|()| Body::raw("")),
            false => call.call_raw(argument).await,
        });
    }
    if results.is_empty() {
        results.push(client.request("ping").call_raw(Body::raw("")).await);
    }
    if last > 1 {
        // The last connection may still be in its handshake.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.close().await;
    playing.await.unwrap();
    results
}

#[tokio::test(start_paused = true)]
async fn our_client_says_what_the_elixir_client_said() {
    for name in captures::names() {
        let results = client_of(&name).await;
        let connections = captures::connections(&name);
        let expected: Vec<_> = connections.iter().flat_map(|it| exchanges(it)).collect();
        for ((_, answer), result) in expected.iter().zip(&results) {
            match (answer, result) {
                (Answer::Acknowledgement, Ok(_)) => {}
                (Answer::Result { flag, content, .. }, Ok(result)) => {
                    assert_eq!(*result, body(*flag, content.clone()), "{name}");
                }
                (Answer::Error { term, .. }, Err(error)) => {
                    assert_eq!(error.value().unwrap().bytes, term, "{name}");
                }
                // A result without the checksum that is wanted.
                (_, Err(error)) if name.starts_with("08") => {
                    assert_eq!((error.kind(), error.executed()), (Kind::Integrity, Executed::Yes));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_errors_of_the_elixir_server_mean_something() {
    let told = |results: Vec<Result<Body, Error>>| {
        let errors = results.into_iter().filter_map(Result::err);
        let told = |error: Error| {
            (error.kind(), error.executed(), error.reason().split(';').next().unwrap().to_owned())
        };
        errors.map(told).collect::<Vec<_>>()
    };
    let of = |kind, executed, reason: &str| (kind, executed, reason.to_owned());
    let no_such = "the server has no such function of one argument";
    assert_eq!(
        told(client_of("05_errors").await),
        [
            of(Kind::UnknownFunction, Executed::Never, no_such),
            of(Kind::UnknownFunction, Executed::Never, no_such),
            of(Kind::UnknownFunction, Executed::Never, no_such),
            of(Kind::Application, Executed::Yes, "kaboom"),
            of(Kind::Application, Executed::Yes, "it failed: badarith"),
            of(Kind::Application, Executed::Yes, "it failed: {nocatch,ball}"),
            of(Kind::Application, Executed::Yes, "it exited: bye"),
        ]
    );
    for (name, kind, executed) in [
        ("06_shared_key_mismatch", Kind::Denied, Executed::Never),
        ("06c_shared_key_mismatch_quiet", Kind::Transport, Executed::Never),
        ("07_blk_size_mismatch", Kind::Protocol, Executed::Never),
        ("09_cks_only_server", Kind::Integrity, Executed::Never),
        ("10_timeout_execute", Kind::Deadline, Executed::Yes),
        ("12_error_too_long_blk200", Kind::Application, Executed::Maybe),
    ] {
        let told = told(client_of(name).await);
        assert_eq!((told.len(), told[0].0, told[0].1), (1, kind, executed), "{name}: {told:?}");
    }
}

// ---- our server against what the Elixir client said

/// The functions that the recorded server had.
fn functions(name: &str) -> Functions {
    let fails = |hex: &'static str| {
        move |_: Body| async move {
            let value = Body { codec: Codec::Etf, bytes: bytes(hex).into() };
            Err::<Body, _>(
                Error::new(Kind::Application, Executed::Yes, "as was recorded").with_value(value),
            )
        }
    };
    let functions = Functions::new()
        .add_raw("ping", async |_| {
            Ok(Body { codec: Codec::Etf, bytes: bytes("83640004706f6e67").into() })
        })
        .add_raw("echo", async |body| Ok(body))
        .add("add", async |(a, b): (i64, i64)| Ok::<_, String>(a + b))
        .add_raw(
            "size",
            async |body: Body| Ok(Body::encode(Codec::Etf, &body.bytes.len()).unwrap()),
        )
        .add("mark", async |_: String| Ok::<_, String>(()))
        .add("sleep", async |ms: u64| {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok::<_, String>(())
        })
        .add("raise_test", async |text: String| Err::<(), _>(text))
        .add_raw("exit_test", fails("83640003627965"))
        .add_raw("badarith", fails(BADARITH))
        .add_raw("throw_test", fails(THROWN));
    match &name[..2] {
        // A stack that does not fit into a block of 200 bytes.
        "12" => functions.add_raw("nosuch", fails(THROWN)),
        _ => functions,
    }
}

/// The recorded terms, with the stack of the Elixir program.
const BADARITH: &str = include_str!("../data/meshxrpc-v1/badarith.term");
const THROWN: &str = include_str!("../data/meshxrpc-v1/thrown.term");

/// The first place of the stack of `{undef, Stack}`.
fn undefined(term: &[u8]) -> Term {
    let Term::Tuple(parts) = decode(term).unwrap() else { panic!("no tuple") };
    let [Term::Atom(reason), Term::List(stack)] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!(reason.as_str(), "undef");
    stack[0].clone()
}

#[tokio::test(start_paused = true)]
async fn our_server_answers_what_the_elixir_server_answered() {
    let mut exact = 0;
    for name in captures::names() {
        let connections = captures::connections(&name);
        // The references of the server, if it said them.
        let answer = connections[0].get(1).filter(|seen| match seen {
            Seen::Server(bytes) => bytes[2] == 0xd7,
            _ => false,
        });
        let hello = hello_of(frame(answer.unwrap_or(&connections[0][0])));
        let mut options = ServerOptions::default();
        options.common = common(&name, false, &hello);
        options.quiet = name.starts_with("06c");
        options.execute = name.starts_with("10").then_some(Duration::from_millis(500));
        let (memory, listener) = Memory::pair();
        let server = Server::new(functions(&name), options).unwrap();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let serving = tokio::spawn(async move { server.run(listener, token).await });
        for connection in &connections {
            let mut peer = Peer::dial(&memory).await;
            for seen in connection {
                match seen {
                    Seen::Client(bytes) => peer.say(bytes).await,
                    Seen::Server(bytes) if bytes.get(4) == Some(&0xc7) && is_undefined(bytes) => {
                        let message = peer.message().await;
                        // The Elixir server tells of its own insides below that.
                        assert_eq!(message[..15], bytes[4..19]);
                        assert_eq!(undefined(&message[15..]), undefined(&bytes[19..]), "{name}");
                    }
                    Seen::Server(bytes) => {
                        peer.hear(bytes).await;
                        exact += 1;
                    }
                    Seen::ClientEnd => peer.close().await,
                    Seen::ServerEnd => assert_eq!(peer.rest().await, b"", "{name}"),
                }
            }
        }
        stop.cancel();
        serving.await.unwrap();
    }
    let frames = captures::names().into_iter().flat_map(|name| captures::connections(&name));
    let server = |seen: &&Seen| matches!(seen, Seen::Server(_));
    let frames: usize = frames.map(|connection| connection.iter().filter(server).count()).sum();
    assert_eq!(frames - exact, 3, "all but the stacks of three unknown functions");
}

fn is_undefined(frame: &[u8]) -> bool {
    frame.windows(5).any(|window| window == b"undef")
}
