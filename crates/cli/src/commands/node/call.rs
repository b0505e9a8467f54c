//! `meshx call`.

use meshx_node::RpcError;
use meshx_node::etf::text::{self, Print};
use meshx_node::etf::{Atom, Term};

use super::Asking;
use crate::args::Call;
use crate::commands::etf::json;
use crate::failure::{Failure, exit};
use crate::output::Output;

/// What is to be called.
#[derive(Debug, PartialEq)]
struct Wanted {
    module: Atom,
    function: Atom,
    arguments: Vec<Term>,
}

pub(crate) async fn run(arguments: Call, output: Output) -> Result<u8, Failure> {
    let wanted = parse(&arguments.what).map_err(|what| {
        Failure::new(643, exit::USAGE, format!("this is no call: {what}"))
            .hint("write it as in Erlang: lists:sum([1, 2]), or 'Elixir.System':version()")
    })?;
    let target = arguments.node;
    let asking = Asking::start(&arguments.ask, &target, output).await?;
    let (node, limit) = (asking.node.clone(), asking.limit);
    let Wanted { module, function, arguments: terms } = wanted;
    let asked = async {
        let called = node.rpc_term(target.as_str(), &module, &function, terms, limit).await;
        called.map_err(|error| failure(target.as_str(), error))
    };
    let value = asking.finish(asked).await?;
    let document = || {
        serde_json::json!({
            "schema": "meshx.call/1", "node": target.as_str(), "result": json::value(&value),
        })
    };
    if output.json {
        output.data(&document(), |_| String::new());
    } else {
        let print = Print::new(&value);
        let print = if arguments.unicode { print.unicode() } else { print };
        output.data(&(), |()| print.to_string());
    }
    Ok(exit::SUCCESS)
}

/// A call that gave no value: what the function raised has an exit status of its own.
fn failure(node: &str, error: RpcError) -> Failure {
    let (class, reason, stack) = match &error {
        RpcError::Throw(value) => ("throw", value, None),
        RpcError::Exit(reason) | RpcError::Signal(reason) => ("exit", reason, None),
        RpcError::Error { reason, stack } => ("error", reason, Some(stack)),
        _ => return Failure::from(error),
    };
    let document = serde_json::json!({
        "class": class,
        "reason": json::value(reason),
        "stack": stack.map(json::value),
    });
    let mut message = format!("{node} raised {class}: {}", Print::new(reason));
    for frame in stack.and_then(Term::as_list).unwrap_or_default() {
        message.push_str(&format!("\n  at {}", Print::new(frame)));
    }
    let known = Failure::of(&error);
    Failure { message, exit: exit::REMOTE, raised: Some(document), ..known }
}

/// Reads `Mod:fun(Args)`.
fn parse(text: &str) -> Result<Wanted, String> {
    let text = text.trim().trim_end_matches('.').trim_end();
    let (module, rest) = atom(text, ':')?;
    let (function, rest) = atom(rest, '(')?;
    let inner = rest.strip_suffix(')').ok_or("it does not end with `)`")?;
    match text::parse(&format!("[{inner}]")) {
        Ok(Term::List(arguments)) if arguments.len() <= 255 => {
            Ok(Wanted { module, function, arguments })
        }
        Ok(Term::List(_)) => Err("a function has at most 255 arguments".to_owned()),
        Ok(_) => Err("the arguments are no list".to_owned()),
        Err(error) => Err(format!("its arguments: {error}")),
    }
}

/// An atom and what follows the mark behind it.
fn atom(text: &str, mark: char) -> Result<(Atom, &str), String> {
    let text = text.trim_start();
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '\'' => quoted = !quoted,
            _ if c == mark && !quoted => {
                let (name, rest) = text.split_at(at);
                let Ok(Term::Atom(name)) = text::parse(name) else {
                    return Err(format!("`{}` is no atom", name.trim()));
                };
                return Ok((name, &rest[mark.len_utf8()..]));
            }
            _ => {}
        }
    }
    Err(format!("there is no `{mark}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_erlang_writes_them() {
        for (call, module, function, arguments) in [
            ("erlang:node()", "erlang", "node", "[]"),
            (" lists : sum ( [1, 2] ) .", "lists", "sum", "[[1,2]]"),
            ("'Elixir.System':version()", "Elixir.System", "version", "[]"),
            ("'a:b\\'(':'f('(x)", "a:b'(", "f(", "[x]"),
            (
                "m:f(\"a)b\", #{k => {1, <<2>>}}, fun m:f/1)",
                "m",
                "f",
                "[\"a)b\",#{k => {1,<<2>>}},fun m:f/1]",
            ),
        ] {
            let wanted = parse(call).unwrap_or_else(|error| panic!("{call}: {error}"));
            assert_eq!((wanted.module.as_str(), wanted.function.as_str()), (module, function));
            assert_eq!(Term::List(wanted.arguments).to_string(), arguments, "{call}");
        }
    }

    #[test]
    fn what_is_no_call_is_refused_with_a_reason() {
        for (call, words) in [
            ("", "no `:`"),
            ("erlang", "no `:`"),
            ("erlang:node", "no `(`"),
            ("erlang:node(", "`)`"),
            ("Erlang:node()", "no atom"),
            ("1:f()", "no atom"),
            ("m:f(1], [2)", "arguments"),
            ("m:f(1|2)", "no list"),
            ("m:f(X)", "arguments"),
        ] {
            let error = parse(call).unwrap_err();
            assert!(error.contains(words), "{call}: {error}");
        }
    }
}
