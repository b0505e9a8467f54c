//! What a peer may not do: every limit, and any bytes at all.

use bytes::{BufMut, BytesMut};
use meshx_dist::handshake::Flags;
use meshx_dist::link::{Limits, LinkError, Receiver};
use meshx_etf::dist::FrameError;
use meshx_etf::{Encoder, term};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::{feed, forms, frame, own, pass_through, peer, pid, receiver};

const WITH_FRAGMENTS: Flags = Flags::NODE;

/// A control message without its payload, in header mode.
fn control() -> Vec<u8> {
    let mut bytes = Vec::new();
    let control = term!({22, (pid(peer(), 9)), (pid(own(), 5))});
    Encoder::new().bare(&control, &mut bytes).unwrap();
    bytes
}

fn first(sequence: u64, fragments: u64, payload: &[u8]) -> Vec<u8> {
    let numbers = [sequence.to_be_bytes(), fragments.to_be_bytes()].concat();
    frame(&[&[131, 69][..], &numbers, &[0], &control(), payload].concat())
}

fn next(sequence: u64, left: u64, payload: &[u8]) -> Vec<u8> {
    let numbers = [sequence.to_be_bytes(), left.to_be_bytes()].concat();
    frame(&[&[131, 70][..], &numbers, payload].concat())
}

/// How many events these bytes are, or what is wrong with them; the same in any pieces.
fn read(limits: Limits, flags: Flags, bytes: &[u8]) -> Result<usize, LinkError> {
    let new = || Receiver::new(flags, own(), peer(), limits, BytesMut::new());
    let whole = feed(&mut new(), bytes, usize::MAX).map(|seen| seen.len());
    for chunk in [1, 13, 4096] {
        assert_eq!(feed(&mut new(), bytes, chunk).map(|seen| seen.len()), whole);
    }
    // What came behind the handshake is the same again.
    let mut surplus = Receiver::new(flags, own(), peer(), limits, BytesMut::from(bytes));
    assert_eq!(feed(&mut surplus, &[], 1).map(|seen| seen.len()), whole);
    whole
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn fragments(frames: &[Vec<u8>]) -> Result<usize, LinkError> {
    read(Limits::default(), WITH_FRAGMENTS, &frames.concat())
}

#[test]
fn lengths() {
    let limit = Limits::default().message;
    for flags in forms() {
        let huge = read(Limits::default(), flags, &[255; 4]);
        assert_eq!(huge, Err(LinkError::TooLong { size: u32::MAX as usize, limit }));
    }
    let [.., flags] = forms();
    let message = pass_through(&term!({1, (pid(peer(), 9)), (pid(own(), 5))}), None);
    let size = message.len() - 4;
    assert_eq!(read(limits(|it| it.message = size), flags, &message), Ok(1));
    let error = LinkError::TooLong { size, limit: size - 1 };
    assert_eq!(read(limits(|it| it.message = size - 1), flags, &message), Err(error));
}

#[test]
fn length_of_a_message_in_fragments() {
    let (control, payload) = (control().len(), [97, 1, 0, 0]);
    let frames = [first(1, 3, &payload[..1]), next(1, 2, &payload[1..2]), next(1, 1, &[])].concat();
    let fits = limits(|it| it.message = control + 21);
    assert_eq!(read(fits, WITH_FRAGMENTS, &frames), Ok(1));
    let long = [first(1, 3, &payload[..1]), next(1, 2, &[0; 20]), next(1, 1, &[0; 20])].concat();
    let error = LinkError::TooLong { size: control + 41, limit: control + 21 };
    assert_eq!(read(fits, WITH_FRAGMENTS, &long), Err(error));
}

#[test]
fn the_number_of_open_messages() {
    let open = |count: u64| (1..=count).map(|at| first(at, 2, &[97])).collect::<Vec<_>>();
    assert_eq!(fragments(&open(1024)), Ok(0));
    assert_eq!(fragments(&open(1025)), Err(LinkError::TooMany { limit: 1024 }));
    // One that is complete is no longer open.
    let mut frames = open(1024);
    frames.push(next(512, 1, &[5]));
    frames.push(first(2000, 2, &[97]));
    assert_eq!(fragments(&frames), Ok(1));
}

#[test]
fn the_bytes_of_open_messages() {
    let head = control().len();
    let held = limits(|it| it.held = 10 * (head + 1000));
    let open = |count: u64| (1..=count).flat_map(|at| first(at, 3, &[0; 1000])).collect::<Vec<_>>();
    let error = Err(LinkError::TooMuch { limit: 10 * (head + 1000) });
    assert_eq!(read(held, WITH_FRAGMENTS, &open(10)), Ok(0));
    // By a first fragment, a later one, or one of which only the beginning has come.
    assert_eq!(read(held, WITH_FRAGMENTS, &open(11)), error);
    let longer = [open(10), next(3, 2, &[0])].concat();
    assert_eq!(read(held, WITH_FRAGMENTS, &longer), error);
    let begun = [open(10), next(3, 2, &vec![0; 20_000])[..100].to_vec()].concat();
    assert_eq!(read(held, WITH_FRAGMENTS, &begun), error);
    // What was complete does not count any more.
    let mut frames = open(9);
    for at in 100..200 {
        frames.extend([first(at, 2, &[109, 0, 0, 0]), next(at, 1, &[0])].concat());
    }
    assert_eq!(read(held, WITH_FRAGMENTS, &frames), Ok(100));
}

#[test]
fn fragments_out_of_order() {
    let wrong = |sequence| Err(LinkError::Fragment { sequence });
    let begin = || first(7, 3, &[109]);
    for frames in [
        vec![next(7, 1, &[0])],
        vec![begin(), next(7, 1, &[0])],
        vec![begin(), next(7, 3, &[0])],
        vec![begin(), next(7, 4, &[0])],
        vec![begin(), next(7, 2, &[0]), next(7, 2, &[0])],
        vec![begin(), begin()],
        vec![begin(), next(7, 2, &[0]), next(7, 1, &[0, 0, 0]), next(7, 1, &[0])],
        // The same, read to their places.
        vec![next(7, 1, &vec![0; 40_000])],
        vec![begin(), next(7, 1, &vec![0; 40_000])],
    ] {
        assert_eq!(fragments(&frames), wrong(7));
    }
    assert_eq!(fragments(&[begin(), next(8, 2, &[0])]), wrong(8));
    assert_eq!(fragments(&[begin(), next(u64::MAX, 2, &[0])]), wrong(u64::MAX));
}

#[test]
fn numbers_of_fragments() {
    for frames in [first(0, 2, &[]), first(1, 0, &[]), next(0, 1, &[]), next(1, 0, &[])] {
        assert_eq!(fragments(&[frames]), Err(LinkError::Frame(FrameError::Zero)));
    }
    // 2^64 of them are just not complete.
    let most =
        [first(1, u64::MAX, &[109]), next(1, u64::MAX - 1, &[0]), next(1, u64::MAX - 2, &[])];
    assert_eq!(fragments(&most), Ok(0));
    // The first may be the last.
    assert_eq!(fragments(&[first(1, 1, &[97, 1])]), Ok(1));
    assert_eq!(fragments(&[first(1, 1, &[97, 1]), first(1, 1, &[97, 1])]), Ok(2));
}

#[test]
fn a_message_without_its_control_message() {
    let empty = frame(&[131, 68, 0]);
    assert!(matches!(fragments(&[empty]), Err(LinkError::Control(_))));
    // A payload is due, and all fragments were empty.
    let frames = [first(1, 2, &[]), next(1, 1, &[])];
    assert!(matches!(fragments(&frames), Err(LinkError::Control(_))));
}

/// Each form is read on its own connections only, fragments where they were negotiated.
#[test]
fn forms_that_were_not_negotiated() {
    let [cached, plain, pass] = forms();
    let whole = frame(&[&[131, 68, 0][..], &control(), &[97, 1]].concat());
    let bare = pass_through(&term!({22, (pid(peer(), 9)), (pid(own(), 5))}), Some(&term!(1)));
    let fragment = first(1, 1, &[97, 1]);
    let unfragmented = cached.without(Flags::FRAGMENTS);
    for (flags, takes_whole, takes_bare, takes_fragment) in [
        (cached, true, false, true),
        (plain, true, false, true),
        (unfragmented, true, false, false),
        (pass, false, true, false),
    ] {
        for (bytes, is_taken) in
            [(&whole, takes_whole), (&bare, takes_bare), (&fragment, takes_fragment)]
        {
            let expected = if is_taken { Ok(1) } else { Err(LinkError::Form) };
            assert_eq!(read(Limits::default(), flags, bytes), expected);
        }
    }
    // Without version bytes.
    let [.., flags] = forms();
    let odd = frame(&[&[112][..], &control()].concat());
    assert_eq!(read(Limits::default(), flags, &odd), Err(LinkError::Form));
    let odd = frame(&[&[112, 131][..], &control(), &[97, 1]].concat());
    assert_eq!(read(Limits::default(), flags, &odd), Err(LinkError::Form));
}

#[test]
fn headers() {
    let wrong = |frame_error| Err(LinkError::Frame(frame_error));
    assert_eq!(fragments(&[frame(&[131])]), wrong(FrameError::Truncated));
    assert_eq!(fragments(&[frame(&[131, 68])]), wrong(FrameError::Truncated));
    assert_eq!(fragments(&[frame(&[131, 71])]), wrong(FrameError::Form));
    assert_eq!(fragments(&[frame(&[4, 68, 0])]), wrong(FrameError::Form));
    let empty_slot = frame(&[131, 68, 1, 0x01, 7]);
    assert_eq!(fragments(&[empty_slot]), wrong(FrameError::EmptySlot { slot: 263 }));
    // A reference to an atom that the header does not have.
    let lost = frame(&[131, 68, 0, 104, 3, 97, 1, 82, 0]);
    assert!(matches!(fragments(&[lost]), Err(LinkError::Control(_))));
}

/// A frame, or any bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let body = || vec(any::<u8>(), 0..60);
    let number = || prop_oneof![0..4_u64, any::<u64>()];
    prop_oneof![
        body(),
        body().prop_map(|body| frame(&body)),
        body().prop_map(|body| frame(&[&[131, 68][..], &body].concat())),
        body().prop_map(|body| frame(&[&[131, 68, 0][..], &control(), &body].concat())),
        body().prop_map(|body| frame(&[&[112, 131][..], &body].concat())),
        (number(), number(), body()).prop_map(|(a, b, body)| first(a, b, &body)),
        (number(), number(), body()).prop_map(|(a, b, body)| next(a, b, &body)),
        (number(), number(), 16_000..70_000_usize).prop_map(|(a, b, len)| next(
            a,
            b,
            &vec![97; len]
        )),
        Just(vec![0; 4]),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        pieces in vec(piece(), 0..8),
        flags in prop::sample::select(forms().to_vec()),
        cut in 0..100_usize,
        chunk in prop_oneof![1..80_usize, 4000..20_000_usize],
    ) {
        let mut bytes = pieces.concat();
        bytes.truncate(bytes.len().saturating_sub(cut));
        let small = limits(|it| { it.message = 100_000; it.incomplete = 3; it.held = 150_000; });
        let new = || Receiver::new(flags, own(), peer(), small, BytesMut::new());
        let whole = events(new(), &bytes, usize::MAX);
        prop_assert_eq!(events(new(), &bytes, chunk), whole);
    }
}

/// What came, as text; payloads are not looked at.
fn events(mut receiver: Receiver, mut bytes: &[u8], chunk: usize) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match receiver.event() {
            Ok(Some(event)) => all.push(format!("{event:?}")),
            Ok(None) if bytes.is_empty() => return all,
            Ok(None) => {
                let mut space = receiver.space();
                let len = space.chunk_mut().len().min(bytes.len()).min(chunk);
                assert!(len > 0, "an empty space looks like the end of a stream");
                space.put_slice(&bytes[..len]);
                bytes = &bytes[len..];
            }
            Err(error) => {
                all.push(error.to_string());
                return all;
            }
        }
    }
}

/// An error is the last word: what comes after it is of no interest, but does no harm.
#[test]
fn after_an_error() {
    let mut receiver = receiver(WITH_FRAGMENTS);
    receiver.space().put_slice(&next(1, 1, &[0; 3]));
    assert!(receiver.event().is_err());
    receiver.space().put_slice(&[0; 20]);
    while let Ok(Some(_)) = receiver.event() {}
}
