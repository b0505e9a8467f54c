//! The target of `meshx-rpc` for version 1. `crates/rpc/tests/seeds.rs` includes this file.

use bytes::{Bytes, BytesMut};
use meshx_rpc::v1::wire::{
    Answer, AnswerError, Answers, Frames, Hello, Request, Requests, Writer, is_v1,
};

/// The longest message.
const LIMIT: usize = 20_000;
const BLOCK_SIZE: u64 = 200;
const KEY: &[u8] = b"secret_1";

/// The bytes of a peer, after one that chooses: who it is (bit 0: a server), whether checksums are on
/// (bit 1), and into how large pieces the bytes are cut. However they are cut, they mean the same; and
/// what was read can be written, and is read again as the same.
pub fn rpc_v1(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let (server, checksums) = (choice & 1 == 1, choice & 2 == 2);
    let read = |piece| match server {
        true => from_server(bytes, checksums, piece),
        false => from_client(bytes, checksums, piece),
    };
    assert_eq!(read(usize::MAX), read(1 + usize::from(choice >> 2)));
}

/// Messages of a stream that is cut into pieces, each given to `take` until that says how it ended.
fn each<T>(
    mut bytes: &[u8],
    piece: usize,
    mut take: impl FnMut(Bytes, usize) -> Option<String>,
    done: T,
) -> (T, String) {
    let mut frames = Frames::new(BytesMut::new(), LIMIT + 100);
    let mut number = 0;
    loop {
        match frames.message() {
            Ok(Some(message)) => {
                if let Some(end) = take(message, number) {
                    return (done, end);
                }
                number += 1;
                frames.shook();
            }
            Ok(None) if bytes.is_empty() => return (done, format!("{} left", frames.held())),
            Ok(None) => {
                let (head, tail) = bytes.split_at(piece.min(bytes.len()));
                let space = frames.space();
                assert!(space.capacity() > space.len(), "room for what comes");
                space.extend_from_slice(head);
                bytes = tail;
            }
            Err(error) => return (done, error.to_string()),
        }
    }
}

fn from_client(bytes: &[u8], checksums: bool, piece: usize) -> String {
    let mut read: Option<(Hello, Requests)> = None;
    let mut seen = String::new();
    let take = |message: Bytes, number| {
        let Some((hello, requests)) = &mut read else {
            let hello = match Hello::read_request(&message, BLOCK_SIZE, KEY) {
                Ok(hello) => hello,
                Err(refusal) => return Some(refusal.to_string()),
            };
            assert_eq!(number, 0);
            again_hello(&hello);
            let peer = Bytes::from(hello.conn_ref.clone());
            read = Some((hello, Requests::new(peer, checksums, LIMIT)));
            return None;
        };
        match requests.take(&message) {
            Ok(Some(request)) => {
                again_request(hello, &request, checksums);
                seen.push_str(&format!("{request:?}\n"));
                None
            }
            Ok(None) => {
                assert!(requests.is_between());
                None
            }
            Err(violation) => Some(format!("{violation:?}")),
        }
    };
    let ((), end) = each(bytes, piece, take, ());
    seen + &end
}

fn from_server(bytes: &[u8], checksums: bool, piece: usize) -> String {
    let mut read: Option<(Hello, Answers)> = None;
    let take = |message: Bytes, _| {
        let Some((hello, answers)) = &mut read else {
            return match Hello::read_answer(&message, 1, BLOCK_SIZE, KEY) {
                Ok(hello) => {
                    let peer = Bytes::from(hello.conn_ref.clone());
                    read = Some((hello, Answers::new(peer, checksums, LIMIT, 2)));
                    None
                }
                Err(AnswerError::Refused(text)) => {
                    assert!(text.chars().count() <= 256);
                    Some(text)
                }
                Err(AnswerError::Wrong(refusal)) => Some(refusal.to_string()),
            };
        };
        match answers.take(&message) {
            Ok(Some(answer)) => {
                again_answer(hello, &answer, checksums);
                Some(format!("{answer:?}"))
            }
            Ok(None) => None,
            Err(violation) => Some(format!("{violation:?}")),
        }
    };
    each(bytes, piece, take, ()).1
}

fn again_hello(hello: &Hello) {
    // What was no UTF-8 may be longer now.
    let Ok(bytes) = hello.request(KEY) else { return };
    assert!(is_v1([bytes[0], bytes[1], bytes[2]]));
    assert_eq!(Hello::read_request(&bytes.slice(2..), BLOCK_SIZE, KEY).as_ref(), Ok(hello));
}

fn writer(hello: &Hello, checksums: bool) -> Writer {
    let conn_ref = Bytes::from(hello.conn_ref.clone());
    Writer { conn_ref, block_size: BLOCK_SIZE, checksums }
}

/// The messages of what we wrote.
fn messages(bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Frames::new(BytesMut::from(bytes), LIMIT + 100);
    frames.shook();
    std::iter::from_fn(|| frames.message().expect("what was written")).collect()
}

fn again_request(hello: &Hello, request: &Request, checksums: bool) {
    assert!(request.content.len() <= LIMIT);
    let Ok(function) = std::str::from_utf8(&request.function) else { return };
    let Request { req_ref, cast, flag, content, .. } = request;
    let written = writer(hello, checksums).request(*cast, *req_ref, function, *flag, content);
    // Names may leave no room in a block.
    let Ok((bytes, blocks)) = written else { return };
    let peer = Bytes::from(hello.conn_ref.clone());
    let mut requests = Requests::new(peer, checksums, LIMIT);
    let mut read = None;
    for message in messages(&bytes) {
        assert_eq!(read, None);
        read = requests.take(&message).expect("what was written");
    }
    assert_eq!(read, Some(Request { blocks, ..request.clone() }));
}

fn again_answer(hello: &Hello, answer: &Answer, checksums: bool) {
    let writer = writer(hello, checksums);
    let bytes = match answer {
        Answer::Acknowledgement => writer.acknowledgement(2),
        Answer::Error { flag, term } => writer.error(2, *flag, term),
        Answer::Result { flag, content, .. } => match writer.result(2, *flag, content) {
            Ok((bytes, _)) => bytes,
            Err(_) => return,
        },
    };
    let peer = Bytes::from(hello.conn_ref.clone());
    let mut answers = Answers::new(peer, checksums, LIMIT, 2);
    let mut read = None;
    for message in messages(&bytes) {
        assert_eq!(read, None);
        read = answers.take(&message).expect("what was written");
    }
    match (read, answer) {
        (
            Some(Answer::Result { flag, content, .. }),
            Answer::Result { flag: expected, content: whole, .. },
        ) => assert_eq!((flag, &content), (*expected, whole)),
        (read, answer) => assert_eq!(read.as_ref(), Some(answer)),
    }
}
