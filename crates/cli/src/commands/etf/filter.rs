//! `meshx etf filter`: a line of hexadecimal digits in, what became of it out.

use std::io::{self, BufRead, ErrorKind, Read as _, Write};

use meshx_etf::{Decoder, Encoder, Limits};

use super::input::{hex, unhex};

/// How terms are written again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) encoder: Encoder,
    /// Whether small maps are sorted first, as VMs up to OTP 25 hold them. Later ones order atoms by a
    /// number of their own, so there the order of the input says most.
    pub(super) settled: bool,
}

/// How many bytes a line may have, without the line feed. A term of half of that, which it stands for
/// or is inflated to, may take 1 GiB of memory, if it is a list of nothing but `[]`.
pub(super) const LINE: usize = 64 << 20;

/// How much of a buffer is kept for the next line.
const KEPT: usize = 1 << 20;

/// Answers each line with one line, at once, until the input ends or nobody reads any more.
///
/// The answer is `ok USED HEX` if the line's bytes begin with a term: how many bytes that term has,
/// and those that it encodes to; otherwise `error` and why not.
pub(super) fn run(mut input: impl BufRead, mut out: impl Write, form: Form) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        line.shrink_to(KEPT);
        // One more than is allowed, and the end of the line.
        input.by_ref().take(LINE as u64 + 1).read_until(b'\n', &mut line)?;
        let answer = match line.strip_suffix(b"\n") {
            Some(line) => answer(line, form),
            None if line.len() > LINE => {
                skip_line(&mut input)?;
                format!("error a line of more than {LINE} bytes\n")
            }
            None if line.is_empty() => return Ok(()),
            None => answer(&line, form),
        };
        match out.write_all(answer.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            outcome => outcome?,
        }
    }
}

fn answer(line: &[u8], form: Form) -> String {
    match again(line.trim_ascii(), form) {
        Ok((used, bytes)) => format!("ok {used} {}\n", hex(&bytes)),
        Err(why) => format!("error {why}\n"),
    }
}

fn again(line: &[u8], form: Form) -> Result<(usize, Vec<u8>), String> {
    let bytes = unhex(line)?;
    let mut limits = Limits::default();
    limits.depth = Limits::DEEPEST;
    limits.inflated = LINE / 2;
    let decoder = Decoder::new().limits(limits);
    let (term, used) = decoder.prefix(&bytes).map_err(|error| error.to_string())?;
    let term = if form.settled { term.settled() } else { term };
    let again = form.encoder.term(&term).map_err(|error| error.to_string())?;
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
