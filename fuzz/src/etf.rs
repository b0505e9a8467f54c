//! Targets of `meshx-etf`. `crates/etf/tests/it/seeds.rs` includes this file.

use meshx_etf::dist::{Frame, InCache};
use meshx_etf::{Decoder, Limits, Term, decode, decode_ref, encode, from_bytes, text};

/// Owned, borrowed, shared and typed decoding say the same; what was read can be written and read
/// again.
pub fn term_decode(data: &[u8]) {
    let mut limits = Limits::default();
    // The fuzzer's instrumented frames are large, and its memory is limited.
    limits.depth = 128;
    limits.inflated = 1 << 20;
    let decoder = Decoder::new().limits(limits);
    let Ok((term, used)) = decoder.prefix(data) else {
        assert!(decoder.term(data).is_err());
        return;
    };
    assert!(used <= data.len());
    let bytes = encode(&term).expect("what was read can be written");
    assert_eq!(decode(&bytes).as_ref(), Ok(&term));
    if data.get(1) != Some(&80) {
        assert_eq!(decoder.shared(&data[..used].to_vec().into()).as_ref(), Ok(&term));
        let borrowed = decode_ref(&data[..used]).expect("borrowed as owned");
        assert_eq!(borrowed.to_term().as_ref(), Ok(&term));
        assert_eq!(from_bytes::<Term>(&data[..used]).as_ref(), Ok(&term));
        assert_eq!(decoder.skip(&data[1..used]), Ok(&[][..]));
    }
    drop(from_bytes::<Vec<(u8, Option<String>)>>(data));
    let text = format!("{term:#}");
    if let Ok(again) = text::parse(&text) {
        assert_eq!(again, term);
    }
}

/// Frames of one connection, each with a length of two bytes before it: caches and terms.
pub fn dist_header(data: &[u8]) {
    let (mut cache, mut left) = (InCache::new(), data);
    while let Some((len, rest)) = left.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
        let (frame, rest) = rest.split_at(len);
        left = rest;
        let Ok(frame) = Frame::parse(frame, &mut cache) else { return };
        let atoms = std::sync::Arc::clone(cache.atoms());
        assert!(atoms.len() <= 255);
        let (Frame::Whole { body } | Frame::First { body, .. }) = frame else { continue };
        let decoder = Decoder::new().atoms(&atoms);
        let Ok((control, payload)) = decoder.bare(body) else { return };
        assert_eq!(decoder.skip(body), Ok(payload));
        let borrowed = decoder.bare_ref(body).expect("borrowed as owned").0;
        assert_eq!(borrowed.to_term(), Ok(control));
    }
}

/// Text that is read prints as text that reads the same.
pub fn text_parse(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(term) = text::parse(text) {
        assert_eq!(text::parse(&format!("{term:#}")), Ok(term));
    }
}
