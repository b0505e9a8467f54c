//! `meshx version`, `meshx completions`.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::args::{Arguments, Completions, version as version_text};
use crate::failure::exit;
use crate::output::Output;

pub(crate) fn version(output: Output) -> u8 {
    let value = serde_json::json!({
        "schema": "meshx.version/1",
        "name": "meshx",
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("MESHX_COMMIT"),
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "consul_api": "1.8",
    });
    output.data(&value, |_| format!("meshx {}", version_text()));
    exit::SUCCESS
}

pub(crate) fn completions(arguments: &Completions) -> u8 {
    let mut command = Arguments::command();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "meshx", &mut script);
    // A reader that has enough is no failure.
    drop(std::io::stdout().lock().write_all(&script));
    exit::SUCCESS
}
