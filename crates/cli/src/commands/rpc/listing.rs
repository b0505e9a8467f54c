//! `meshx rpc list` and `meshx rpc describe`.

use meshx_rpc::listing::{DESCRIBE, LIST, Listed};
use serde::Serialize;

use super::asking::Asking;
use crate::args::rpc::{Describe, List};
use crate::failure::{Failure, exit};
use crate::output::{Output, table};

#[derive(Serialize)]
struct Offer {
    schema: &'static str,
    address: String,
    functions: Vec<Listed>,
}

#[derive(Serialize)]
struct Described {
    schema: &'static str,
    address: String,
    #[serde(flatten)]
    function: Listed,
}

pub(super) async fn list(arguments: &List, output: Output) -> Result<u8, Failure> {
    let asking = Asking::start(&arguments.address, &arguments.reach, output).await?;
    let asked = asking.finish(async |client| client.call(LIST, &()).await).await;
    let address = arguments.address.to_string();
    let functions: Vec<Listed> = asked.map_err(|failure| untold(failure, &address))?;
    let offer = Offer { schema: "meshx.rpc.functions/1", address, functions };
    output.data(&offer, |offer| {
        let heading = ["FUNCTION", "ABOUT"].map(str::to_owned).to_vec();
        let row = |it: &Listed| vec![line(&it.name), line(&it.about)];
        let rows: Vec<_> =
            std::iter::once(heading).chain(offer.functions.iter().map(row)).collect();
        table(&rows)
    });
    Ok(exit::SUCCESS)
}

pub(super) async fn describe(arguments: &Describe, output: Output) -> Result<u8, Failure> {
    let asking = Asking::start(&arguments.address, &arguments.reach, output).await?;
    let asked =
        asking.finish(async |client| client.call(DESCRIBE, &arguments.function).await).await;
    let address = arguments.address.to_string();
    let function: Listed = asked.map_err(|failure| match is_untold(&failure) {
        true => untold(failure, &address),
        false => unknown(failure, &arguments.function, &address),
    })?;
    let described = Described { schema: "meshx.rpc.function/1", address, function };
    output.data(&described, |Described { function, .. }| match &*function.about {
        "" => format!("{}: nothing is said of it", function.name),
        about => format!("{}: {about}", function.name),
    });
    Ok(exit::SUCCESS)
}

/// Whether it is the listing itself that is not there: then nothing ran.
fn is_untold(failure: &Failure) -> bool {
    let never = |rpc: &serde_json::Value| rpc["executed"] == "never";
    failure.exit != exit::NOT_FOUND || failure.rpc.as_ref().is_some_and(never)
}

/// The server does not tell what it offers.
fn untold(failure: Failure, address: &str) -> Failure {
    match failure.exit {
        exit::NOT_FOUND => {
            let message = format!("{address} does not tell what it offers");
            Failure { message, ..failure }
                .hint("a server tells if it was started so: --listing, or `Server::listing(true)`")
        }
        exit::DENIED if failure.hint.as_deref().is_some_and(|hint| hint.contains("policy")) => {
            failure.hint("the server's policy has to allow `meshx.list` and `meshx.describe`, too")
        }
        _ => failure,
    }
}

/// The server tells, but not of this function.
fn unknown(failure: Failure, function: &str, address: &str) -> Failure {
    let message = format!("{address} offers us no function {function}");
    Failure { message, ..failure }
        .hint(format!("`meshx rpc list {address}` shows what may be called"))
}

/// What a server said, on one line of ours.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
