//! `meshx etf`: Erlang's external term format at the command line.

mod filter;
mod input;
pub(crate) mod json;

use std::fs::File;
use std::io::{IsTerminal as _, Read, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use meshx_etf::text::{self, Print};
use meshx_etf::{Decoder, Encoder, Limits, Term};

use crate::args::{Etf, EtfAction, EtfDecode, EtfEncode, EtfFilter, Writing};
use crate::failure::{Failure, exit};
use crate::output::Output;

/// How many bytes a file, or stdin, may have.
const INPUT: u64 = 256 << 20;

/// What recurses once for each level of nesting needs this much at most: 1024 levels, decoded and
/// printed, take about a tenth of it where nothing is optimised.
const STACK: usize = 64 << 20;

pub(crate) fn run(arguments: Etf, output: Output) -> Result<u8, Failure> {
    let work = move || match arguments.action {
        EtfAction::Decode(arguments) => decode(&arguments, output),
        EtfAction::Encode(arguments) => encode(&arguments, output),
        EtfAction::Filter(arguments) => filter(&arguments),
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work);
    let thread = thread.map_err(|error| Failure::internal("start a thread", &error))?;
    thread.join().map_err(|_| Failure::internal("go on", &"a thread panicked"))?
}

fn decode(arguments: &EtfDecode, output: Output) -> Result<u8, Failure> {
    let given = match &arguments.file {
        Some(path) if path.as_os_str() != "-" => {
            let file = File::open(path).and_then(read);
            file.map_err(|error| unreadable(&path.display().to_string(), &error))?
        }
        _ => read(std::io::stdin()).map_err(|error| unreadable("stdin", &error))?,
    };
    let bytes = input::bytes(given, arguments.format).map_err(|what| {
        Failure::new(640, exit::NEGATIVE, format!("the input is not a term: {what}"))
            .hint("--format hex|base64|raw|binary says how its bytes are written")
    })?;
    let term = decoder().term(&bytes).map_err(|error| {
        Failure::new(640, exit::NEGATIVE, format!("the input is not a term: {error}"))
    })?;
    if output.json {
        let document = serde_json::json!({
            "schema": "meshx.term/1", "bytes": bytes.len(), "term": json::value(&term),
        });
        output.data(&document, |_| String::new());
    } else {
        output.data(&(), |()| shown(&term, arguments));
    }
    Ok(exit::SUCCESS)
}

fn decoder() -> Decoder<'static> {
    let mut limits = Limits::default();
    limits.depth = Limits::DEEPEST;
    Decoder::new().limits(limits)
}

fn shown(term: &Term, arguments: &EtfDecode) -> String {
    let mut print = Print::new(term);
    if arguments.unicode {
        print = print.unicode();
    }
    if arguments.exact {
        print = print.creations();
    }
    print.to_string()
}

fn encode(arguments: &EtfEncode, output: Output) -> Result<u8, Failure> {
    let text = match &arguments.term {
        Some(term) if term != "-" => term.clone(),
        _ => {
            let bytes = read(std::io::stdin()).map_err(|error| unreadable("stdin", &error))?;
            String::from_utf8(bytes)
                .map_err(|_| Failure::new(641, exit::NEGATIVE, "stdin is not UTF-8"))?
        }
    };
    let term = text::parse(&text).map_err(|error| {
        Failure::new(641, exit::NEGATIVE, format!("this is not a term: {error}"))
            .hint("terms are written as in Erlang: {ok, [1, 2.5], <<\"text\">>, #{key => value}}")
    })?;
    let mut encoder = encoder(arguments.minor_version, arguments.form.deterministic);
    if let Some(level) = arguments.compressed {
        encoder = encoder.compressed(level);
    }
    let bytes = encoder.term(&term).map_err(|error| {
        Failure::new(641, exit::NEGATIVE, format!("this term has no bytes: {error}"))
    })?;
    write(&bytes, arguments.format, output)?;
    Ok(exit::SUCCESS)
}

fn encoder(minor_version: u8, deterministic: bool) -> Encoder {
    let encoder = Encoder::new().minor_version(minor_version);
    if deterministic { encoder.sorted() } else { encoder }
}

fn write(bytes: &[u8], format: Writing, output: Output) -> Result<(), Failure> {
    let (name, data) = match format {
        Writing::Hex => ("hex", input::hex(bytes)),
        Writing::Raw if !output.json => {
            let mut stdout = std::io::stdout().lock();
            if stdout.is_terminal() {
                return Err(Failure::new(642, exit::USAGE, "raw bytes harm a terminal")
                    .hint("send them to a file: meshx etf encode --format raw TERM > FILE"));
            }
            // A reader that went away is no failure.
            drop(stdout.write_all(bytes).and_then(|()| stdout.flush()));
            return Ok(());
        }
        // JSON has no bytes.
        Writing::Base64 | Writing::Raw => ("base64", BASE64.encode(bytes)),
    };
    let document = serde_json::json!({
        "schema": "meshx.etf.bytes/1", "bytes": bytes.len(), "format": name, "data": data,
    });
    output.data(&document, |_| data);
    Ok(())
}

fn filter(arguments: &EtfFilter) -> Result<u8, Failure> {
    let form = filter::Form {
        encoder: encoder(arguments.minor_version, arguments.form.deterministic),
        settled: arguments.minor_version < 2,
    };
    filter::run(std::io::stdin().lock(), std::io::stdout().lock(), form)
        .map_err(|error| Failure::internal("read stdin or write to stdout", &error))?;
    Ok(exit::SUCCESS)
}

fn read(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if source.take(INPUT.saturating_add(1)).read_to_end(&mut bytes)? as u64 > INPUT {
        return Err(std::io::Error::other("more than 256 MiB"));
    }
    Ok(bytes)
}

fn unreadable(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(642, exit::USAGE, format!("cannot read {what}: {error}"))
}
