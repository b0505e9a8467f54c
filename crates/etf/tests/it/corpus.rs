//! What a real VM wrote, and what it said about damaged bytes.

use std::collections::{BTreeMap, HashSet};

use meshx_etf::text::Print;
use meshx_etf::{
    Atom, DecodeError, Decoder, Encoder, Known, Limits, Term, TermRef, decode, decode_ref,
};

use crate::vectors::{bytes, has_tree, lines, term, without_nodes};

fn deep() -> Decoder<'static> {
    let mut limits = Limits::default();
    limits.depth = Limits::DEEPEST;
    Decoder::new().limits(limits)
}

/// The encoder that makes what this option of `term_to_binary/2` makes.
fn encoder(option: &str) -> Encoder {
    match option {
        "minor0" => Encoder::new().minor_version(0),
        "minor2" => Encoder::new().minor_version(2),
        "deterministic" => Encoder::new().minor_version(1).sorted(),
        "compressed" => Encoder::new().minor_version(1).compressed(6),
        "compressed1" => Encoder::new().minor_version(1).compressed(1),
        "compressed9_minor2" => Encoder::new().minor_version(2).compressed(9),
        "default" | "minor1" => Encoder::new().minor_version(1),
        other => panic!("{other}: not an option"),
    }
}

/// On a stack that the deepest terms fit without optimisation.
fn on_a_large_stack(test: fn()) {
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(test).expect("a thread");
    thread.join().expect("the test to pass");
}

#[test]
fn reads_and_writes_every_encoding_of_a_vm() {
    on_a_large_stack(|| {
        let (mut exact, mut compressed) = (0, 0);
        for line in lines("valid.jsonl.gz") {
            let name = &line["term"];
            let from_tree = Some(&line["ast"]).filter(|tree| tree.is_object()).and_then(term);
            for encoding in line["encodings"].as_array().expect("encodings") {
                let wire = bytes(encoding);
                let read = deep().term(&wire).unwrap_or_else(|e| panic!("term {name}: {e}"));
                if let Some(from_tree) = &from_tree {
                    assert_eq!(&read, from_tree, "term {name}");
                }
                for option in encoding["opts"].as_str().expect("options").split(',') {
                    let written = encoder(option).term(&read).expect("a term");
                    if wire[1] == 80 {
                        // Another zlib finds another short form; what is in it must be the same.
                        assert_eq!(deep().term(&written).as_ref(), Ok(&read), "term {name}");
                        compressed += 1;
                    } else if !option.starts_with("compressed") || written[1] != 80 {
                        assert!(written == wire, "term {name}, {option}");
                        exact += 1;
                    }
                    if option == "deterministic"
                        && let Some(from_tree) = &from_tree
                    {
                        let written = encoder(option).term(from_tree).expect("a term");
                        assert!(written == wire, "term {name} from its tree");
                    }
                }
                if wire[1] != 80 {
                    let borrowed = deep().term_ref(&wire).expect("a term");
                    assert_eq!(borrowed.to_term().as_ref(), Ok(&read), "term {name}");
                    let shared = deep().shared(&wire.clone().into()).expect("a term");
                    assert_eq!(shared, read, "term {name}");
                    assert_eq!(deep().skip(&wire[1..]), Ok(&[][..]), "term {name}");
                }
            }
        }
        assert!(exact > 2500 && compressed > 350, "{exact} exact, {compressed} compressed");
    });
}

#[test]
fn prints_as_a_vm_does() {
    let mut compared = 0;
    for line in lines("valid.jsonl.gz").iter().chain(&lines("decode_cases.jsonl.gz")) {
        let Some(text) = line["text"].as_str() else { continue };
        let wire = bytes(line.get("encodings").map_or(line, |encodings| &encodings[0]));
        let Ok((term, _)) = deep().prefix(&wire) else { continue };
        // The VM prints the bytes of such a fun's names as if they were Latin-1.
        // A reference without words has no dot by which the node could be found in it.
        let name = line["name"].as_str().unwrap_or_default();
        if ["legacy EXPORT_EXT utf8", "mutation 276", "mutation 1282", "REF len0"].contains(&name) {
            continue;
        }
        let ours = Print::new(&term).unicode().to_string();
        assert_eq!(without_nodes(&ours), without_nodes(text), "{} {}", line["term"], line["name"]);
        compared += 1;
    }
    assert!(compared > 800, "{compared}");
}

#[test]
fn reads_its_own_text_again() {
    for line in lines("valid.jsonl.gz") {
        let wire = bytes(&line["encodings"][0]);
        let Ok(term) = decode(&wire) else { continue };
        if line.to_string().contains("\"fun\"") || wire.windows(8).any(|w| w == b"etf_gen\x61") {
            continue;
        }
        let text = format!("{term:#}");
        if text.contains("#Fun<") {
            continue;
        }
        let again = meshx_etf::text::parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(again, term, "{text}");
    }
}

/// Vectors about which we mean something else than OTP, and why.
fn differs(name: &str) -> bool {
    // A tag of the VM's own, which its decoder happens to know: never on a wire.
    name == "unknown tag 73"
}

#[test]
fn says_of_damaged_bytes_what_a_vm_says() {
    on_a_large_stack(|| {
        let (mut taken, mut refused, mut too_deep) = (0, 0, 0);
        for line in lines("decode_cases.jsonl.gz") {
            let name = line["name"].as_str().expect("a name");
            let wire = bytes(&line);
            let ours = deep().prefix(&wire);
            if ours == Err(DecodeError::Depth { limit: Limits::DEEPEST }) {
                too_deep += 1;
                continue;
            }
            if differs(name) {
                assert!(ours.is_err(), "{name}");
                continue;
            }
            if line["binary_to_term"] == "badarg" {
                assert!(ours.is_err(), "{name}: {ours:?}");
                if let Ok(TermRef::Map(_)) = decode_ref(&wire) {
                    continue;
                }
                refused += 1;
                continue;
            }
            let (term, used) = ours.unwrap_or_else(|error| panic!("{name}: {error}"));
            // That VM reads past the end of a reference without words.
            if name != "REF len0" {
                assert_eq!(Some(used as u64), line["used"].as_u64(), "{name}");
            }
            // The tree of this one holds only the low byte of its arity.
            if name != "EXPORT arity 256 INT"
                && has_tree(&line)
                && let Some(tree) = crate::vectors::term(&line["ast"])
            {
                assert_eq!(term, tree, "{name}");
            }
            if let Some(again) = line["reencoded_default"].as_str().filter(|hex| !hex.contains(':'))
            {
                // The VM sorts a small map when it reads it, and keeps a large one as it came.
                let mut written = encoder("default").term(&term).expect("a term");
                if crate::vectors::unhex(again) != written {
                    written = encoder("deterministic").term(&term).expect("a term");
                }
                assert_eq!(crate::vectors::unhex(again), written, "{name}");
            }
            taken += 1;
        }
        assert_eq!(too_deep, 3, "the three that nest 10 000 and more");
        assert!(taken > 330 && refused > 1600, "{taken} taken, {refused} refused");
    });
}

struct Table {
    atoms: HashSet<String>,
    exports: HashSet<(String, String, u32)>,
}

impl Known for Table {
    fn atom(&self, text: &str) -> bool {
        self.atoms.contains(text)
    }

    fn export(&self, module: &str, function: &str, arity: u32) -> bool {
        self.exports.contains(&(module.to_owned(), function.to_owned(), arity))
    }
}

impl Table {
    /// All names that a term has.
    fn learn(&mut self, term: &Term) {
        let mut atom = |atom: &Atom| self.atoms.insert(atom.to_string_lossless());
        match term {
            Term::Atom(name) => drop(atom(name)),
            Term::Pid(pid) => drop(atom(pid.node.name())),
            Term::Port(port) => drop(atom(port.node.name())),
            Term::Reference(reference) => drop(atom(reference.node().name())),
            Term::Export(export) => {
                atom(&export.module);
                atom(&export.function);
                let key =
                    (export.module.to_string_lossless(), export.function.to_string_lossless());
                self.exports.insert((key.0, key.1, export.arity));
            }
            Term::Fun(fun) => {
                atom(&fun.module);
                atom(fun.pid.node.name());
                fun.free.iter().for_each(|term| self.learn(term));
            }
            Term::Tuple(all) | Term::List(all) => all.iter().for_each(|term| self.learn(term)),
            Term::Improper(list) => {
                list.elements().iter().for_each(|term| self.learn(term));
                self.learn(list.tail());
            }
            Term::Map(map) => map.iter().for_each(|(key, value)| {
                self.learn(key);
                self.learn(value);
            }),
            _ => {}
        }
    }
}

trait Text {
    fn to_string_lossless(&self) -> String;
}

impl Text for Atom {
    fn to_string_lossless(&self) -> String {
        self.as_str().to_owned()
    }
}

/// The vectors do not say which atoms the VM knew; but what its safe form took, it knew. With these
/// the same must be taken, and every refusal that was about a name must be one here.
#[test]
fn safe_decoding_takes_what_is_known_and_nothing_else() {
    on_a_large_stack(|| {
        let cases = lines("decode_cases.jsonl.gz");
        let mut table = Table { atoms: HashSet::new(), exports: HashSet::new() };
        for line in cases.iter().filter(|line| line["safe"] == "ok") {
            if let Ok((term, _)) = deep().prefix(&bytes(line)) {
                table.learn(&term);
            }
        }
        let mut found = BTreeMap::new();
        for line in cases.iter().filter(|line| line["binary_to_term"] == "ok") {
            let ours = deep().known(&table).prefix(&bytes(line));
            let name = line["name"].as_str().expect("a name");
            if differs(name) || matches!(ours, Err(DecodeError::Depth { .. })) {
                continue;
            }
            if line["safe"] == "ok" {
                assert!(ours.is_ok(), "{name}: {ours:?}");
            } else {
                assert_eq!(ours.map(|_| ()), Err(DecodeError::Unknown), "{name}");
            }
            *found.entry(line["safe"].to_string()).or_insert(0) += 1;
        }
        assert!(found.values().all(|&count| count > 140), "{found:?}");
    });
}
