//! `meshx etf filter`: a line of hexadecimal digits in, what became of it out.

use std::io::{self, BufRead, ErrorKind, Read as _, Write};

use meshx_etf::{Decoder, Encoder, Limits};

use super::input::{hex, unhex};

/// How many bytes a line may have, without the line feed.
pub(super) const LINE: usize = 64 << 20;

/// How much of a buffer is kept for the next line.
const KEPT: usize = 1 << 20;

/// Answers each line with one line, at once, until the input ends or nobody reads any more.
///
/// The answer is `ok USED HEX` if the line's bytes begin with a term: how many bytes that term has,
/// and those that it encodes to; otherwise `error` and why not.
pub(super) fn run(
    mut input: impl BufRead,
    mut out: impl Write,
    encoder: Encoder,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        line.shrink_to(KEPT);
        // One more than is allowed, and the end of the line.
        input.by_ref().take(LINE as u64 + 1).read_until(b'\n', &mut line)?;
        let answer = match line.strip_suffix(b"\n") {
            Some(line) => answer(line, encoder),
            None if line.len() > LINE => {
                skip_line(&mut input)?;
                format!("error a line of more than {LINE} bytes\n")
            }
            None if line.is_empty() => return Ok(()),
            None => answer(&line, encoder),
        };
        match out.write_all(answer.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            outcome => outcome?,
        }
    }
}

fn answer(line: &[u8], encoder: Encoder) -> String {
    match again(line.trim_ascii(), encoder) {
        Ok((used, bytes)) => format!("ok {used} {}\n", hex(&bytes)),
        Err(why) => format!("error {why}\n"),
    }
}

fn again(line: &[u8], encoder: Encoder) -> Result<(usize, Vec<u8>), String> {
    let bytes = unhex(line)?;
    let mut limits = Limits::default();
    limits.depth = Limits::DEEPEST;
    limits.inflated = LINE / 2;
    let decoder = Decoder::new().limits(limits);
    let (term, used) = decoder.prefix(&bytes).map_err(|error| error.to_string())?;
    let again = encoder.term(&term.settled()).map_err(|error| error.to_string())?;
    Ok((used, again))
}

/// Reads up to the end of the line, and keeps nothing.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let (used, is_over) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if is_over {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
