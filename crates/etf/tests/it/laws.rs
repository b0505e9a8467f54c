//! What holds for every term and for all bytes.

use std::cmp::Ordering;

use meshx_etf::text::{Print, parse};
use meshx_etf::{
    BigInt, DecodeError, Decoder, Encoder, Limits, Map, Term, TermRef, compare, decode, decode_ref,
    encode,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::random;

proptest! {
    #[test]
    fn what_is_written_reads_back(term in random::term()) {
        let bytes = encode(&term).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &term);
        prop_assert_eq!(&decode_ref(&bytes).unwrap().to_term().unwrap(), &term);
        prop_assert_eq!(&Decoder::new().shared(&bytes.clone().into()).unwrap(), &term);
        prop_assert_eq!(encode(&decode(&bytes).unwrap()).unwrap(), bytes);
        for form in [0, 1] {
            let old = Encoder::new().minor_version(form).compressed(6).term(&term).unwrap();
            prop_assert_eq!(&decode(&old).unwrap(), &term);
        }
    }

    #[test]
    fn pieces_are_the_whole(term in random::term(), len in 0..9000_usize) {
        let term = Term::Tuple(vec![Term::from(&vec![7; len][..]), term, Term::from(&[1; 4096][..])]);
        let pieces = Encoder::new().pieces(&term).unwrap();
        let whole: Vec<u8> = pieces.slices().flatten().copied().collect();
        prop_assert_eq!(whole.len(), pieces.len());
        prop_assert_eq!(whole, encode(&term).unwrap());
    }

    #[test]
    fn a_term_that_is_cut_is_refused(term in random::term(), at in any::<prop::sample::Index>()) {
        let bytes = encode(&term).unwrap();
        prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(bytes.first() == Some(&131) || decode(&bytes).is_err());
        bytes.insert(0, 131);
        let owned = decode(&bytes);
        let borrowed = decode_ref(&bytes).and_then(|term| term.to_term());
        if bytes.get(1) != Some(&80) {
            prop_assert_eq!(owned, borrowed);
        }
    }

    #[test]
    fn changed_bytes_are_read_alike(
        term in random::term(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&term).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if bytes.get(1) != Some(&80) {
            let owned = decode(&bytes);
            let borrowed = decode_ref(&bytes).and_then(|term| term.to_term());
            prop_assert_eq!(owned.is_ok(), borrowed.is_ok());
            if let Ok(owned) = owned {
                prop_assert_eq!(&owned, &borrowed.unwrap());
                let again = decode(&encode(&owned).unwrap()).unwrap();
                prop_assert_eq!(again, owned);
            }
        }
    }

    #[test]
    fn text_reads_back(term in random::plain()) {
        prop_assert_eq!(&parse(&format!("{term:#}")).unwrap(), &term);
        let unicode = Print::new(&term).unicode().creations().to_string();
        prop_assert_eq!(&parse(&unicode).unwrap(), &term);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[{}\\[\\]<>#,|.:/'\"\\\\a-c0-9 $-]{0,40}") {
        if let Ok(term) = parse(&text) {
            prop_assert_eq!(parse(&format!("{term:#}")).unwrap(), term);
        }
    }

    #[test]
    fn order_is_one(a in random::close(), b in random::close(), c in random::close()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
        if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
            prop_assert!(compare(&a, &c).is_le());
        }
    }

    #[test]
    fn integers_are_what_they_are(value in any::<i128>(), other in any::<i128>()) {
        let big = BigInt::from(value);
        prop_assert_eq!(big.to_string(), value.to_string());
        prop_assert_eq!(i128::try_from(&big), Ok(value));
        prop_assert_eq!(big.cmp(&other.into()), value.cmp(&other));
        prop_assert_eq!(Term::from(big).as_i64(), i64::try_from(value).ok());
    }
}

#[test]
fn a_count_is_believed_only_as_far_as_there_are_bytes() {
    for tag in [105, 108, 109, 111, 116] {
        assert!(decode(&[131, tag, 255, 255, 255, 255, 97]).is_err());
    }
    // Each level claims all that is left.
    let mut nested = vec![131];
    for level in 0..400_u32 {
        nested.push(105);
        nested.extend((2000 - level * 5).to_be_bytes());
    }
    nested.resize(2001, 106);
    assert!(decode(&nested).is_err());
    assert!(decode_ref(&nested).is_err());
}

#[test]
fn nesting_ends_at_the_limit() {
    let nested = |depth: usize| {
        let mut bytes = vec![131];
        bytes.extend([104, 1].repeat(depth));
        bytes.push(106);
        bytes
    };
    assert!(decode(&nested(Limits::default().depth)).is_ok());
    assert!(decode(&nested(Limits::default().depth + 1)).is_err());
    assert!(Decoder::new().skip(&nested(100_000)[1..]).is_err());
    assert!(parse(&"{".repeat(1_000_000)).is_err());
    assert!(parse(&"[".repeat(1_000_000)).is_err());
}

#[test]
fn a_bomb_stays_small() {
    let term = Term::from(&vec![0; 1 << 20][..]);
    let bytes = Encoder::new().compressed(9).term(&term).unwrap();
    assert!(bytes.len() < 2000);
    assert_eq!(decode(&bytes).unwrap(), term);
    let mut limits = Limits::default();
    limits.inflated = 1 << 19;
    assert!(Decoder::new().limits(limits).term(&bytes).is_err());
}

/// A term may come in one byte, and takes 32 of memory: whoever decodes what others send says how many
/// there may be, in whatever containers they come.
#[test]
fn terms_end_at_the_limit() {
    let mut limits = Limits::default();
    limits.terms = 20;
    let decoder = Decoder::new().limits(limits);
    let list = |count: u8| [&[108, 0, 0, 0, count][..], &vec![106; count.into()], &[106]].concat();
    let tuple = |count: u8| [&[104, count][..], &vec![106; count.into()]].concat();
    let large_tuple = |count: u8| [&[105, 0, 0, 0, count][..], &vec![106; count.into()]].concat();
    let string = |count: u8| [&[107, 0, count][..], &vec![7; count.into()]].concat();
    let map = |count: u8| {
        let pairs = (0..count / 2).flat_map(|key| [97, key, 106]);
        [116, 0, 0, 0, count / 2].into_iter().chain(pairs).collect()
    };
    let nested =
        |count: u8| tuple(2).into_iter().take(2).chain(string(count - 2)).chain([106]).collect();
    let kinds: [&dyn Fn(u8) -> Vec<u8>; 6] = [&list, &tuple, &large_tuple, &string, &map, &nested];
    for kind in kinds {
        let few = kind(18);
        assert!(decoder.bare(&few).is_ok() && decoder.bare_ref(&few).is_ok(), "{few:?}");
        assert!(decoder.skip(&few).is_ok(), "{few:?}");
        let many = kind(22);
        let limit = Err(DecodeError::Terms { limit: 20 });
        assert_eq!(decoder.bare(&many).map(drop), limit, "{many:?}");
        assert_eq!(decoder.bare_ref(&many).map(drop), limit, "{many:?}");
        assert_eq!(decoder.skip(&many).map(drop), limit, "{many:?}");
        assert!(Decoder::new().bare(&many).is_ok(), "{many:?}");
    }
    // Bytes are no terms.
    assert!(decoder.bare(&[&[109, 0, 0, 1, 0][..], &[7; 256]].concat()).is_ok());
}

#[test]
fn terms_are_small() {
    assert_eq!(size_of::<Term>(), 32);
    assert_eq!(size_of::<TermRef<'_>>(), 32);
    assert_eq!(size_of::<meshx_etf::Atom>(), 24);
}

#[test]
fn there_is_no_nan() {
    assert!(encode(&f64::NAN.into()).is_err());
    assert!(encode(&Term::List(vec![f64::INFINITY.into()])).is_err());
}

/// Found by the comparison with a VM: the value is just between two strings of 17 digits.
#[test]
fn a_float_between_two_texts_has_the_even_one() {
    assert_eq!(Term::from(-136_417_254_666_225.13).to_string(), "-136417254666225.12");
    assert_eq!(Term::from(5e-324).to_string(), "5.0e-324");
}

#[test]
fn a_borrowed_binary_is_the_input() {
    let bytes = encode(&Term::from(&vec![1; 1 << 20][..])).unwrap();
    let Ok(TermRef::Binary(borrowed)) = decode_ref(&bytes) else { panic!() };
    assert_eq!(borrowed.as_ptr_range(), bytes[6..].as_ptr_range());
    let shared = bytes::Bytes::from(bytes);
    let Ok(Term::Binary(binary)) = Decoder::new().shared(&shared) else { panic!() };
    assert_eq!(binary.as_ptr_range(), shared[6..].as_ptr_range());
}

/// Everything that recurses, on the stack that a thread has if nobody asks for more.
#[test]
fn the_default_nesting_fits_the_stack_of_a_thread() {
    let limits = Limits::default();
    let decoder = Decoder::new();
    for head in [&[104, 1][..], &[108, 0, 0, 0, 1], &[116, 0, 0, 0, 1, 106]] {
        let mut bytes = [&[131], head.repeat(limits.depth).as_slice(), &[106]].concat();
        if head[0] == 108 {
            bytes.resize(bytes.len() + limits.depth, 106);
        }
        let run = move || {
            let term = decoder.term(&bytes).unwrap();
            assert_eq!(decoder.term_ref(&bytes).unwrap().to_term().unwrap(), term);
            assert_eq!(encode(&term).unwrap(), bytes);
            assert_eq!(term.clone().cmp(&term), Ordering::Equal);
            assert!(term.to_string().len() > limits.depth);
            let map = Term::Map([(term, Term::nil())].into_iter().collect());
            assert!(map.to_string().len() > limits.depth);
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
    }
}

/// As OTP 27 has it.
#[test]
fn two_zeros() {
    let (plus, minus) = (Term::from(0.0), Term::from(-0.0));
    assert_eq!(compare(&plus, &minus), Ordering::Equal);
    assert!(minus < plus);
    let map: Map = [(plus, Term::nil()), (minus, Term::nil())].into_iter().collect();
    assert_eq!(map.len(), 2);
}

/// Maps whose keys are maps, each level twice the size, and not in order: sorting anew for each
/// comparison would take the square of the time.
#[test]
fn maps_as_keys_of_maps_take_no_longer() {
    fn level(depth: u32, last: i64) -> Term {
        if depth == 0 {
            return last.into();
        }
        let pairs =
            vec![(level(depth - 1, last + 1), Term::nil()), (level(depth - 1, last), Term::nil())];
        Term::Map(Map::from_pairs(pairs).unwrap())
    }
    let bytes = encode(&level(16, 0)).unwrap();
    assert!(bytes.len() > 500_000);
    let term = decode(&bytes).unwrap();
    assert_eq!(compare(&term, &decode(&bytes).unwrap()), Ordering::Equal);
}

#[test]
fn a_map_finds_its_keys_whatever_happened() {
    let mut map = Map::new();
    for number in (0..100).rev() {
        assert_eq!(map.insert(number.into(), (number * 2).into()), None);
        assert_eq!(map.len(), usize::try_from(100 - number).unwrap());
        assert_eq!(map.get(&number.into()), Some(&(number * 2).into()));
    }
    let sorted: Vec<_> = map.sorted().into_iter().filter_map(|(key, _)| key.as_i64()).collect();
    assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    for number in 0..100 {
        assert_eq!(map.insert(number.into(), 7.into()), Some((number * 2).into()));
        assert_eq!(map.remove(&number.into()), Some(7.into()));
        assert_eq!(map.get(&number.into()), None);
    }
    assert!(map.is_empty());
}
