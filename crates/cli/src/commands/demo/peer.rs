//! The demo's own programs: a server that answers lines, and a client that is told what to do. They
//! are plain TCP programs and know nothing of the mesh but the variables `PORT` and
//! `MESHX_UPSTREAM_ALICE`.

use std::net::SocketAddr;
use std::time::Duration;

use meshx_rt::net;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::args::{DemoPeer, DemoStory};
use crate::environment::variable;
use crate::failure::{Failure, exit};

/// Longest line that is read or sent.
const MAX_LINE: usize = 1024;

pub(crate) async fn run(arguments: &DemoPeer) -> Result<u8, Failure> {
    if let Some(name) = &arguments.node {
        return super::node::play(name).await;
    }
    match arguments.rpc {
        Some(DemoStory::E3) => return super::e3_math::play().await,
        Some(DemoStory::E4) => return super::e4_squares::play(arguments.id.clone()).await,
        None => {}
    }
    let port = arguments.port.or_else(|| variable("PORT")?.parse().ok());
    if let Some(port) = port {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = net::listen(address).map_err(|e| Failure::internal("listen", &e))?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    }
    let upstream = variable("MESHX_UPSTREAM_ALICE").and_then(|text| text.parse().ok());
    say("ready");
    let mut connection = None;
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(command)) = commands.next_line().await {
        obey(&command, upstream, &mut connection).await;
    }
    Ok(exit::SUCCESS)
}

async fn obey(
    command: &str,
    upstream: Option<SocketAddr>,
    connection: &mut Option<BufReader<TcpStream>>,
) {
    match (command.split_once(' ').unwrap_or((command, "")), connection.as_mut()) {
        (("connect", _), _) => {
            *connection = None;
            let Some(upstream) = upstream else { return say("no upstream") };
            let Ok(stream) = net::dial(upstream, Duration::from_secs(2)).await else {
                return say("refused");
            };
            // The sidecar accepts before it has asked; a first exchange tells.
            let mut stream = BufReader::new(stream);
            if exchange(&mut stream, "are you there").await.is_some() {
                *connection = Some(stream);
                say("connected");
            } else {
                say("refused");
            }
        }
        (("say", words), Some(stream)) => match exchange(stream, words).await {
            Some(answer) => say(&answer),
            None => say("closed"),
        },
        (("state", _), Some(stream)) => {
            let mut byte = [0];
            let peeked =
                tokio::time::timeout(Duration::from_millis(2), stream.get_ref().peek(&mut byte));
            match peeked.await {
                Err(_quiet) => say("open"),
                Ok(Ok(1..)) => say("open"),
                Ok(_) => say("closed"),
            }
        }
        _ => say("closed"),
    }
}

async fn exchange(stream: &mut BufReader<TcpStream>, words: &str) -> Option<String> {
    let line: String = words.chars().take(MAX_LINE).chain(['\n']).collect();
    stream.get_mut().write_all(line.as_bytes()).await.ok()?;
    let mut answer = String::new();
    match stream.read_line(&mut answer).await {
        Ok(count) if count > 0 => Some(answer.trim_end().to_owned()),
        _ => None,
    }
}

async fn answer(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while let Ok(1..=MAX_LINE) = stream.read_line(&mut line).await {
        let answer = format!("alice heard: {}\n", line.trim_end());
        if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        line.clear();
    }
}

#[expect(clippy::print_stdout, reason = "this is the program's answer")]
pub(super) fn say(text: &str) {
    println!("=> {text}");
}
