//! Measures other codecs: `codec-peers TIMES FILE…` prints, for each file and codec, the codec's
//! name, the file, and the nanoseconds of one encoding and one decoding, `-` where it has none.
//!
//! The term of a file is decoded once and encoded from what came out, into a buffer that is there
//! already where the codec can do that.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use eetf::Term;
use erlang::{binary_to_term, term_to_binary};
use erltf::{decode, decode_borrowed, encode_to_writer};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    for pair in words.chunks_exact(2) {
        let (times, file) = (pair[0].parse()?, pair[1].as_str());
        measure(times, file, &std::fs::read(file)?)?;
    }
    Ok(())
}

fn measure(times: u32, file: &str, bytes: &[u8]) -> Outcome {
    let mut out = Vec::new();

    let term = Term::decode(bytes)?;
    let encode = timed(times, || {
        out.clear();
        Ok(black_box(&term).encode(&mut out)?)
    })?;
    let decoded = timed(times, || made(Term::decode(black_box(bytes))?))?;
    report("eetf 0.12", file, Some(encode), decoded);

    let term = decode(bytes)?;
    let encode = timed(times, || {
        out.clear();
        Ok(encode_to_writer(black_box(&term), &mut out)?)
    })?;
    let decoded = timed(times, || made(decode(black_box(bytes))?))?;
    report("erltf 0.16", file, Some(encode), decoded);

    let decoded = timed(times, || {
        made(decode_borrowed(black_box(bytes)).map_err(|error| error.to_string())?)
    })?;
    report("erltf 0.16, borrowed", file, None, decoded);

    let term = binary_to_term(bytes)?;
    let encode = timed(times, || made(term_to_binary(black_box(&term))?))?;
    let decoded = timed(times, || made(binary_to_term(black_box(bytes))?))?;
    report("erlang_rs 2.0", file, Some(encode), decoded);
    Ok(())
}

/// Drops what an operation made; that is part of it.
fn made<T>(value: T) -> Outcome {
    drop(black_box(value));
    Ok(())
}

fn report(codec: &str, file: &str, encode: Option<f64>, decode: f64) {
    let encode = encode.map_or_else(|| "-".to_owned(), |nanoseconds| format!("{nanoseconds:.1}"));
    println!("{codec}\t{file}\t{encode}\t{decode:.1}");
}

/// Nanoseconds of one operation, after a tenth of them to warm up.
fn timed(times: u32, mut operation: impl FnMut() -> Outcome) -> Result<f64, Box<dyn Error>> {
    for _ in 0..times / 10 {
        operation()?;
    }
    let begun = Instant::now();
    for _ in 0..times {
        operation()?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / f64::from(times))
}
