//! The vectors: files of JSON lines.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use meshx_etf::{BigInt, BitString, Export, Map, Node, Pid, Port, Reference, Term};
use serde_json::Value;

/// The lines of a file, from `MESHX_ETF_CORPUS` if that is set and has it.
pub(crate) fn lines(name: &str) -> Vec<Value> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let given = std::env::var_os("MESHX_ETF_CORPUS").map(|folder| PathBuf::from(folder).join(name));
    let path = given.filter(|path| path.exists()).unwrap_or(ours);
    let mut text = String::new();
    let file = std::fs::File::open(&path).expect("the vectors");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the vectors");
    text.lines()
        .map(|line| {
            let mut json = serde_json::Deserializer::from_str(line);
            json.disable_recursion_limit();
            serde::Deserialize::deserialize(&mut json).expect("JSON")
        })
        .collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The bytes of a line: as hex, or deflated.
pub(crate) fn bytes(line: &Value) -> Vec<u8> {
    if let Some(hex) = line["hex"].as_str().filter(|_| line["zlib_b64"].is_null()) {
        return unhex(hex);
    }
    let packed = line["zlib_b64"].as_str().expect("bytes in one of two forms");
    let packed = base64::engine::general_purpose::STANDARD.decode(packed).expect("base64");
    let mut bytes = Vec::new();
    flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut bytes).expect("zlib");
    bytes
}

/// The term of a tree. `None` where it has a fun, of which the tree does not say all.
pub(crate) fn term(tree: &Value) -> Option<Term> {
    let (kind, value) = tree.as_object()?.iter().next()?;
    let text = || value.as_str().map(str::to_owned);
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let node = || {
        let name = value["node"].as_str().unwrap().parse().unwrap();
        Node::new(name, number(&value["creation"]))
    };
    let all = |list: &Value| list.as_array()?.iter().map(term).collect::<Option<Vec<_>>>();
    Some(match kind.as_str() {
        "int" => meshx_etf::text::parse(&text()?).ok()?,
        "float" => f64::from_bits(u64::from_str_radix(&text()?, 16).unwrap()).into(),
        "atom" => Term::atom(&text()?),
        "bin" => Term::Binary(unhex(&text()?).into()),
        "bits" | "hex" => {
            let bytes = unhex(tree["hex"].as_str()?);
            let bits = tree["bits"].as_u64()? % 8;
            BitString::new(&bytes, u8::try_from(bits).unwrap())?.into()
        }
        "list" | "tail" => {
            let elements = all(&tree["list"])?;
            match tree.get("tail") {
                Some(tail) => Term::list_ending(elements, term(tail)?),
                None => Term::List(elements),
            }
        }
        "tuple" => Term::Tuple(all(value)?),
        "map" => {
            let pair = |pair: &Value| Some((term(&pair[0])?, term(&pair[1])?));
            let pairs = value.as_array()?.iter().map(pair).collect::<Option<Vec<_>>>()?;
            Map::from_pairs(pairs).unwrap().into()
        }
        "pid" => {
            Pid { node: node(), id: number(&value["id"]), serial: number(&value["serial"]) }.into()
        }
        "port" => Port { node: node(), id: value["id"].as_u64()? }.into(),
        "ref" => {
            let words: Vec<u32> = value["ids"].as_array()?.iter().map(number).collect();
            Reference::new(node(), &words)?.into()
        }
        "export" => Export {
            module: value[0].as_str()?.parse().unwrap(),
            function: value[1].as_str()?.parse().unwrap(),
            arity: number(&value[2]),
        }
        .into(),
        "fun" => return None,
        other => panic!("{other}: not a kind of term"),
    })
}

/// Whether it says the whole term, and not only that something is too deep or large to show.
pub(crate) fn has_tree(line: &Value) -> bool {
    line["ast"].is_object()
}

/// What a big integer is in this crate, for a test.
#[allow(dead_code, reason = "one of the helpers")]
pub(crate) fn big(text: &str) -> BigInt {
    match meshx_etf::text::parse(text) {
        Ok(Term::Big(big)) => big,
        other => panic!("{other:?}"),
    }
}

/// The text with the part that names a node in pids, ports and references replaced.
pub(crate) fn without_nodes(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        let name = match rest.chars().next() {
            Some('\'') => rest[1..].find('\'').map(|end| end + 2),
            Some(c) if c.is_alphanumeric() => {
                rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '@'))
            }
            _ => None,
        };
        let preceded = out.ends_with("#Fun<") || out.ends_with("<<");
        if let Some(end) = name
            && !preceded
            && rest[end..].starts_with('.')
        {
            out.push('N');
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}
