//! Fixed cases: bytes recorded from epmd of OTP 25, and every refusal. Laws over all values are in
//! `tests/laws.rs`.

use bytes::BytesMut;

use super::front_door::{Family, Lookup, Origin, Target};
use super::*;

const SHOP: &[u8] = b"\x9c\xbbM\x00\x00\x06\x00\x05\x00\x04shop\x00\x00";

fn request(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body].concat()
}

fn refusal(body: &[u8]) -> Error {
    Request::decode(&request(body)).unwrap_err()
}

fn bytes(write: impl FnOnce(&mut BytesMut) -> Result<(), Error>) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out).unwrap();
    out.to_vec()
}

#[test]
fn requests_are_those_a_stock_vm_sends() {
    let alive = Request::Alive(Alive::new("shop", 40123));
    assert_eq!(bytes(|out| alive.encode(out)), request(&[b"x", SHOP].concat()));
    let please = Request::PortPlease { name: "shop".into() };
    assert_eq!(bytes(|out| please.encode(out)), b"\x00\x05zshop");
    let with_nul = Request::decode(b"\x00\x06zshop\x00").unwrap();
    assert_eq!(with_nul, Some((please, 8)));
    for (code, wanted) in [(b'n', Request::Names), (b'd', Request::Dump), (b'k', Request::Kill)] {
        assert_eq!(Request::decode(&request(&[code])), Ok(Some((wanted, 3))));
    }
    let stop = Request::Stop { name: "shop".into() };
    assert_eq!(Request::decode(b"\x00\x05sshop..."), Ok(Some((stop, 7))));
}

#[test]
fn replies_are_those_epmd_sends() {
    let granted = AliveReply::Extended { result: 0, creation: 0x6b00_1f57 };
    assert_eq!(AliveReply::decode(b"v\x00k\x00\x1fW"), Ok(Some((granted, 6))));
    assert_eq!(granted.creation(), Ok(0x6b00_1f57));
    let mut old = Alive::new("old", 40123);
    old.highest = VERSION_5;
    let short = AliveReply::granted(&old, 4);
    assert_eq!(AliveReply::decode(b"y\x00\x00\x01"), Ok(Some((short, 4))));
    let refused = AliveReply::refused(&Alive::new("shop", 1));
    assert_eq!(AliveReply::decode(b"v\x01\x00\x00\x00c"), Ok(Some((refused, 6))));
    assert_eq!(refused.creation(), Err(1));

    let found = PortReply::Found(Alive::new("shop", 40123));
    let recorded = [b"w\x00", SHOP].concat();
    assert_eq!(PortReply::decode(&recorded), Ok(Some((found.clone(), recorded.len()))));
    assert_eq!(bytes(|out| found.encode(out)), recorded);
    assert_eq!(PortReply::decode(b"w\x01"), Ok(Some((PortReply::NotFound { result: 1 }, 2))));
    let zero = PortReply::NotFound { result: 0 };
    assert_eq!(bytes(|out| zero.encode(out)), b"w\x01");

    let names = b"\x00\x00\xb3\xa7name old1 at port 40123\nname shop at port 40123\n";
    let decoded = NamesReply::decode(names).unwrap();
    assert_eq!((decoded.port, decoded.ignored), (45991, 0));
    assert_eq!(decoded.nodes, [("old1".to_owned(), 40123), ("shop".to_owned(), 40123)]);
    assert_eq!(bytes(|out| decoded.encode(out)), names);

    let dump = b"\x00\x00\xb3\xa7active name     <shop> at port 40123, fd = 5\n\x00\
        old/unused name <old1>, port = 40123, fd = 6 \n\x00";
    let decoded = DumpReply::decode(dump).unwrap();
    assert_eq!(decoded.active, [DumpEntry { name: "shop".into(), port: 40123, fd: 5 }]);
    assert_eq!(decoded.old, [DumpEntry { name: "old1".into(), port: 40123, fd: 6 }]);
    assert_eq!(bytes(|out| decoded.encode(out)), dump);

    assert_eq!(KillReply::decode(b"OK"), Ok(Some((KillReply::Ok, 2))));
    assert_eq!(StopReply::decode(b"STOPPED"), Ok(StopReply::Stopped));
    assert_eq!(StopReply::decode(b"NOEXISTSTOPPED"), Ok(StopReply::NoExist));
}

#[test]
fn bad_requests_are_refused_by_their_fault() {
    assert_eq!(Request::decode(b"\x00\x00"), Err(Error::Empty));
    // An HTTP request is refused at its first two letters.
    assert_eq!(Request::decode(b"GE"), Err(Error::TooLong { len: 0x4745 + 2 }));
    let largest = u16::try_from(REQUEST_MAX - 2).unwrap();
    assert_eq!(Request::decode(&largest.to_be_bytes()), Ok(None));
    let larger = (largest + 1).to_be_bytes();
    assert_eq!(Request::decode(&larger), Err(Error::TooLong { len: REQUEST_MAX + 1 }));
    assert_eq!(refusal(b"Q"), Error::Code { code: b'Q', expected: "an EPMD request" });
    assert_eq!(refusal(b"n "), Error::Trailing("NAMES_REQ"));
    assert_eq!(refusal(b"x\x9c\xbb"), Error::Truncated("ALIVE2_REQ"));
    assert_eq!(refusal(&[b"x", SHOP, b"\x00"].concat()), Error::Trailing("ALIVE2_REQ"));
    let extra = [b"x".as_slice(), &SHOP[..14], &1021u16.to_be_bytes(), &[7; 1021]].concat();
    assert_eq!(refusal(&extra), Error::ExtraTooLong { message: "ALIVE2_REQ", len: 1021 });
}

#[test]
fn names_that_forge_are_refused() {
    for name in ["", "a b", "evil at port 1\nname x", "a\0b", "a/inet6", "a@h/inet7", "a@b@c", "å"]
    {
        let body = [b"z", name.as_bytes()].concat();
        assert!(matches!(refusal(&body), Error::Name { .. }), "{name:?}");
        let request = Request::PortPlease { name: name.into() };
        let mut out = BytesMut::new();
        assert!(matches!(request.encode(&mut out), Err(Error::Name { .. })), "{name:?}");
        assert!(out.is_empty());
    }
    let mut alive = Alive::new("shop@h1", 1); // the host does not belong here
    let mut out = BytesMut::new();
    assert!(Request::Alive(alive.clone()).encode(&mut out).is_err());
    alive.name = "shop".into();
    alive.extra = vec![0; EXTRA_MAX + 1];
    assert!(Request::Alive(alive).encode(&mut out).is_err());
    assert!(out.is_empty());

    let forged =
        b"\x00\x00\xb3\xa7name evil at port 1\nname x at port 40123\nrubbish\nname y. at port 1\n";
    let decoded = NamesReply::decode(forged).unwrap();
    assert_eq!((decoded.nodes.len(), decoded.ignored), (2, 2));
}

#[test]
fn absurd_lengths_in_a_reply_are_refused_at_once() {
    let long_name = [b"w\x00".as_slice(), &SHOP[..8], &256u16.to_be_bytes()].concat();
    assert!(matches!(PortReply::decode(&long_name), Err(Error::Name { .. })));
    let long_extra = [b"w\x00".as_slice(), &SHOP[..14], &1021u16.to_be_bytes()].concat();
    let error = Error::ExtraTooLong { message: "PORT2_RESP", len: 1021 };
    assert_eq!(PortReply::decode(&long_extra), Err(error));
}

#[test]
fn short_creations_are_one_two_or_three() {
    let mut old = Alive::new("old", 1);
    old.highest = VERSION_5;
    for creation in [0, 1, 2, 3, 4, u32::MAX] {
        let given = AliveReply::granted(&old, creation).creation().unwrap();
        assert!((1..=3).contains(&given), "{creation} gave {given}");
    }
}

#[test]
fn front_door_fields() {
    let lookup = |text| Lookup::parse(text).map(|it| (it.node, it.host, it.family));
    assert_eq!(lookup("shop"), Ok(("shop".into(), None, Family::Inet)));
    assert_eq!(lookup("a@::1/inet6"), Ok(("a".into(), Some("::1".into()), Family::Inet6)));
    assert_eq!(lookup("a@h/inet"), Ok(("a".into(), Some("h".into()), Family::Inet)));
    let longest = format!("a@{}", "h".repeat(253));
    assert!(Lookup::parse(&format!("{longest}/inet6")).is_ok());
    assert!(Lookup::parse(&format!("{longest}h/inet6")).is_err());

    let origin = |extra| Origin::parse(extra).map(|it| it.map(|it| (it.family, it.host)));
    assert_eq!(origin(b""), Ok(None));
    assert_eq!(origin(b"meshx1:inet:"), Ok(Some((Family::Inet, None))));
    assert_eq!(origin(b"meshx1:inet6:::1"), Ok(Some((Family::Inet6, Some("::1".into())))));
    for wrong in [b"meshx2:inet:h".as_slice(), b"meshx1:inet", b"meshx1:ipx:h", b"meshx1:inet:h h"]
    {
        assert!(Origin::parse(wrong).is_err(), "{wrong:?}");
    }

    assert_eq!(Target::parse(b""), Ok(None));
    let target = Target("127.0.0.7".parse().unwrap());
    assert_eq!(Target::parse(b"meshx1:127.0.0.7"), Ok(Some(target)));
    assert_eq!(Target::parse(b"meshx1:::1").unwrap().unwrap().to_extra(), b"meshx1:::1");
    assert!(Target::parse(b"meshx1:localhost").is_err());
}
