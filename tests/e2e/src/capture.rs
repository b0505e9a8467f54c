//! What goes over the loopback interface, by tcpdump.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Process;

/// A running capture of some TCP ports.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures whole packets from or to any of `ports` on `interface` into a file in `folder`.
    pub fn start(folder: &Path, interface: &str, ports: &[u16]) -> Self {
        let file = folder.join("capture.pcap");
        let filter: Vec<String> = ports.iter().map(|port| format!("tcp port {port}")).collect();
        let tcpdump = Process::start(
            "tcpdump",
            Command::new("tcpdump")
                .args([
                    "--immediate-mode",
                    "-U",
                    "-n",
                    "-s",
                    "0",
                    "-Z",
                    "root",
                    "-i",
                    interface,
                    "-w",
                ])
                .arg(&file)
                .arg(filter.join(" or ")),
        );
        tcpdump.await_stderr("listening on", Duration::from_secs(10));
        Self { tcpdump, file }
    }

    /// Stops and returns the payload bytes in both directions, per packet.
    pub fn stop(mut self) -> Vec<Packet> {
        // The kernel hands packets over at once; give the last ones the time to be written.
        std::thread::sleep(Duration::from_millis(200));
        self.tcpdump.end();
        read_pcap(&std::fs::read(&self.file).unwrap())
    }
}

/// One TCP segment with a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// The bytes above TCP.
    pub payload: Vec<u8>,
}

/// The bytes that went from one port to another, in the order of the capture.
///
/// Loopback neither loses nor reorders; a segment that was sent twice appears twice.
pub fn stream(packets: &[Packet], source: u16, destination: u16) -> Vec<u8> {
    packets
        .iter()
        .filter(|packet| packet.source == source && packet.destination == destination)
        .flat_map(|packet| packet.payload.iter().copied())
        .collect()
}

/// Reads a file of libpcap's classic form with Ethernet or raw IPv4 frames.
fn read_pcap(file: &[u8]) -> Vec<Packet> {
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let header = match word(20) {
        1 => 14,
        101 | 12 => 0,
        link => panic!("link type {link}"),
    };
    let mut packets = Vec::new();
    let mut at = 24;
    while at + 16 <= file.len() {
        let captured = word(at + 8);
        let frame = &file[at + 16..at + 16 + captured];
        packets.extend(read_ip(&frame[header..]));
        at += 16 + captured;
    }
    packets
}

fn read_ip(ip: &[u8]) -> Option<Packet> {
    let short = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (tcp, total) = match ip.first()? >> 4 {
        4 => (usize::from(ip[0] & 15) * 4, usize::from(short(ip, 2))),
        6 => (40, 40 + usize::from(short(ip, 4))),
        _ => return None,
    };
    let segment = &ip[tcp..total.min(ip.len())];
    let payload = &segment[usize::from(segment[12] >> 4) * 4..];
    (!payload.is_empty()).then(|| Packet {
        source: short(segment, 0),
        destination: short(segment, 2),
        payload: payload.to_vec(),
    })
}
