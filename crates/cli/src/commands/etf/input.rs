//! The ways to write bytes down.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use meshx_etf::{Term, text};

use crate::args::Reading;

/// The first byte of every term.
const VERSION: u8 = 131;

/// The bytes that the input stands for, or what is wrong with it.
pub(super) fn bytes(given: Vec<u8>, format: Reading) -> Result<Vec<u8>, String> {
    // No text in ASCII or UTF-8 begins with the version byte.
    if format == Reading::Raw || format == Reading::Auto && given.first() == Some(&VERSION) {
        return Ok(given);
    }
    let text = std::str::from_utf8(&given).map_err(|_| match format {
        Reading::Auto => "it begins with no version byte, and is no text".to_owned(),
        _ => "it is not text".to_owned(),
    })?;
    let digits: String = text.split_whitespace().collect();
    match format {
        Reading::Hex => unhex(digits.as_bytes()).map_err(str::to_owned),
        Reading::Base64 => unbase64(&digits),
        Reading::Binary => unbinary(text),
        _ if digits.is_empty() => Err("it is empty".to_owned()),
        _ if digits.starts_with("<<") => unbinary(text),
        _ if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            unhex(digits.as_bytes()).map_err(str::to_owned)
        }
        _ => unbase64(&digits),
    }
}

/// With padding or without, in either alphabet.
fn unbase64(digits: &str) -> Result<Vec<u8>, String> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let is_url = digits.contains(['-', '_']);
    let alphabet = if is_url { base64::alphabet::URL_SAFE } else { base64::alphabet::STANDARD };
    let decoded = GeneralPurpose::new(&alphabet, config).decode(digits);
    decoded.map_err(|error| format!("as base 64, {error}"))
}

/// `<<131,97,1>>`, as shells print it.
fn unbinary(text: &str) -> Result<Vec<u8>, String> {
    match text::parse(text) {
        Ok(Term::Binary(bytes)) => Ok(bytes.as_slice().to_vec()),
        Ok(_) => Err("it is Erlang text, but not a binary".to_owned()),
        Err(error) => Err(format!("as an Erlang binary, {error}")),
    }
}

/// Pairs of hexadecimal digits.
pub(super) fn unhex(digits: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("an odd number of hexadecimal digits");
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
    let byte = |&[high, low]: &[u8; 2]| Some(value(high)? << 4 | value(low)?);
    pairs.iter().map(byte).collect::<Option<_>>().ok_or("something else than hexadecimal digits")
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(*DIGITS.get(usize::from(value)).unwrap_or(&b'0'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_bytes_is_found_out() {
        let term = [131, 104, 2, 119, 2, 111, 107, 97, 1];
        for text in [
            "836802 7702 6f6b 6101\n",
            "83680277026F6B6101",
            "g2gCdwJva2EB",
            " g2gCdw\nJva2EB\n",
            "<<131,104,2,119,2,111,107,97,1>>",
            "<<131, 104, 2, 119, 2, 111, 107, 97, 1>>.\n",
        ] {
            assert_eq!(bytes(text.into(), Reading::Auto).as_deref(), Ok(&term[..]), "{text}");
        }
        assert_eq!(bytes(term.to_vec(), Reading::Auto).as_deref(), Ok(&term[..]));
        assert_eq!(bytes(term.to_vec(), Reading::Raw).as_deref(), Ok(&term[..]));
        // Without padding, and in the alphabet of URLs.
        assert_eq!(bytes("g2EB_w".into(), Reading::Auto), Ok(vec![131, 97, 1, 255]));
        assert_eq!(bytes("8361".into(), Reading::Base64), Ok(vec![0xf3, 0x7e, 0xb5]));
    }

    #[test]
    fn what_is_written_in_no_way_is_refused() {
        for (text, words) in [
            ("", "empty"),
            ("836", "odd"),
            ("<<131", "binary"),
            ("<<1:4>>", "binary"),
            ("!!", "64"),
        ] {
            let error = bytes(text.into(), Reading::Auto).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(bytes(vec![200, 1], Reading::Auto).is_err());
        assert!(bytes("zz".into(), Reading::Hex).is_err());
        assert!(bytes("é".into(), Reading::Hex).is_err());
    }

    #[test]
    fn hex_is_read_and_written() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(hex(&all).as_bytes()), Ok(all));
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }
}
