//! `meshx demo`: the main job in one command, for real.

mod erlang;
mod node;
pub(crate) mod peer;
mod stage;
mod tcp;

use std::time::Instant;

use crate::args::{Demo, DemoMode};
use crate::environment::variable;
use crate::failure::{Failure, exit};
use crate::output::Output;
use stage::Stage;

pub(crate) async fn run(arguments: Demo, output: Output) -> Result<u8, Failure> {
    let mode = match arguments.with {
        DemoMode::Auto if has_erlang() => DemoMode::Erlang,
        DemoMode::Auto => DemoMode::Node,
        mode => mode,
    };
    if arguments.with == DemoMode::Erlang && !has_erlang() {
        return Err(Failure::new(601, exit::CONFIGURATION, "there is no `erl` on the PATH")
            .hint("install Erlang, or use --with node"));
    }
    let begun = Instant::now();
    let mut stage = Stage::open(arguments.keep, output).await?;
    let told = match mode {
        DemoMode::Tcp => tcp::tell(&mut stage).await,
        DemoMode::Node => node::tell(&mut stage).await,
        DemoMode::Erlang | DemoMode::Auto => erlang::tell(&mut stage).await,
    };
    let told = match told {
        Ok(hints) if arguments.keep => {
            stage.keep_open(&hints).await;
            Ok(())
        }
        other => other.map(drop),
    };
    stage.close().await;
    told?;
    if !has_erlang() {
        output.story("\nWith Erlang on this machine, the same demo runs two stock nodes.");
    }
    output.story(&format!(
        "\nDone in {:.1} s; nothing is left behind.",
        begun.elapsed().as_secs_f32()
    ));
    Ok(exit::SUCCESS)
}

fn has_erlang() -> bool {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("erl").is_file())
}
