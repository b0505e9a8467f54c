//! Native records (`RECORD_EXT`). What a VM says here was recorded with OTP 29.0 (erts 17.1.1).

use std::cmp::Ordering;

use meshx_etf::{DecodeError, Encoder, Record, Term, compare, decode, decode_ref, encode};

use crate::vectors::unhex;

fn record(exported: bool, module: &str, name: &str, fields: &[(&str, Term)]) -> Term {
    let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.clone()));
    let (module, name) = (module.parse().unwrap(), name.parse().unwrap());
    Term::Record(Box::new(Record { exported, module, name, fields: fields.collect() }))
}

fn numbers(exported: bool, module: &str, name: &str, fields: &[(&str, i64)]) -> Term {
    let fields: Vec<_> = fields.iter().map(|&(name, value)| (name, value.into())).collect();
    record(exported, module, name, &fields)
}

#[test]
fn a_record_of_a_vm_is_read_and_written_exactly() {
    let inner = numbers(true, "m", "r", &[("a", 1)]);
    let outer = record(
        false,
        "Elixir.M",
        "Ã©",
        &[("b", "x".into()), ("a", Term::List(vec![inner.clone()]))],
    );
    let term = Term::Tuple(vec![Term::atom("ok"), outer, inner]);
    let wire = unhex(concat!(
        "83680377026F6B4300000002007708456C697869722E4D7704C383C2A97701627701616D00000001786C",
        "0000000143000000010177016D77017277016161016A43000000010177016D7701727701616101",
    ));
    assert_eq!(decode(&wire).as_ref(), Ok(&term));
    assert_eq!(encode(&term), Ok(wire.clone()));
    assert_eq!(decode_ref(&wire).unwrap().to_term().as_ref(), Ok(&term));
    assert_eq!(meshx_etf::Decoder::new().skip(&wire[1..]), Ok(&[][..]));
    assert_eq!(
        meshx_etf::text::Print::new(&term).unicode().to_string(),
        "{ok,#'Elixir.M':'Ã©'{b = <<\"x\">>,a = [#m:r{a = 1}]},#m:r{a = 1}}"
    );
    // Fields keep their order; and there may be none.
    let wire =
        [131, 67, 0, 0, 0, 2, 1, 119, 1, 109, 119, 1, 114, 119, 1, 98, 119, 1, 97, 97, 1, 97, 2];
    assert_eq!(decode(&wire), Ok(numbers(true, "m", "r", &[("b", 1), ("a", 2)])));
    let wire = [131, 67, 0, 0, 0, 0, 1, 119, 1, 109, 119, 1, 114];
    let none = numbers(true, "m", "r", &[]);
    assert_eq!((decode(&wire).as_ref(), none.to_string()), (Ok(&none), "#m:r{}".to_owned()));
    assert_eq!(encode(&none).as_deref(), Ok(&wire[..]));
    let old = Encoder::new().minor_version(1).term(&numbers(false, "m", "r", &[("a", 1)]));
    let wire = [131, 67, 0, 0, 0, 1, 0, 100, 0, 1, 109, 100, 0, 1, 114, 100, 0, 1, 97, 97, 1];
    assert_eq!(old.as_deref(), Ok(&wire[..]));
    assert_eq!(decode(&wire), Ok(numbers(false, "m", "r", &[("a", 1)])));
}

#[test]
fn what_a_vm_refuses_is_refused() {
    let malformed = || Err(DecodeError::Malformed { what: "record" });
    let head = |count: u8, flags: u8| [131, 67, 0, 0, 0, count, flags, 119, 1, 109, 119, 1, 114];
    let of = |count, flags, rest: &[u8]| [&head(count, flags)[..], rest].concat();
    for flags in [2, 3, 255] {
        assert_eq!(decode(&of(1, flags, &[119, 1, 97, 97, 1])), malformed());
    }
    // The same field twice, also where the two are written in two ways.
    assert_eq!(decode(&of(2, 1, &[119, 1, 97, 119, 1, 97, 97, 1, 97, 2])), malformed());
    assert_eq!(decode(&of(2, 1, &[119, 1, 97, 100, 0, 1, 97, 97, 1, 97, 2])), malformed());
    // Names that are no atoms, and counts without their fields.
    assert_eq!(decode(&of(1, 1, &[97, 1, 97, 1])), Err(DecodeError::Tag { tag: 97 }));
    assert_eq!(decode(&of(1, 1, &[119, 1, 97])), Err(DecodeError::Truncated));
    let wire = of(2, 1, &[119, 1, 97, 119, 1, 98, 97, 1, 97, 2]);
    for end in 0..wire.len() {
        assert!(decode(&wire[..end]).is_err() && decode_ref(&wire[..end]).is_err(), "{end}");
    }
    let mut huge = of(0, 1, &[119, 1, 97]);
    huge[2..6].fill(255);
    assert_eq!(decode(&huge), Err(DecodeError::Truncated));
}

#[test]
fn records_compare_as_in_a_vm() {
    let less = |a: &Term, b: &Term| {
        assert_eq!(compare(a, b), Ordering::Less, "{a} {b}");
        assert_eq!(compare(b, a), Ordering::Greater, "{a} {b}");
        assert_eq!(a.cmp(b), Ordering::Less, "{a} {b}");
    };
    let r = numbers;
    less(&Term::Tuple(vec![1.into(); 9]), &r(true, "m", "r", &[("a", 1)]));
    less(&r(true, "m", "r", &[("a", 1)]), &meshx_etf::Map::new().into());
    for [a, b] in [
        [r(true, "a", "z", &[("a", 9)]), r(true, "b", "a", &[("a", 1)])],
        [r(true, "m", "a", &[("a", 1), ("b", 1)]), r(true, "m", "r", &[("z", 9)])],
        [r(true, "m", "a", &[("a", 1)]), r(false, "m", "r", &[("a", 1)])],
        [r(false, "m", "r", &[("a", 1), ("b", 1)]), r(true, "m", "r", &[("a", 1)])],
        [r(true, "m", "r", &[("z", 9)]), r(true, "m", "r", &[("a", 1), ("b", 1)])],
        // All names before any value.
        [r(true, "m", "r", &[("a", 2), ("b", 1)]), r(true, "m", "r", &[("a", 1), ("c", 1)])],
        [r(true, "m", "r", &[("a", 1), ("b", 2)]), r(true, "m", "r", &[("a", 2), ("b", 1)])],
    ] {
        less(&a, &b);
    }
    let (whole, float) =
        (record(true, "m", "r", &[("a", 1.into())]), record(true, "m", "r", &[("a", 1.0.into())]));
    assert_eq!(compare(&whole, &float), Ordering::Equal);
    assert_ne!(whole, float);
}
