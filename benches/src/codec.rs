//! Erlang's term format: encoding and decoding four terms, the VM's own codec and others in the same
//! run.

mod peers;

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use meshx_etf::{Atom, Binary, Encoder, Term, decode, decode_ref, encode, from_bytes, term};
use serde::Serialize;

use crate::report::{Row, Sample, Section, Unit, note};
use crate::stage::{Stage, find};

use peers::Peers;

/// What the VM does: each line it prints is a name and the nanoseconds of one operation.
const MODULE: &str = r#"
-module(codec).
-export([main/0]).

main() ->
    [one(Name, Times, Term) || {Name, Times, Term} <- terms()],
    halt().

terms() ->
    [{small, 400000, {ok, 1234567, <<"hello!">>, [1, 2]}},
     {list, 1000, lists:seq(0, 9999)},
     {map, 400, maps:from_list([{list_to_atom("key_" ++ integer_to_list(N)),
         list_to_binary("value_" ++ integer_to_list(N))} || N <- lists:seq(1, 1000)])},
     {large, 2000, binary:copy(<<7>>, 1 bsl 20)}].

one(Name, Times, Term) ->
    Bytes = term_to_binary(Term),
    Encode = alone(fun() -> encode(Times, Term, 0) end),
    Decode = alone(fun() -> decode(Times, Bytes, 0) end),
    io:format("~s ~b ~b~n", [Name, round(Encode / Times), round(Decode / Times)]).

alone(Work) ->
    Self = self(),
    spawn_link(fun() ->
        Work(),
        {Took, _} = timer:tc(Work),
        Self ! {took, Took * 1000}
    end),
    receive {took, Nanoseconds} -> Nanoseconds end.

encode(0, _, Sum) -> Sum;
encode(Left, Term, Sum) -> encode(Left - 1, Term, Sum + byte_size(term_to_binary(Term))).

decode(0, _, Sum) -> Sum;
decode(Left, Bytes, _) -> decode(Left - 1, Bytes, binary_to_term(Bytes)).
"#;

const COMPILE: &str = r#"
    {ok, Tokens, _} = erl_scan:string(os:getenv("BENCH_MODULE")),
    Forms = fun Forms([], []) -> [];
        Forms([{dot, _} = D | Rest], Form) ->
            {ok, F} = erl_parse:parse_form(lists:reverse([D | Form])), [F | Forms(Rest, [])];
        Forms([T | Rest], Form) -> Forms(Rest, [T | Form]) end,
    {ok, M, Code} = compile:forms(Forms(Tokens, [])),
    {module, M} = code:load_binary(M, "codec.erl", Code),
    M:main().
"#;

/// Appends an encoded value.
type Write = Box<dyn Fn(&mut Vec<u8>)>;

/// A term, and what is done with it.
struct Subject {
    name: &'static str,
    title: &'static str,
    /// Operations in one measurement.
    times: u32,
    term: Term,
    bytes: Vec<u8>,
    /// Encodes the same from a Rust value.
    write: Write,
    /// Decodes it to a Rust value; whether that worked.
    read: fn(&[u8]) -> bool,
    samples: [Sample; 6],
}

const ENCODE: &str = "encode";
const DECODE: &str = "decode";

/// Operations in the order of [`Subject::samples`].
const OPERATIONS: [(&str, &str); 6] = [
    (ENCODE, "meshx-etf, from a term"),
    (ENCODE, SHARED),
    (ENCODE, "meshx-etf, from a Rust value"),
    (DECODE, "meshx-etf, to a term"),
    (DECODE, "meshx-etf, to a borrowed term"),
    (DECODE, TYPED),
];

const SHARED: &str = "meshx-etf, large binaries shared";
const TYPED: &str = "meshx-etf, to a Rust value";

/// How much of the VM's time decoding to a Rust value may take.
const DECODE_AIM: f64 = 0.25;

/// How much of the VM's time encoding may take; of a large binary without a copy, which takes
/// anybody as long.
const ENCODE_AIM: f64 = 0.5;

/// We are to be ahead of every other codec.
const FIRST_AIM: f64 = 1.0;

pub(crate) fn measure(stage: &Stage, section: &mut Section) -> Result<()> {
    let erl = find("erl");
    let mut subjects = subjects()?;
    let mut theirs: HashMap<String, [Sample; 2]> = HashMap::new();
    let mut peers = Peers::build(stage, section);
    for _ in 0..stage.runs {
        if stage.budget.is_spent()? {
            break;
        }
        for subject in &mut subjects {
            subject.run()?;
        }
        let terms: Vec<_> =
            subjects.iter().map(|s| (s.name, s.times, s.bytes.as_slice())).collect();
        peers.run(stage, &terms)?;
        if let Some(erl) = &erl {
            for (name, encode, decode) in vm(stage, erl)? {
                let samples = theirs.entry(name).or_default();
                samples[0].push(encode);
                samples[1].push(decode);
            }
        }
    }
    if erl.is_none() {
        const WHY: &str = "the VM's own codec not measured: no `erl` on PATH";
        section.notice(WHY.to_owned());
        note(WHY);
    }
    for subject in subjects {
        let (name, title) = (subject.name, subject.title);
        subject.rows(theirs.get(name), &peers, section);
        peers.rows(name, title, section);
    }
    section.notice(
        "we encode into a buffer that is there already, as do ei, eetf and erltf; the VM into a new \
         binary, and erlang_rs into a new vector"
            .to_owned(),
    );
    section
        .notice("ei builds no term: it decodes into numbers and buffers that are there".to_owned());
    Ok(())
}

fn subjects() -> Result<Vec<Subject>> {
    let ok: Atom = "ok".parse()?;
    let list: Vec<i64> = (0..10_000).collect();
    let mut atoms: HashMap<Atom, Binary> = HashMap::new();
    for number in 1..=1000 {
        atoms.insert(format!("key_{number}").parse()?, format!("value_{number}").into());
    }
    let large = Binary::from(vec![7; 1 << 20]);
    let map = atoms.iter().map(|(key, value)| (key.clone().into(), value.clone().into()));
    let terms = [
        term!({ok, 1_234_567, "hello!", [1, 2]}),
        list.iter().copied().map(Term::from).collect(),
        Term::Map(map.collect()),
        large.clone().into(),
    ];
    let [small_term, list_term, map_term, large_term] = terms;
    let small =
        move |out: &mut Vec<u8>| write(&(&ok, 1_234_567, "hello!", [1_u8, 2].as_slice()), out);
    Ok(vec![
        Subject::new("small", "tuple of 28 bytes", 400_000, small_term, small, |bytes| {
            from_bytes::<(&str, i64, &str, &[u8])>(bytes).map(black_box).is_ok()
        })?,
        Subject::new(
            "list",
            "list of 10 000 integers",
            1000,
            list_term,
            move |out| write(&list, out),
            |bytes| from_bytes::<Vec<i64>>(bytes).map(black_box).is_ok(),
        )?,
        Subject::new(
            "map",
            "map of 1 000 atoms to binaries",
            400,
            map_term,
            move |out| write(&atoms, out),
            |bytes| from_bytes::<HashMap<&str, &[u8]>>(bytes).map(black_box).is_ok(),
        )?,
        Subject::new(
            "large",
            "binary of 1 MiB",
            2000,
            large_term,
            move |out| write(&large, out),
            |bytes| from_bytes::<&[u8]>(bytes).map(black_box).is_ok(),
        )?,
    ])
}

fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let written = Encoder::new().bare_typed(black_box(value), out);
    assert!(written.is_ok(), "a value of ours has an encoding");
}

impl Subject {
    fn new(
        name: &'static str,
        title: &'static str,
        times: u32,
        term: Term,
        write: impl Fn(&mut Vec<u8>) + 'static,
        read: fn(&[u8]) -> bool,
    ) -> Result<Self> {
        let bytes = encode(&term)?;
        let write = Box::new(write);
        Ok(Self { name, title, times, term, bytes, write, read, samples: Default::default() })
    }

    fn run(&mut self) -> Result<()> {
        let (term, bytes) = (&self.term, self.bytes.as_slice());
        let encoder = Encoder::new();
        let mut out = Vec::new();
        let values = [
            timed(self.times, || {
                out.clear();
                encoder.bare(black_box(term), &mut out).is_ok()
            })?,
            timed(self.times, || encoder.pieces(black_box(term)).map(black_box).is_ok())?,
            timed(self.times, || {
                out.clear();
                (self.write)(&mut out);
                true
            })?,
            timed(self.times, || decode(black_box(bytes)).map(black_box).is_ok())?,
            timed(self.times, || decode_ref(black_box(bytes)).map(black_box).is_ok())?,
            timed(self.times, || (self.read)(black_box(bytes)))?,
        ];
        for (sample, value) in self.samples.iter_mut().zip(values) {
            sample.push(value);
        }
        Ok(())
    }

    fn rows(self, theirs: Option<&[Sample; 2]>, peers: &Peers, section: &mut Section) {
        for (operation, sample) in OPERATIONS.into_iter().zip(self.samples) {
            let (name, subject) = operation;
            let what = format!("{}: {name}", self.title);
            let ratio = theirs.map(|theirs| sample.over(&theirs[usize::from(name == DECODE)]));
            let encoding = if self.name == "large" { SHARED } else { OPERATIONS[0].1 };
            // Each side in the form that suits it best.
            let fastest = (subject == encoding || subject == TYPED)
                .then(|| peers.fastest(self.name, name))
                .flatten()
                .map(|fastest| sample.over(&fastest));
            section.row(Row::new(&what, subject, Unit::Nanoseconds, sample));
            if let Some(ratio) = ratio {
                let row = Row::new(&what, "of the VM's time", Unit::Ratio, ratio);
                section.row(match subject {
                    TYPED => row.at_most(DECODE_AIM),
                    subject if subject == encoding => row.at_most(ENCODE_AIM),
                    _ => row,
                });
            }
            if let Some(ratio) = fastest {
                let row = Row::new(&what, "of the fastest other's time", Unit::Ratio, ratio);
                section.row(row.at_most(FIRST_AIM));
            }
        }
        for (name, sample) in [ENCODE, DECODE].into_iter().zip(theirs.into_iter().flatten()) {
            let what = format!("{}: {name}", self.title);
            section.row(Row::new(&what, "the VM", Unit::Nanoseconds, sample.clone()));
        }
    }
}

/// Nanoseconds of one operation, after a tenth of them to warm up.
fn timed(times: u32, mut operation: impl FnMut() -> bool) -> Result<f64> {
    let mut well = true;
    for _ in 0..times / 10 {
        well &= operation();
    }
    let begun = Instant::now();
    for _ in 0..times {
        well &= operation();
    }
    let took = begun.elapsed();
    if !well {
        bail!("an operation failed");
    }
    Ok(took.as_secs_f64() * 1e9 / f64::from(times))
}

/// What a fresh VM prints.
fn vm(stage: &Stage, erl: &Path) -> Result<Vec<(String, f64, f64)>> {
    let mut command = stage.command(erl, "");
    command.env("BENCH_MODULE", MODULE).args(["-noshell", "-eval", COMPILE]);
    let output = command.output().context("cannot start erl")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |line: &str| -> Option<(String, f64, f64)> {
        let mut parts = line.split(' ');
        let name = parts.next()?.to_owned();
        Some((name, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match text.lines().map(line).collect::<Option<Vec<_>>>() {
        Some(values) if values.len() == 4 => Ok(values),
        _ => {
            bail!("the VM said `{}{}`", text.trim(), String::from_utf8_lossy(&output.stderr).trim())
        }
    }
}
