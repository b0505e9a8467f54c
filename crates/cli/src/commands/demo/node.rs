//! The story with two Erlang nodes in Rust: complete without Erlang.

use std::time::{Duration, Instant};

use meshx_node::etf::Term;
use meshx_node::{CallError, Node};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::peer::say;
use super::stage::Stage;
use crate::commands::node;
use crate::failure::{Failure, exit};
use crate::output::Output;

/// The longest that one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn tell(stage: &mut Stage) -> Result<Vec<String>, Failure> {
    let own_cookie = node::has_cookie();
    if !own_cookie {
        // Stock nodes make one when they first start; here none ever did.
        stage.environment.push(("RELEASE_COOKIE".to_owned(), meshx_rt::random::hex(24)));
    }
    let words = |name| ["demo-peer", "--node", name];
    let shown = |n| format!("meshx node --name node{n}@demo --mesh");

    stage.step("two Erlang nodes join the mesh; they are written in Rust, nothing is installed");
    let begun = Instant::now();
    stage.start("node1@demo", &words("node1@demo"), &shown(1)).await?;
    let node2 = stage.start("node2@demo", &words("node2@demo"), &shown(2)).await?;
    stage.tell(&format!("both are registered after {} ms", begun.elapsed().as_millis()));

    stage.step("they connect and call each other, in the protocol of Erlang's distribution");
    let connect = ("net_kernel:connect_node('node1@demo')", "connect node1@demo");
    let call = ("GenServer.call({:counter, :node1@demo}, :next)", "next node1@demo");
    stage.ask(node2, connect.0, connect.1, "true").await?;
    stage.ask(node2, call.0, call.1, "1").await?;
    let erpc = "erpc:call('node1@demo', erlang, node, [])";
    stage.ask(node2, erpc, "node node1@demo", "node1@demo").await?;
    stage.ask(node2, "nodes()", "nodes", "[node1@demo]").await?;

    stage.deny_and_allow(node2, connect, "nodes").await?;
    stage.ask(node2, call.0, call.1, "2").await?;
    let mut hints = vec![
        "   meshx status".to_owned(),
        "   meshx intentions deny node2@demo node1@demo     # and allow".to_owned(),
        "   meshx why node2@demo node1@demo".to_owned(),
    ];
    if own_cookie {
        hints.push("   meshx ping node1@demo --mesh".to_owned());
        hints.push("   meshx call node1@demo --mesh 'erlang:nodes()'".to_owned());
    }
    Ok(hints)
}

/// One of the two: a node that does what is written to it, line by line.
pub(super) async fn play(name: &str) -> Result<u8, Failure> {
    let output = Output::new(false, false);
    let node = node::in_mesh(name, output).await?;
    say("ready");
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(command)) = commands.next_line().await {
        say(&obey(&node, &command).await);
    }
    node.stop().await;
    Ok(exit::SUCCESS)
}

async fn obey(node: &Node, command: &str) -> String {
    match command.split_once(' ').unwrap_or((command, "")) {
        // Why not is told by the mesh.
        ("connect", peer) => node.connect(peer).await.is_ok().to_string(),
        ("next", peer) => {
            let next: Result<i64, CallError> =
                node.call(("counter", peer), &meshx_node::etf::Atom::cut("next"), LIMIT).await;
            next.map_or_else(|error| error.to_string(), |number| number.to_string())
        }
        ("node", peer) => {
            let name = node.rpc_term(peer, "erlang", "node", Vec::new(), LIMIT).await;
            let text = |name: Term| {
                name.as_atom().map_or_else(|| name.to_string(), |it| it.as_str().to_owned())
            };
            name.map_or_else(|error| error.to_string(), text)
        }
        _ => {
            let names: Vec<_> = node.nodes().iter().map(|it| it.as_str().to_owned()).collect();
            format!("[{}]", names.join(","))
        }
    }
}
