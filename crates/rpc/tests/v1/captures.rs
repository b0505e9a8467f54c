//! Bytes that were recorded from the Elixir package (`tests/data/meshxrpc-v1`).

use std::path::{Path, PathBuf};

/// What was seen on one connection, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A frame of the client, with its length in front.
    Client(Vec<u8>),
    /// A frame of the server, with its length in front.
    Server(Vec<u8>),
    /// The client closed its direction.
    ClientEnd,
    /// The server closed its direction.
    ServerEnd,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/meshxrpc-v1")
}

/// The names of all captures.
pub fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).expect("the folder of captures");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    let mut names: Vec<_> =
        names.filter_map(|name| name.strip_suffix(".hex").map(str::to_owned)).collect();
    names.sort();
    assert_eq!(names.len(), 16);
    names
}

/// The connections of a capture.
pub fn connections(name: &str) -> Vec<Vec<Seen>> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.hex"))).expect("a capture");
    let mut connections: Vec<Vec<Seen>> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let number = words.next().and_then(|word| word.strip_prefix('c')).expect("a connection");
        let number: usize = number.parse().expect("a number");
        let client = match words.next().expect("a direction") {
            "OPEN" => {
                assert_eq!(number, connections.len() + 1);
                connections.push(Vec::new());
                continue;
            }
            "C>S" => true,
            "S>C" => false,
            other => panic!("{other}"),
        };
        let seen = match (line.split_once("frame="), client) {
            (Some((_, hex)), true) => Seen::Client(bytes(hex)),
            (Some((_, hex)), false) => Seen::Server(bytes(hex)),
            (None, true) => Seen::ClientEnd,
            (None, false) => Seen::ServerEnd,
        };
        assert!(line.contains("frame=") || line.contains("FIN leftover="), "{line}");
        connections[number - 1].push(seen);
    }
    connections
}

/// Bytes of digits.
pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.trim().chars().map(|c| c.to_digit(16).expect("a digit")).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte")).collect()
}
