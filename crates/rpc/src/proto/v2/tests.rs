use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::{Body, Codec, Error, Executed, Kind};

const PLAIN: Checksum = Checksum::None;

fn frames() -> Frames {
    Frames::new(PLAIN, 65_536)
}

fn frame(kind: Type, flags: Flags, stream: u32, extensions: &[u8], payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    Head { kind, flags, stream }.whole(&mut out, &PLAIN, extensions, payload, &[]);
    out
}

fn parse(mut bytes: BytesMut) -> Result<Option<Frame>, FrameError> {
    frames().next(&mut bytes)
}

fn open(name: &str, block: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.put_u64_le(1500);
    payload.put_u8(Codec::Json.number());
    payload.put_u8(u8::try_from(name.len()).unwrap());
    payload.extend_from_slice(name.as_bytes());
    payload.extend_from_slice(block);
    payload
}

/// §2.5, §6.1.
#[test]
fn an_open_says_what_is_called() {
    let extensions = Extensions {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        tracestate: Some("a=b".into()),
        metadata: vec![("k".into(), "v".into()), (String::new(), String::new())],
        attempt: Some(2),
    };
    let encoded = extensions.encode().unwrap();
    let bytes = frame(Type::Open, Flags::END, 7, &encoded, &open("add", b"[1]"));
    let Some(Frame::Open(opened)) = parse(bytes).unwrap() else { panic!() };
    assert_eq!((opened.stream, opened.timeout, opened.codec), (7, 1500, Codec::Json.number()));
    assert_eq!((&opened.name[..], &opened.block.bytes[..]), (&b"add"[..], &b"[1]"[..]));
    assert_eq!(Extensions::decode(&opened.extensions), Ok(extensions));
}

/// §2.6.
#[test]
fn a_long_message_says_how_long() {
    let mut payload = open("add", &[]);
    payload.put_u64_le(1 << 40);
    payload.put_slice(b"begin");
    let flags = Flags::MORE.and(Flags::LONG);
    let Some(Frame::Open(opened)) = parse(frame(Type::Open, flags, 1, &[], &payload)).unwrap()
    else {
        panic!()
    };
    assert_eq!(opened.block, Block { total: Some(1 << 40), bytes: Bytes::from("begin") });
    let both = Flags::MORE.and(Flags::END);
    let wrong = parse(frame(Type::Data, both, 1, &[], b"x"));
    assert!(matches!(wrong, Err(FrameError::Flags { kind: Type::Data, .. })));
    assert_eq!(parse(frame(Type::Data, Flags::LONG, 1, &[], b"short")), Err(FrameError::Short));
}

/// §8.1.
#[test]
fn a_failure_comes_as_it_was() {
    let value = Body { codec: Codec::Json, bytes: Bytes::from(r#""broken""#) };
    let error = Error::new(Kind::Application, Executed::Yes, "it is broken")
        .with_value(value)
        .retry_after(std::time::Duration::from_millis(250));
    let bytes = frame(Type::Fail, Flags::NONE, 3, &[], &fail_payload(&error));
    assert_eq!(parse(bytes), Ok(Some(Frame::Fail { stream: 3, error })));
    let long = Error::new(Kind::Value, Executed::Maybe, "ä".repeat(REASON_MAX))
        .with_value(Body::raw(vec![0; FAIL_MAX]));
    let payload = fail_payload(&long);
    assert!(payload.len() <= FAIL_MAX);
    let Ok(Some(Frame::Fail { error, .. })) =
        parse(frame(Type::Fail, Flags::NONE, 3, &[], &payload))
    else {
        panic!()
    };
    assert_eq!((error.value(), error.reason().len()), (None, REASON_MAX));
}

/// §2.2, §2.4, §2.5, §2.6.
#[test]
fn what_is_no_frame_is_refused() {
    let ping = frame(Type::Ping, Flags::NONE, 0, &[], &[7; 8]);
    assert_eq!(parse(ping.clone()), Ok(Some(Frame::Ping([7; 8]))));
    for end in 0..ping.len() {
        assert_eq!(parse(BytesMut::from(&ping[..end])), Ok(None));
    }
    let changed = |at: usize, to: u8| {
        let mut bytes = ping.clone();
        bytes[at] = to;
        parse(bytes)
    };
    assert!(matches!(changed(3, 0xff), Err(FrameError::Long { .. })));
    assert_eq!(changed(0, 7), Err(FrameError::Short));
    assert_eq!(changed(4, 99), Err(FrameError::Type(99)));
    assert_eq!(changed(4, 200), Ok(Some(Frame::Unknown)));
    assert!(matches!(changed(5, 1), Err(FrameError::Flags { .. })));
    assert_eq!(changed(6, 9), Err(FrameError::Extensions));
    assert_eq!(changed(8, 1), Err(FrameError::Stream(Type::Ping)));
    assert_eq!(
        parse(frame(Type::Ack, Flags::NONE, 0, &[], &[])),
        Err(FrameError::Stream(Type::Ack))
    );
    assert!(matches!(
        parse(frame(Type::Data, Flags(128), 1, &[], &[])),
        Err(FrameError::Flags { .. })
    ));
    let most = frames().missing(&u32::MAX.to_le_bytes()).unwrap();
    assert!(most < 90_000, "{most}");
}

/// §6.1, and the bound of its clause.
#[test]
fn extensions_have_bounds() {
    for bytes in [&[3, 1, 0, 9][..], &[3, 0, 0], &[1, 5, 0, b'x'], &[1, 1, 0, 0xff], &[9]] {
        assert!(Extensions::decode(bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(Extensions::decode(&[77, 2, 0, 1, 2]), Ok(Extensions::default()));
    let many = |count| Extensions {
        metadata: vec![(String::new(), String::new()); count],
        ..Extensions::default()
    };
    assert!(many(METADATA_MAX).encode().is_some());
    assert!(many(METADATA_MAX + 1).encode().is_none());
    let long = Extensions {
        metadata: vec![(String::new(), "x".repeat(EXTENSIONS_MAX))],
        ..Extensions::default()
    };
    assert!(long.encode().is_none());
}

/// §3: no changed bit gets through as another frame.
#[test]
fn a_changed_frame_is_none() {
    let checksum = Checksum::Crc32c(77);
    let frames = Frames::new(checksum.clone(), 1024);
    let mut bytes = BytesMut::new();
    let head = Head { kind: Type::Reply, flags: Flags::END, stream: 9 };
    head.whole(&mut bytes, &checksum, &[], &[4], b"[1,2,3]");
    for bit in 32..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(frames.next(&mut changed), Err(FrameError::Checksum), "{bit}");
    }
}

/// §4.6: what is compressed was agreed on, and says so where it begins.
#[test]
fn compressed_messages_come_only_where_they_were_agreed_on() {
    let flags = Flags::END.and(Flags::ZIP);
    let opened = || frame(Type::Open, flags, 1, &[], &open("add", b"1"));
    assert_eq!(parse(opened()), Err(FrameError::Zip));
    let agreed = frames().zipped(true);
    assert!(matches!(agreed.next(&mut opened()), Ok(Some(Frame::Open(_)))));
    let mut block = frame(Type::Data, flags, 1, &[], b"1");
    assert!(matches!(agreed.next(&mut block), Err(FrameError::Flags { .. })));
}
