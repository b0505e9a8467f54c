//! EPMD's requests as bytes, for clients that no library would be.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(super) fn framed(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// All that is answered before the daemon closes. Nothing if it closed with bytes unread.
pub(super) fn ask(port: u16, body: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    stream.write_all(&framed(body)).unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    answer
}

/// A registration's request without its frame.
pub(super) fn alive(name: &str, port: u16) -> Vec<u8> {
    let mut body = b"x".to_vec();
    body.extend(port.to_be_bytes());
    body.extend(b"M\0\0\x06\0\x05");
    body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
    body.extend(name.as_bytes());
    body.extend(b"\0\0");
    body
}

/// A lease and its creation.
pub(super) fn register(daemon: u16, name: &str, port: u16) -> (TcpStream, u32) {
    let mut stream = connect(daemon);
    stream.write_all(&framed(&alive(name, port))).unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..2], [118, 0], "{name} is registered");
    (stream, u32::from_be_bytes(answer[2..].try_into().unwrap()))
}

/// The port of a name.
pub(super) fn lookup(daemon: u16, name: &str) -> Option<u16> {
    let answer = ask(daemon, format!("z{name}").as_bytes());
    match answer[..] {
        [119, 0, high, low, ..] => Some(u16::from_be_bytes([high, low])),
        [119, 1] => None,
        _ => panic!("not an answer: {answer:?}"),
    }
}
