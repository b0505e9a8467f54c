//! The definitions of `meshx etf`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Etf {
    #[command(subcommand)]
    pub(crate) action: EtfAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EtfAction {
    /// Print the term that bytes stand for, as Erlang writes it
    Decode(EtfDecode),
    /// Print the bytes of a term that is written as in Erlang
    Encode(EtfEncode),
    /// Decode and encode again, line by line: hex in, `ok USED HEX` or `error WORDS` out, with --json, too
    Filter(EtfFilter),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    meshx etf decode state.etf\n  \
    echo g2gCdwJva2EB | meshx etf decode\n  \
    echo '<<131,104,2,119,2,111,107,97,1>>' | meshx etf decode --json\n\n\
    With --json: integers up to 2^53 and floats are numbers, true and false are themselves, binaries of \
    UTF-8 are strings, lists are arrays. All else is an object with one key: int, atom, binary (base64), \
    bits, tuple, list (with a tail), map (an array of pairs, in their order), pid, port, reference, \
    export, fun, record.")]
pub(crate) struct EtfDecode {
    /// A file of at most 256 MiB; `-` or nothing is stdin
    #[arg(value_name = "FILE|-")]
    pub(crate) file: Option<PathBuf>,
    /// How the bytes are written
    #[arg(long, value_enum, default_value_t = Reading::Auto)]
    pub(crate) format: Reading,
    /// Text in UTF-8 is shown as such, as by `~0tp` in place of `~0p`
    #[arg(long)]
    pub(crate) unicode: bool,
    /// Pids, ports and references with the creation of their node, so that `encode` loses nothing
    #[arg(long)]
    pub(crate) exact: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reading {
    /// By what comes
    Auto,
    /// Hexadecimal digits; space is ignored
    Hex,
    /// Base 64; space is ignored
    Base64,
    /// The bytes themselves
    Raw,
    /// As a shell prints them: `<<131,97,1>>`
    Binary,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    meshx etf encode '{ok, [1, 2.5, <<\"text\">>], #{key => \"list\"}}'\n  \
    echo 'fun lists:map/2' | meshx etf encode --format base64\n  \
    meshx etf encode --compressed=9 --format raw \"$(cat term.txt)\" > term.etf")]
pub(crate) struct EtfEncode {
    /// The term; `-` or nothing is stdin
    #[arg(value_name = "TERM|-", allow_hyphen_values = true)]
    pub(crate) term: Option<String>,
    /// How to write the bytes
    #[arg(long, value_enum, default_value_t = Writing::Hex)]
    pub(crate) format: Writing,
    #[command(flatten)]
    pub(crate) form: EtfForm,
    /// As `term_to_binary/2`: 0 has floats as text, 0 and 1 have atoms in Latin-1 (up to OTP 25)
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) minor_version: u8,
    /// Compressed where that is shorter, with an effort of 0 to 9
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "6",
        value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(crate) compressed: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Writing {
    Hex,
    Base64,
    /// The bytes themselves, with nothing after them
    Raw,
}

#[derive(Debug, Args)]
#[command(after_help = "Each line of input has one line of output, which is written at once:\n  \
    ok USED HEX   the line begins with a term of USED bytes, which encodes to HEX\n  \
    error WORDS   it does not\n\n\
    A line may have 64 MiB (a term 32 MiB, inflated too); a longer one is an error, and skipped. Terms \
    nest up to 1024 levels. Maps of up to 32 pairs are sorted, as in a VM up to OTP 25, except with \
    --minor-version 2; larger ones keep their order.")]
pub(crate) struct EtfFilter {
    #[command(flatten)]
    pub(crate) form: EtfForm,
    /// As `term_to_binary/2`: 0 has floats as text, 1 is what OTP 25 does, 2 is what OTP 26 does
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) minor_version: u8,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct EtfForm {
    /// All maps by the order of their keys
    #[arg(long)]
    pub(crate) deterministic: bool,
}
