use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::super::{STACK, encoder};
use super::*;

/// What the filter answers, as lines. A small buffer, so that lines come in pieces.
fn answers(input: impl Read) -> Vec<String> {
    let mut out = Vec::new();
    run(BufReader::with_capacity(100, input), &mut out, otp_25()).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

fn otp_25() -> Form {
    Form { encoder: encoder(1, false), settled: true }
}

/// As the command does, on a stack that the deepest terms fit.
fn on_a_large_stack(test: fn()) {
    std::thread::Builder::new().stack_size(STACK).spawn(test).unwrap().join().unwrap();
}

/// The lines of a file of vectors from a real VM; see `crates/etf/tests/data/README.md`.
fn vectors(name: &str) -> Vec<Value> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etf/tests/data").join(name);
    let given = std::env::var_os("MESHX_ETF_CORPUS").map(|folder| PathBuf::from(folder).join(name));
    let file = std::fs::File::open(given.filter(|path| path.exists()).unwrap_or(ours)).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let line = |line: &str| {
        let mut json = serde_json::Deserializer::from_str(line);
        json.disable_recursion_limit();
        serde::Deserialize::deserialize(&mut json).unwrap()
    };
    text.lines().map(line).collect()
}

/// The bytes of a vector, in hexadecimal digits.
fn digits(vector: &Value) -> String {
    match vector["zlib_b64"].as_str() {
        None => vector["hex"].as_str().unwrap().to_owned(),
        Some(packed) => {
            let packed = BASE64.decode(packed).unwrap();
            let mut bytes = Vec::new();
            flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
            hex(&bytes)
        }
    }
}

/// Every encoding of every term becomes the one that the VM makes of it by default. The order of more
/// than 32 pairs is that of the input: here the VM's own, except where they were sorted.
#[test]
fn what_a_vm_wrote_is_written_again_as_it_does() {
    on_a_large_stack(|| {
        let (mut input, mut wanted) = (String::new(), Vec::new());
        for term in vectors("valid.jsonl.gz") {
            let encodings = term["encodings"].as_array().unwrap();
            let options = |e: &Value| e["opts"].as_str().unwrap().to_owned();
            let is_default = |e: &&Value| options(e).split(',').any(|o| o == "default");
            let default = digits(encodings.iter().find(is_default).unwrap());
            for encoding in encodings {
                let digits = digits(encoding);
                let is_sorted = options(encoding) == "deterministic";
                wanted.push((format!("ok {} {default}", digits.len() / 2), is_sorted));
                input.push_str(&digits);
                input.push('\n');
            }
        }
        let answers = answers(input.as_bytes());
        assert_eq!(answers.len(), wanted.len());
        assert!(wanted.len() > 1400, "{}", wanted.len());
        for (answer, (wanted, is_sorted)) in answers.iter().zip(&wanted) {
            if *is_sorted {
                assert_eq!(in_order(answer), in_order(wanted));
            } else {
                assert!(answer == wanted, "{answer:.200}\n{wanted:.200}");
            }
        }
    });
}

/// The same bytes in whatever order.
fn in_order(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes
}

/// Cut, mutated, legacy and hostile bytes: taken or refused, and written again, as by the VM.
#[test]
fn what_a_vm_says_of_damaged_bytes_is_said_again() {
    on_a_large_stack(|| {
        let vectors = vectors("decode_cases.jsonl.gz");
        let input: Vec<String> = vectors.iter().map(digits).collect();
        let answers = answers(input.join("\n").as_bytes());
        assert_eq!(answers.len(), vectors.len());
        let (mut taken, mut refused) = (0, 0);
        for (vector, answer) in vectors.iter().zip(&answers) {
            let name = vector["name"].as_str().unwrap();
            // Nested 10 000 and more; and a tag of the VM's own, which is never on a wire.
            let is_ours = answer.contains("nesting deeper") || name == "unknown tag 73";
            if vector["binary_to_term"] != "ok" || is_ours {
                assert!(answer.starts_with("error "), "{name}: {answer:.200}");
                refused += 1;
                continue;
            }
            let again = vector["reencoded_default"].as_str().unwrap();
            let mut parts = answer.splitn(3, ' ');
            assert_eq!(parts.next(), Some("ok"), "{name}: {answer:.200}");
            let (used, bytes) = (parts.next().unwrap(), parts.next().unwrap());
            // That VM reads past the end of a reference without words.
            if name != "REF len0" {
                assert_eq!(used, vector["used"].to_string(), "{name}");
            }
            match again.strip_prefix("sha256:") {
                Some(hash) => {
                    assert_eq!(hex(&Sha256::digest(unhex(bytes.as_bytes()).unwrap())), hash);
                }
                None => assert_eq!(bytes, again, "{name}"),
            }
            taken += 1;
        }
        assert!(taken > 330 && refused > 1600, "{taken} taken, {refused} refused");
    });
}

#[test]
fn every_line_has_one_answer() {
    let input = "836101\n\n  836101ff \r\nzz\n83610\n\u{fffd}\n8361\n836AAA\n836101";
    let answers = answers(input.as_bytes());
    let begins = ["ok 3 836101", "error ", "ok 3 836101", "error ", "error ", "error ", "error "];
    assert_eq!(answers.len(), 9, "{answers:?}");
    for (answer, begin) in answers.iter().zip(begins) {
        assert!(answer.starts_with(begin), "{answer} is not {begin}");
    }
    assert_eq!(answers[7..], ["ok 2 836a", "ok 3 836101"]);
    assert!(self::answers(&b""[..]).is_empty());
    assert_eq!(self::answers(&[0xff, b'\n', 0, b'\n'][..]).len(), 2);
}

#[test]
fn a_line_that_is_too_long_is_an_error_and_skipped() {
    let long = |bytes: u64| io::repeat(b'8').take(bytes);
    let limit = LINE as u64;
    let input = long(3 * limit).chain(&b"\n836101\n"[..]).chain(long(limit + 1));
    let answers = answers_of_large(input);
    assert_eq!(answers.len(), 3);
    assert!(answers[0].contains("67108864 bytes") && answers[2] == answers[0], "{answers:?}");
    assert_eq!(answers[1], "ok 3 836101");
    // The longest allowed is read, and judged by what is in it.
    let answers = answers_of_large(long(limit).chain(&b"\r\n"[..]).chain(&b"836101\n"[..]));
    assert_eq!(answers.len(), 2, "{answers:?}");
    let answers = answers_of_large(long(limit).chain(&b"\n836101\n"[..]));
    assert!(answers[0].contains("byte 131") && answers[1] == "ok 3 836101", "{answers:?}");
}

fn answers_of_large(input: impl Read) -> Vec<String> {
    let mut out = Vec::new();
    run(BufReader::with_capacity(1 << 20, input), &mut out, otp_25()).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_bomb_is_refused() {
    // Promises 64 MiB, of which there is nothing; and a list of 2^32 - 1 elements without one.
    let answers = answers(&b"83500400000078da\n836cffffffff\n836d7fffffff00\n"[..]);
    assert!(answers.iter().all(|answer| answer.starts_with("error ")), "{answers:?}");
    assert_eq!(answers.len(), 3);
}

/// Reads nothing before the answer to the line before is out.
#[test]
fn an_answer_is_written_at_once() {
    struct Flushes(Vec<u8>, Vec<usize>);
    impl Write for Flushes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            self.1.push(self.0.len());
            Ok(())
        }
    }
    let mut out = Flushes(Vec::new(), Vec::new());
    run(Cursor::new("836101\nzz\n836a\n"), &mut out, otp_25()).unwrap();
    let ends = out.0.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    assert_eq!(out.1, ends.collect::<Vec<_>>());
}

#[test]
fn a_reader_that_went_away_ends_it_well() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert!(run(Cursor::new("836101\n"), Gone, otp_25()).is_ok());
}

#[test]
fn the_form_can_be_chosen() {
    let mut out = Vec::new();
    // And the order of a small map is kept: `#{b => 1, a => 1}`.
    let map = "837400000002640001626101640001616101";
    let otp_26 = Form { encoder: encoder(2, false), settled: false };
    run(Cursor::new(format!("836400026f6b\n{map}\n")), &mut out, otp_26).unwrap();
    run(Cursor::new(map), &mut out, otp_25()).unwrap();
    let wanted = [
        "ok 6 8377026f6b",
        "ok 18 83740000000277016261017701616101",
        "ok 18 837400000002640001616101640001626101",
        "",
    ];
    assert_eq!(String::from_utf8(out).unwrap(), wanted.join("\n"));
}
