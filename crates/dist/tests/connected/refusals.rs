//! What is no control message, by its fault.

use meshx_dist::control::ReadError;
use meshx_dist::link::LinkError;
use meshx_etf::{DecodeError, Node, Term, term};

use crate::common::{own, pass_through, peer, pid, read, reference};

/// Every operation, with as many elements as it has, and whether a payload belongs to it.
fn table() -> Vec<(Term, bool)> {
    let (from, to, ours) = (pid(peer(), 9), pid(own(), 5), reference(own()));
    let (from, to, ours) = (&|| from.clone(), &|| to.clone(), &|| ours.clone());
    vec![
        (term!({1, (from()), (to())}), false),
        (term!({2, atom "", (to())}), true),
        (term!({3, (from()), (to()), reason}), false),
        (term!({6, (from()), atom "", counter}), true),
        (term!({7, (from()), (to())}), false),
        (term!({8, (from()), (to()), reason}), false),
        (term!({12, atom "", (to()), token}), true),
        (term!({13, (from()), (to()), token, reason}), false),
        (term!({16, (from()), atom "", counter, token}), true),
        (term!({18, (from()), (to()), token, reason}), false),
        (term!({19, (from()), (to()), (ours())}), false),
        (term!({20, (from()), (to()), (ours())}), false),
        (term!({21, (from()), (to()), (ours()), reason}), false),
        (term!({22, (from()), (to())}), true),
        (term!({23, (from()), (to()), token}), true),
        (term!({24, (from()), (to())}), true),
        (term!({25, (from()), (to()), token}), true),
        (term!({26, (from()), (to())}), true),
        (term!({27, (from()), (to()), token}), true),
        (term!({28, (from()), (to()), (ours())}), true),
        (term!({29, (ours()), (from()), (to()), {m, f, 0}, []}), true),
        (term!({30, (ours()), (from()), (to()), {m, f, 0}, [], token}), true),
        (term!({31, (ours()), (to()), 0, (from())}), false),
        (term!({32, (ours()), (to()), 0, (from()), token}), false),
        (term!({33, (from()), (ours())}), true),
        (term!({34, (from()), (ours()), token}), true),
        (term!({35, 1, (from()), (to())}), false),
        (term!({36, 1, (from()), (to())}), false),
        (term!({37, 16, (from()), (to())}), true),
    ]
}

fn refused(control: &Term, payload: bool) -> ReadError {
    let payload = payload.then(|| term!(payload));
    match read(&pass_through(control, payload.as_ref())) {
        Err(LinkError::Control(error)) => error,
        other => panic!("{control} gave {other:?}"),
    }
}

fn kind(control: &Term, payload: bool) {
    let error = refused(control, payload);
    let expected = matches!(&error, ReadError::Term(DecodeError::Kind { .. }));
    assert!(expected, "{control} gave {error}");
}

fn elements(term: &Term) -> Vec<Term> {
    term.as_tuple().unwrap().to_vec()
}

#[test]
fn all_of_the_table_is_read() {
    for (control, payload) in table() {
        let payload = payload.then(|| term!(payload));
        assert!(read(&pass_through(&control, payload.as_ref())).is_ok(), "{control}");
    }
}

#[test]
fn a_wrong_number_of_elements() {
    for (control, payload) in table() {
        let right = elements(&control);
        let operation = right[0].as_i64().unwrap();
        for len in 1..=right.len() + 1 {
            let mut tuple = right.clone();
            tuple.resize(len, term!(surplus));
            // More elements are another operation's form, or (37) to be ignored.
            let more = len > right.len() && operation == 37;
            if len == right.len() || more {
                continue;
            }
            let expected = ReadError::Operation { operation, elements: len };
            assert_eq!(refused(&Term::Tuple(tuple), payload), expected);
        }
    }
}

#[test]
fn unknown_operations() {
    let known: Vec<i64> = table().iter().map(|(it, _)| elements(it)[0].as_i64().unwrap()).collect();
    // 4, the unlink of old, is one of these: a VM drops the connection for it.
    let numbers = (-2..300).chain([i64::MIN, i64::MAX]);
    for operation in numbers.filter(|number| !known.contains(number)) {
        let control = term!({(operation), (pid(peer(), 9)), (pid(own(), 5))});
        assert_eq!(refused(&control, true), ReadError::Operation { operation, elements: 3 });
    }
    kind(&term!({link, (pid(peer(), 9)), (pid(own(), 5))}), false);
    kind(&term!([1, 2]), false);
    kind(&Term::Tuple(vec![Term::from(1_i128 << 70)]), false);
    assert_eq!(refused(&Term::Tuple(vec![]), false), ReadError::Term(DecodeError::Truncated));
}

/// A sender that must be of the peer is of somebody else: of us, or of a third node.
#[test]
fn foreign_senders() {
    let checked = [1, 3, 8, 13, 18, 19, 20, 21, 24, 25, 26, 27, 28, 29, 30, 31, 32, 35, 36, 37];
    let tolerated = [2, 6, 7, 12, 16, 22, 23, 33, 34];
    let third = Node::new("c@host3".parse().unwrap(), 9);
    for node in [own(), third] {
        for (control, payload) in table() {
            let mut tuple = elements(&control);
            let operation = tuple[0].as_i64().unwrap();
            let sender = Term::from(pid(peer(), 9));
            for element in tuple.iter_mut().filter(|element| **element == sender) {
                *element = pid(node.clone(), 9).into();
            }
            let tuple = Term::Tuple(tuple);
            if checked.contains(&operation) {
                let expected = ReadError::Foreign { operation, node: node.name().clone() };
                assert_eq!(refused(&tuple, payload), expected);
            } else {
                assert!(tolerated.contains(&operation));
                let payload = payload.then(|| term!(payload));
                assert!(read(&pass_through(&tuple, payload.as_ref())).is_ok(), "{control}");
            }
        }
    }
}

/// A process of an earlier life of the peer is the peer's: it answers with such for what it does not
/// know any more.
#[test]
fn senders_of_an_earlier_life() {
    let earlier = pid(Node::new(peer().name().clone(), 5), 9);
    let control = term!({24, (earlier), (pid(own(), 5))});
    assert!(read(&pass_through(&control, Some(&term!(noproc)))).is_ok());
}

#[test]
fn a_missing_or_superfluous_payload() {
    for (control, payload) in table() {
        let operation = elements(&control)[0].as_i64().unwrap();
        assert_eq!(refused(&control, !payload), ReadError::Payload { operation });
    }
}

#[test]
fn operands_of_another_kind() {
    for (control, payload) in table() {
        let right = elements(&control);
        let operation = right[0].as_i64().unwrap();
        // What may be any term: the unused field, trace tokens, reasons, options.
        let any: &[usize] = match operation {
            2 => &[1],
            6 => &[2],
            3 | 8 | 23 | 25 | 27 | 34 => &[3],
            12 => &[1, 3],
            16 => &[2, 4],
            13 | 18 => &[3, 4],
            21 => &[4],
            29 | 32 => &[5],
            30 => &[5, 6],
            _ => &[],
        };
        for at in (1..right.len()).filter(|at| !any.contains(at)) {
            let mut tuple = right.clone();
            tuple[at] = term!(1.5);
            kind(&Term::Tuple(tuple), payload);
        }
    }
}

#[test]
fn numbers_that_are_none() {
    let (from, to) = (pid(peer(), 9), pid(own(), 5));
    for operation in [35, 36] {
        for id in [0, -1, 1 << 64, i128::MIN] {
            let id = Term::from(id);
            kind(&term!({(operation), (id), (from.clone()), (to.clone())}), false);
        }
    }
    for function in
        [term!({m, f, -1}), term!({m, f, a}), term!({m, f}), term!({m, f, 1, 2}), term!(m)]
    {
        let reference = reference(peer());
        kind(&term!({29, (reference), (from.clone()), (to.clone()), (function), []}), true);
    }
    let flags = ReadError::Operation { operation: 37, elements: 4 };
    assert_eq!(refused(&term!({37, -1, (from), (to)}), true), flags);
}

/// Tag 80 has no place in the distribution: not as control message, and not as payload, which its
/// receiver finds out.
#[test]
fn compressed_terms() {
    let long = Term::List(vec![term!(x); 500]);
    let compressed = meshx_etf::Encoder::new().compressed(9).term(&long).unwrap();
    assert_eq!(compressed[1], 80);
    let control = crate::common::frame(&[&[112][..], &compressed].concat());
    let error = LinkError::Control(ReadError::Term(DecodeError::CompressedHere));
    assert_eq!(read(&control), Err(error));

    let mut bytes = pass_through(&term!({22, (pid(peer(), 9)), (pid(own(), 5))}), None);
    bytes.extend_from_slice(&compressed);
    let bytes = crate::common::frame(&bytes[4..]);
    let mut receiver = crate::common::receiver(crate::common::forms()[2]);
    bytes::BufMut::put_slice(&mut receiver.space(), &bytes);
    let payload = crate::common::payload_of(receiver.event().unwrap());
    assert_eq!(payload.term(), Err(DecodeError::CompressedHere));
    assert_eq!(payload.term_ref(), Err(DecodeError::CompressedHere));
    assert!(payload.typed::<Vec<u8>>().is_err());
    assert!(format!("{payload:?}").contains("bytes"));
}
