//! `meshx rpc call` and `meshx rpc cast`.

use std::io::{IsTerminal as _, Write as _};

use meshx_rpc::Body;
use serde::Serialize;
use serde_json::value::RawValue;

use super::asking::Asking;
use super::json;
use crate::args::rpc::{Call, Cast};
use crate::failure::{Failure, exit};
use crate::output::Output;

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    address: String,
    function: &'a str,
    codec: &'static str,
    result: &'a RawValue,
}

pub(super) async fn call(arguments: &Call, output: Output) -> Result<u8, Failure> {
    if arguments.raw && !output.json && std::io::stdout().is_terminal() {
        return Err(Failure::new(642, exit::USAGE, "raw bytes harm a terminal")
            .hint("send them to a file: meshx rpc call ADDRESS FUNCTION --raw > FILE"));
    }
    let argument = json::argument(arguments.what.argument.as_deref())?;
    let asking = Asking::start(&arguments.address, &arguments.reach, output).await?;
    let function = &*arguments.what.function;
    let called = asking.finish(async |client| {
        let mut call = client.function(function);
        if arguments.idempotent {
            call = call.idempotent();
        }
        for (key, value) in &arguments.metadata {
            call = call.metadata(key, value);
        }
        call.call_raw(json::body(&argument)).await
    });
    let result = called.await?;
    if arguments.raw && !output.json {
        write(&result);
        return Ok(exit::SUCCESS);
    }
    let text = json::text(&result);
    let answer = Answer {
        schema: "meshx.rpc.call/1",
        address: arguments.address.to_string(),
        function,
        codec: result.codec.name(),
        result: &text,
    };
    output.data(&answer, |answer| answer.result.get().to_owned());
    Ok(exit::SUCCESS)
}

pub(super) async fn cast(arguments: &Cast, output: Output) -> Result<u8, Failure> {
    let argument = json::argument(arguments.what.argument.as_deref())?;
    let asking = Asking::start(&arguments.address, &arguments.reach, output).await?;
    let function = &*arguments.what.function;
    let accepted = asking.finish(async |client| {
        let mut cast = client.function(function);
        for (key, value) in &arguments.metadata {
            cast = cast.metadata(key, value);
        }
        cast.cast(&*argument).await
    });
    accepted.await?;
    let address = arguments.address.to_string();
    if output.json {
        let document = serde_json::json!({
            "schema": "meshx.rpc.cast/1",
            "address": address,
            "function": function,
            "accepted": true,
        });
        output.data(&document, |_| String::new());
    } else {
        output.say(&format!("{address} has accepted {function}"));
    }
    Ok(exit::SUCCESS)
}

/// The bytes themselves. A reader that went away is no failure.
fn write(result: &Body) {
    let mut stdout = std::io::stdout().lock();
    drop(stdout.write_all(&result.bytes).and_then(|()| stdout.flush()));
}
