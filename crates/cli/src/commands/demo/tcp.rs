//! The story with two small TCP programs, for machines without Erlang.

use std::time::Instant;

use meshx_core::Action;

use super::stage::Stage;
use crate::failure::Failure;

pub(super) async fn tell(stage: &mut Stage) -> Result<Vec<String>, Failure> {
    let server = ["exec", "--name", "alice", "--port", "auto", "--", "/proc/self/exe", "demo-peer"];
    let asks = ["exec", "--name", "bob", "--upstream", "alice", "--wait-for", "alice"];
    let client = [&asks[..], &["--", "/proc/self/exe", "demo-peer"]].concat();

    stage.step("two TCP programs join the mesh; they know only loopback addresses");
    stage.start("alice", &server, "meshx exec --name alice --port auto -- ./server").await?;
    let bob =
        stage.start("bob", &client, "meshx exec --name bob --upstream alice -- ./client").await?;

    stage.step("they talk");
    stage.ask(bob, "connect to $MESHX_UPSTREAM_ALICE", "connect", "connected").await?;
    stage.ask(bob, "say hello", "say hello", "alice heard: hello").await?;

    stage.step("what is on the wire: mutual TLS between two sidecars, each proving its service");
    stage.wire().await?;

    stage.step("deny: the live connection is cut");
    stage.show("meshx intentions deny bob alice");
    let begun = Instant::now();
    stage.put("bob", "alice", Action::Deny).await?;
    stage.ask_until(bob, "state", "closed").await?;
    stage.tell(&format!("bob saw the end {} ms after the command", begun.elapsed().as_millis()));
    stage.ask(bob, "connect to $MESHX_UPSTREAM_ALICE", "connect", "refused").await?;

    stage.step("allow: they can connect again");
    stage.show("meshx intentions allow bob alice");
    stage.put("bob", "alice", Action::Allow).await?;
    let healed = stage.ask_until(bob, "connect", "connected").await?;
    stage.tell(&format!("connected again {} ms later", healed.as_millis()));
    stage.ask(bob, "say hello again", "say hello again", "alice heard: hello again").await?;
    Ok(vec![
        "   meshx status".to_owned(),
        "   meshx intentions deny bob alice".to_owned(),
        "   meshx why bob alice".to_owned(),
    ])
}
