//! The protocol against the recorded bytes, against itself, and against nonsense.

#[path = "../../../tests/v1/captures.rs"]
#[allow(unreachable_pub, reason = "a module of another crate")]
mod captures;

use bytes::{Bytes, BytesMut};
use captures::Seen;
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

/// What the two sides of a capture were configured with: checksums of both, and their keys.
fn configured(name: &str) -> (bool, bool, &'static [u8], &'static [u8]) {
    let (client, server) = match &name[..2] {
        "03" | "04" | "13" => (true, true),
        "08" => (true, false),
        "09" => (false, true),
        _ => (false, false),
    };
    match name {
        "06b_shared_key_ok" => (client, server, b"secret_1", b"secret_1"),
        "06_shared_key_mismatch" | "06c_shared_key_mismatch_quiet" => {
            (client, server, b"", b"secret_1")
        }
        _ => (client, server, b"", b""),
    }
}

/// Every recorded byte is read by the role that it was meant for, and written again by the other.
#[test]
fn every_recorded_byte_is_read_and_written_again() {
    let mut results = (0, 0, 0, 0);
    for name in captures::names() {
        let (client_sums, server_sums, client_key, server_key) = configured(&name);
        for connection in captures::connections(&name) {
            let mut seen = connection.iter();
            let Some(Seen::Client(first)) = seen.next() else { panic!("{name}") };
            assert!(is_v1([first[0], first[1], first[2]]));
            let message = Bytes::from(first[2..].to_vec());
            let block_size = u64::from_be_bytes(*message[15..].first_chunk().unwrap());
            let server_size = if name.starts_with("07") { 16384 } else { block_size };
            let client = Hello::read_request(&message, block_size, client_key).unwrap();
            assert_eq!(client.request(client_key).unwrap(), first[..]);
            let refusal = Hello::read_request(&message, server_size, server_key).err();
            let answer = match seen.next() {
                Some(Seen::Server(answer)) => answer,
                Some(Seen::ServerEnd) => {
                    assert_eq!((&name[..3], refusal), ("06c", Some(Refusal::Digest)));
                    continue;
                }
                other => panic!("{name}: {other:?}"),
            };
            let message = Bytes::from(answer[2..].to_vec());
            let hello = Hello::read_answer(&message, client.hsk_ref, block_size, server_key);
            let server = match (hello, refusal) {
                (Ok(server), None) => server,
                (Err(AnswerError::Refused(text)), Some(refusal)) => {
                    assert_eq!(
                        (text, refuse(refusal)),
                        (refusal.to_string(), answer.clone().into())
                    );
                    continue;
                }
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(server.acknowledgement(server_key).unwrap(), answer[..]);
            let writer = |hello: &Hello, checksums| Writer {
                conn_ref: Bytes::from(hello.conn_ref.clone()),
                block_size,
                checksums,
            };
            let (ours, theirs) = (writer(&client, client_sums), writer(&server, server_sums));
            let mut requests = Requests::new(ours.conn_ref.clone(), server_sums, LIMIT);
            let mut answers = Answers::new(theirs.conn_ref.clone(), client_sums, LIMIT, 0);
            let (mut sent, mut came) = (Vec::new(), Vec::new());
            for seen in seen {
                match seen {
                    Seen::Client(bytes) => {
                        sent.extend_from_slice(bytes);
                        let message = Bytes::from(bytes[4..].to_vec());
                        // As if checksums were off, to have the request although its sum is missing.
                        let lenient = requests.take(&message);
                        let request = match lenient {
                            Ok(request) => request,
                            Err(violation) => {
                                assert_eq!((&name[..2], violation.fault), ("09", Fault::Checksum));
                                Requests::new(ours.conn_ref.clone(), false, LIMIT)
                                    .take(&message)
                                    .unwrap()
                            }
                        };
                        let Some(request) = request else { continue };
                        let function = std::str::from_utf8(&request.function).unwrap();
                        let again = ours.request(
                            request.cast,
                            request.req_ref,
                            function,
                            request.flag,
                            &request.content,
                        );
                        assert_eq!(
                            again.unwrap(),
                            (std::mem::take(&mut sent).into(), request.blocks)
                        );
                        answers.req_ref_for_tests(request.req_ref);
                        results.0 += 1;
                    }
                    Seen::Server(bytes) => {
                        came.extend_from_slice(bytes);
                        let message = Bytes::from(bytes[4..].to_vec());
                        let req_ref = u64::from_be_bytes(*message[1..].first_chunk().unwrap());
                        let answer = match answers.take(&message) {
                            Ok(answer) => answer,
                            Err(violation) => {
                                assert_eq!((&name[..2], violation.fault), ("08", Fault::Checksum));
                                continue;
                            }
                        };
                        let again = match answer {
                            None => continue,
                            Some(Answer::Acknowledgement) => {
                                results.1 += 1;
                                theirs.acknowledgement(req_ref)
                            }
                            Some(Answer::Result { flag, content, blocks }) => {
                                results.2 += 1;
                                let again = theirs.result(req_ref, flag, &content).unwrap();
                                assert_eq!(again.1, blocks);
                                again.0
                            }
                            Some(Answer::Error { flag, term }) => {
                                results.3 += 1;
                                assert!(theirs.fits(&term));
                                theirs.error(req_ref, flag, &term)
                            }
                        };
                        assert_eq!(again, std::mem::take(&mut came));
                    }
                    Seen::ClientEnd | Seen::ServerEnd => {}
                }
            }
            assert!(sent.is_empty());
        }
    }
    assert_eq!(results, (26, 3, 12, 10), "requests, acknowledgements, results and errors");
}

fn writer(conn_ref: &[u8], block_size: u64, checksums: bool) -> Writer {
    Writer { conn_ref: Bytes::copy_from_slice(conn_ref), block_size, checksums }
}

/// The messages of these bytes.
fn messages(bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Frames::new(BytesMut::from(bytes), LIMIT);
    frames.shook();
    let mut messages = Vec::new();
    while let Some(message) = frames.message().unwrap() {
        messages.push(message);
    }
    assert_eq!(frames.held(), 0);
    messages
}

#[test]
fn blocks_in_another_order_are_refused() {
    let writer = writer(b"c", 200, true);
    let (bytes, blocks) = writer.request(false, 7, "echo", 0, &[1; 700]).unwrap();
    let right = messages(&bytes);
    assert_eq!((blocks, right.len()), (5, 5));
    let take = |order: &[usize]| {
        let mut requests = Requests::new(Bytes::from("c"), true, LIMIT);
        let mut last = Ok(None);
        for &number in order {
            last = requests.take(&right[number]);
            if last.is_err() {
                break;
            }
        }
        last
    };
    assert_eq!(take(&[0, 1, 2, 3, 4]).unwrap().unwrap().content, vec![1; 700]);
    for order in [&[0, 2][..], &[1, 1], &[0, 4], &[3, 0], &[0, 0], &[0, 1, 2, 4]] {
        let violation = take(order).unwrap_err();
        assert_eq!(violation, Violation { req_ref: Some(7), fault: Fault::Reference }, "{order:?}");
    }
    // It is legal to begin anywhere: then there are fewer blocks.
    assert_eq!(take(&[3, 4]).unwrap().unwrap().blocks, 2);
    // Numbers below 2 are of no block.
    let mut zero = right[3].to_vec();
    zero[18] = 1;
    let sum = checksum(&[&zero[..zero.len() - 8]]).to_vec();
    let end = zero.len() - 4;
    zero[end..].copy_from_slice(&sum);
    let mut requests = Requests::new(Bytes::from("c"), true, LIMIT);
    assert_eq!(requests.take(&zero.into()).unwrap_err().fault, Fault::Reference);
}

#[test]
fn another_request_or_connection_in_between_is_refused() {
    let (one, two) = (writer(b"one", 200, false), writer(b"two", 200, false));
    let begun = messages(&one.request(false, 1, "f", 0, &[0; 300]).unwrap().0);
    let mut requests = Requests::new(Bytes::from("one"), false, LIMIT);
    assert_eq!(requests.take(&begun[0]), Ok(None));
    assert!(requests.is_between());
    let other = messages(&one.request(false, 2, "f", 0, b"").unwrap().0);
    let fault = Fault::Reference;
    assert_eq!(requests.take(&other[0]), Err(Violation { req_ref: Some(1), fault }));
    let mut requests = Requests::new(Bytes::from("one"), false, LIMIT);
    let other = messages(&two.request(false, 2, "f", 0, b"").unwrap().0);
    assert_eq!(requests.take(&other[0]), Err(Violation { req_ref: Some(2), fault }));
    // What only a server says.
    for bytes in [one.acknowledgement(1), one.error(1, 0, b"x"), one.result(1, 0, b"").unwrap().0] {
        let violation = requests.take(&messages(&bytes)[0]).unwrap_err();
        assert_eq!(violation, Violation { req_ref: None, fault: Fault::Malformed });
    }
    // What only a client says.
    let mut answers = Answers::new(Bytes::from("one"), false, LIMIT, 1);
    assert_eq!(answers.take(&begun[0]).unwrap_err().fault, Fault::Malformed);
    assert_eq!(answers.take(&messages(&two.acknowledgement(1))[0]).unwrap_err().fault, fault);
    assert_eq!(answers.take(&messages(&one.acknowledgement(2))[0]).unwrap_err().fault, fault);
}

#[test]
fn the_class_of_the_last_block_counts() {
    let writer = writer(b"c", 200, false);
    let cast = messages(&writer.request(true, 1, "f", 0, &[0; 300]).unwrap().0);
    let call = messages(&writer.request(false, 1, "f", 0, &[0; 300]).unwrap().0);
    let mut requests = Requests::new(Bytes::from("c"), false, LIMIT);
    assert_eq!(requests.take(&cast[0]), Ok(None));
    assert!(!requests.take(&call[1]).unwrap().unwrap().cast);
}

#[test]
fn the_limit_counts_all_blocks() {
    let writer = writer(b"c", 200, false);
    for (len, limit, fits) in [(500, 500, true), (501, 500, false), (100, 99, false), (0, 0, true)]
    {
        let bytes = writer.request(false, 1, "f", 0, &vec![7; len]).unwrap().0;
        let mut requests = Requests::new(Bytes::from("c"), false, limit);
        let taken = messages(&bytes).iter().try_fold(None, |_, message| requests.take(message));
        let whole = taken.map(|request| request.unwrap().content.len());
        let too_long = Violation { req_ref: Some(1), fault: Fault::TooLong { limit } };
        assert_eq!(whole, if fits { Ok(len) } else { Err(too_long) });
    }
}

#[test]
fn names_that_leave_no_room_are_an_error() {
    let writer = writer(&[0; 100], 200, false);
    let error = writer.request(false, 1, &"n".repeat(79), 0, b"").unwrap_err();
    assert_eq!(error, WriteError::Blocks(TooSmall { header: 200, block_size: 200 }));
    assert_eq!(writer.request(false, 1, &"n".repeat(78), 0, &[0; 50]).unwrap().1, 2);
    let long = "n".repeat(65536);
    let error = Writer { block_size: 1 << 20, ..writer }.request(false, 1, &long, 0, b"");
    assert_eq!(error, Err(WriteError::TooLong { what: "a name", len: 65536 }));
}

#[test]
fn a_changed_byte_is_found() {
    let writer = writer(b"c", 200, true);
    let bytes = writer.request(false, 1, "echo", 0, &[9; 300]).unwrap().0;
    for (number, message) in messages(&bytes).into_iter().enumerate() {
        for place in 0..message.len() {
            let mut changed = message.to_vec();
            changed[place] ^= 1;
            let mut requests = Requests::new(Bytes::from("c"), true, LIMIT);
            if number > 0 {
                assert_eq!(requests.take(&messages(&bytes)[0]), Ok(None));
            }
            assert!(requests.take(&changed.into()).is_err(), "byte {place} of block {number}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        conn_ref in prop::collection::vec(any::<u8>(), 0..40),
        block_size in 200_u64..3000,
        checksums: bool,
        (cast, req_ref, flag) in any::<(bool, u64, u8)>(),
        function in "[a-z]{0,60}",
        content in prop::collection::vec(any::<u8>(), 0..20_000),
    ) {
        let writer = writer(&conn_ref, block_size, checksums);
        let peer = Bytes::from(conn_ref);
        let (bytes, blocks) = writer.request(cast, req_ref, &function, flag, &content).unwrap();
        let mut requests = Requests::new(peer.clone(), checksums, content.len());
        let mut read = None;
        for message in messages(&bytes) {
            prop_assert_eq!(read, None);
            read = requests.take(&message).unwrap();
        }
        let (function, content) = (Bytes::from(function), Bytes::from(content));
        let request = Request { req_ref, cast, function, flag, content: content.clone(), blocks };
        prop_assert_eq!(read, Some(request));
        let (bytes, blocks) = writer.result(req_ref, flag, &content).unwrap();
        let mut answers = Answers::new(peer, checksums, content.len(), req_ref);
        let mut read = None;
        for message in messages(&bytes) {
            prop_assert_eq!(read, None);
            read = answers.take(&message).unwrap();
        }
        prop_assert_eq!(read, Some(Answer::Result { flag, content, blocks }));
    }

    #[test]
    fn blocks_of_any_size_are_taken(
        sizes in prop::collection::vec(0_usize..1000, 1..40),
    ) {
        let mut expected = Vec::new();
        let mut requests = Requests::new(Bytes::new(), false, LIMIT);
        for (number, &size) in sizes.iter().enumerate().rev() {
            let content = vec![u8::try_from(number).unwrap(); size];
            expected.splice(0..0, content.clone());
            let mut message = Vec::new();
            if number > 0 {
                message.extend_from_slice(&[command::CALL_N, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
                message.extend_from_slice(&(number as u64 + 1).to_be_bytes());
            } else {
                message.extend_from_slice(&[command::CALL_1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
            }
            message.extend_from_slice(&(size as u64).to_be_bytes());
            message.extend_from_slice(&content);
            let taken = requests.take(&message.into()).unwrap();
            prop_assert_eq!(taken.is_some(), number == 0);
            if let Some(request) = taken {
                prop_assert_eq!(&request.content, &expected);
            }
        }
    }

    #[test]
    fn nonsense_is_an_error_and_nothing_worse(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        command in prop::sample::select(vec![10, 11, 15, 50, 51, 55, 56, 199, 210, 215, 219, 0]),
        checksums: bool,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = command;
        }
        let message = Bytes::from(bytes);
        let peer = message.get(10..14).map(Bytes::copy_from_slice).unwrap_or_default();
        drop(Requests::new(peer.clone(), checksums, 100).take(&message));
        drop(Answers::new(peer, checksums, 100, 0).take(&message));
        drop(Hello::read_request(&message, 16384, b""));
        drop(Hello::read_answer(&message, 0, 16384, b""));
    }
}
