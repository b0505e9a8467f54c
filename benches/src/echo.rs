//! A server that sends back what it gets, and a client that counts the time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Listens on a free port of loopback until the process ends.
///
/// The first byte of a connection chooses: `e` sends everything back, `s` swallows all and answers
/// with one byte at the end.
pub(crate) fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 128 * 1024];
    let mut mode = [0];
    if stream.read_exact(&mut mode).is_err() {
        return;
    }
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) if mode[0] == b'e' => {
                if stream.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
            // The last byte of the load is the only one that is not zero.
            Ok(read) if buffer[read - 1] == b'.' => {
                let _ignored = stream.write_all(b".");
            }
            Ok(_) => {}
        }
    }
}

/// A connection in the mode that sends everything back, once a byte came back.
pub(crate) fn connect(address: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(b"e!").ok()?;
    stream.read_exact(&mut [0]).ok()?;
    Some(stream)
}

/// The time for 64 bytes to go and come back.
pub(crate) fn round_trip(stream: &mut TcpStream) -> Duration {
    let mut message = [7; 64];
    let start = Instant::now();
    stream.write_all(&message).unwrap();
    stream.read_exact(&mut message).unwrap();
    start.elapsed()
}

/// The time to send so many bytes in one direction, until the server has them.
pub(crate) fn send(address: &str, bytes: usize) -> Duration {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"s").unwrap();
    let block = vec![0; 128 * 1024];
    let start = Instant::now();
    for _ in 0..bytes / block.len() {
        stream.write_all(&block).unwrap();
    }
    stream.write_all(b".").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    start.elapsed()
}
