//! `meshx demo`: the main job in one command, for real.

mod e3;
mod e3_math;
mod e4;
mod e4_load;
mod e4_squares;
mod erlang;
mod member;
mod node;
pub(crate) mod peer;
mod stage;
mod tcp;

use std::time::Instant;

use crate::args::{Demo, DemoMode, DemoStory};
use crate::environment::variable;
use crate::failure::{Failure, exit};
use crate::output::Output;
use stage::{Stage, Teller};

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
    let teller = Teller { output, is_aside: output.json && arguments.story.is_some() };
    let mut stage = Stage::open(arguments.keep, teller).await?;
    let told = match (arguments.story, mode) {
        (Some(DemoStory::E3), _) => Box::pin(e3::tell(&mut stage)).await,
        (Some(DemoStory::E4), _) => Box::pin(e4::tell(&mut stage)).await,
        (None, DemoMode::Tcp) => tcp::tell(&mut stage).await,
        (None, DemoMode::Node) => node::tell(&mut stage).await,
        (None, DemoMode::Erlang | DemoMode::Auto) => erlang::tell(&mut stage).await,
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
    if arguments.story.is_none() && !has_erlang() {
        teller.story("\nWith Erlang on this machine, the same demo runs two stock nodes.");
    }
    teller.story(&format!(
        "\nDone in {:.1} s; nothing is left behind.",
        begun.elapsed().as_secs_f32()
    ));
    Ok(exit::SUCCESS)
}

fn has_erlang() -> bool {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("erl").is_file())
}
