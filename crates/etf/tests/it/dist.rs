//! The distribution header: laws, limits and hostile bytes.

use std::num::NonZeroU64;
use std::sync::Arc;

use meshx_etf::dist::{Draft, Form, Frame, FrameError, InCache, OutCache};
use meshx_etf::{Atom, Decoder, Node, Pid, Port, Reference, Term, term};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{frames, random};

/// One message through both caches.
fn carry(out: &mut OutCache, cache: &mut InCache, control: &Term, payload: &Term) -> usize {
    let wire = frames::whole(out, &frames::draft(control, payload));
    let frame = Frame::parse(&wire, cache).unwrap();
    let Frame::Whole { body } = frame else { panic!("{frame:?}") };
    let decoder = Decoder::new().atoms(cache.atoms());
    let (read, rest) = decoder.bare(body).unwrap();
    assert_eq!(&read, control);
    let (read, rest) = decoder.bare_ref(rest).unwrap();
    assert_eq!((&read.to_term().unwrap(), rest), (payload, &[][..]));
    wire.len()
}

proptest! {
    #[test]
    fn messages_pass_through_the_caches(terms in vec(random::term(), 1..12)) {
        let (mut out, mut cache) = (OutCache::new(), InCache::new());
        for pair in terms.windows(2) {
            carry(&mut out, &mut cache, &pair[0], &pair[1]);
        }
    }

    #[test]
    fn fragments_put_together_are_the_message(
        payload in random::term(),
        size in 1..40_usize,
        sequence in 1..u64::MAX,
    ) {
        let (mut out, mut cache) = (OutCache::new(), InCache::new());
        let control = term!({6, sender, "", receiver});
        let draft = frames::draft(&control, &payload);
        let sequence = NonZeroU64::new(sequence).unwrap();
        let frames = frames::fragments(&mut out, &draft, sequence, size);
        let Frame::First { sequence: found, fragments, body } =
            Frame::parse(&frames[0], &mut cache).unwrap() else { panic!() };
        prop_assert_eq!((found, fragments), (sequence.get(), frames.len() as u64));
        let atoms = Arc::clone(cache.atoms());
        let mut whole = body.to_vec();
        for (number, frame) in frames.iter().enumerate().skip(1) {
            let Frame::Next { sequence: found, left, body } =
                Frame::parse(frame, &mut cache).unwrap() else { panic!() };
            prop_assert_eq!((found, left), (sequence.get(), (frames.len() - number) as u64));
            prop_assert!(body.len() <= size);
            whole.extend_from_slice(body);
        }
        let decoder = Decoder::new().atoms(&atoms);
        let (read, rest) = decoder.bare(&whole).unwrap();
        prop_assert_eq!(read, control);
        prop_assert_eq!(decoder.bare(rest).unwrap(), (payload, &[][..]));
    }

    #[test]
    fn any_bytes_are_a_frame_or_refused(mut bytes in vec(any::<u8>(), 0..80), form in 68..=70_u8) {
        bytes.splice(0..0, [131, form]);
        let mut cache = InCache::new();
        _ = Frame::parse(&bytes, &mut cache);
        prop_assert!(cache.atoms().len() <= 255);
    }
}

#[test]
fn a_known_atom_is_sent_once() {
    let (mut out, mut cache) = (OutCache::new(), InCache::new());
    let message = term!({ok, [a_rather_long_atom, a_rather_long_atom]});
    let first = carry(&mut out, &mut cache, &message, &message);
    let second = carry(&mut out, &mut cache, &message, &message);
    assert_eq!(second, first - "a_rather_long_atom".len() - 1);
}

#[test]
fn a_message_that_is_given_up_changes_nothing() {
    let (mut out, mut cache) = (OutCache::new(), InCache::new());
    let mut draft = Draft::new(Form::Cached);
    draft.term(&term!(some_atom)).unwrap();
    draft.payload(&f64::NAN.into()).unwrap_err();
    drop(draft);
    carry(&mut out, &mut cache, &term!(some_atom), &term!(other_atom));
}

/// The same header again is not read again; one that changed a slot between is.
#[test]
fn a_repeated_header_means_what_it_meant() {
    let mut cache = InCache::new();
    let mut named = |header: &[u8]| {
        Frame::parse(&[&[131, 68], header].concat(), &mut cache).unwrap();
        Arc::clone(cache.atoms())
    };
    let (fill, use_it) = (&[1, 0x08, 7, 1, b'a'][..], &[1, 0x00, 7][..]);
    assert_eq!(named(fill)[0], "a");
    let (first, second) = (named(use_it), named(use_it));
    assert!(first[0] == "a" && Arc::ptr_eq(&first, &second));
    assert_eq!(named(&[1, 0x08, 7, 1, b'b'])[0], "b");
    assert_eq!(named(use_it)[0], "b");
    assert_eq!(named(&[0]).len(), 0);
    assert_eq!(named(use_it)[0], "b");
}

#[test]
fn more_atoms_than_a_header_holds_go_as_text() {
    let (mut out, mut cache) = (OutCache::new(), InCache::new());
    let many: Vec<Term> = (0..3000).map(|n| Term::atom(&format!("atom_{n}"))).collect();
    for _ in 0..3 {
        carry(&mut out, &mut cache, &Term::List(many.clone()), &term!(done));
    }
    // And with every slot reassigned many times.
    for chunk in many.chunks(200) {
        carry(&mut out, &mut cache, &Term::List(chunk.to_vec()), &term!(done));
    }
}

#[test]
fn long_atoms_have_long_lengths() {
    let (mut out, mut cache) = (OutCache::new(), InCache::new());
    let long = Term::Atom(Atom::new(&"å".repeat(255)).unwrap());
    for _ in 0..2 {
        carry(&mut out, &mut cache, &Term::Tuple(vec![term!(short), long.clone()]), &term!(done));
    }
}

/// Two new atoms, as `erl_ext_dist` lays them out. What a VM really sends: see `live.rs`.
#[test]
fn layout_of_a_header() {
    let mut cache = InCache::new();
    let wire = [&[131, 68, 2, 0x89, 0x00, 5, 2][..], b"ok", &[7, 3], b"abc", &[82, 0]].concat();
    let Frame::Whole { body } = Frame::parse(&wire, &mut cache).unwrap() else { panic!() };
    assert_eq!(cache.atoms()[..], ["ok", "abc"]);
    assert_eq!(Decoder::new().atoms(cache.atoms()).bare(body).unwrap().0, term!(ok));
    // Segment 1 index 5 is known now, segment 1 index 7 is not: the new one was in segment 0.
    let again = Frame::parse(&[131, 68, 1, 0x01, 5], &mut cache);
    assert_eq!(
        (again, &cache.atoms()[0]),
        (Ok(Frame::Whole { body: &[] }), &"ok".parse().unwrap())
    );
    let empty = Frame::parse(&[131, 68, 1, 0x01, 7], &mut cache);
    assert_eq!(empty, Err(FrameError::EmptySlot { slot: 263 }));
}

#[test]
fn refuses_what_is_no_frame() {
    let mut cache = InCache::new();
    let mut parse = |bytes: &[u8]| Frame::parse(bytes, &mut cache).map(|_| ());
    assert_eq!(parse(&[]), Err(FrameError::Truncated));
    assert_eq!(parse(&[131, 97, 1]), Err(FrameError::Form));
    assert_eq!(parse(&[130]), Err(FrameError::Form));
    assert_eq!(parse(&[131, 68, 1, 8, 0, 1, 255]), Err(FrameError::Atom));
    assert_eq!(parse(&[131, 68, 1, 0x18, 0, 1, 0]), Err(FrameError::Truncated));
    assert_eq!(parse(&[&[131, 69][..], &[0; 17]].concat()), Err(FrameError::Zero));
    assert_eq!(parse(&[112, 131, 106]), Ok(()));
}

/// Pids of 15 and 13 bits, ports of 28, references of three words, the first of 18 bits: more needs
/// `DFLAG_V4_NC`, wherever in the message it stands.
#[test]
fn what_old_releases_cannot_read_is_known() {
    let node = || Node::new("a@b".parse().unwrap(), 7);
    let pid = |id, serial| Term::from(Pid { node: node(), id, serial });
    let port = |id| Term::Port(Port { node: node(), id });
    let reference = |words: &[u32]| Term::from(Reference::new(node(), words).unwrap());
    let cases = [
        (pid(32_767, 8_191), pid(32_768, 0)),
        (pid(1, 8_191), pid(1, 8_192)),
        (port((1 << 28) - 1), port(1 << 28)),
        (reference(&[0x3_ffff, u32::MAX, u32::MAX]), reference(&[0x4_0000, 0, 0])),
        (reference(&[1]), reference(&[1, 2, 3, 4])),
    ];
    for form in [Form::Cached, Form::Plain, Form::PassThrough] {
        for (narrow, wide) in &cases {
            for (term, expected) in [(narrow, false), (wide, true)] {
                let payload = term!([hello, { (term.clone()) }]);
                let mut draft = Draft::new(form);
                draft.payload(&payload).unwrap();
                assert_eq!(draft.is_wide(), expected, "{payload}");
                draft.clear(form);
                assert!(!draft.is_wide());
                draft.payload_typed(&(1, vec![term])).unwrap();
                assert_eq!(draft.is_wide(), expected, "{payload}, typed");
                if let Term::Pid(pid) = term {
                    draft.clear(form);
                    draft.pid(pid);
                    assert_eq!(draft.is_wide(), expected, "{payload}, in a control message");
                }
            }
        }
    }
}
