//! The example `pubsub`, beside Elixir processes that do what those of `Phoenix.PubSub` do.

use meshx_e2e::{Epmd, Need, PlainVm, Release, skips};

use crate::examples::Example;
use crate::{COOKIE, LIMIT, Stock};

/// A VM with Elixir in it.
fn elixir(name: &str, epmd: &Epmd) -> PlainVm {
    let program = "IO.puts(:code.lib_dir(:elixir)); IO.puts(:code.lib_dir(:logger))";
    let output = std::process::Command::new("elixir").args(["-e", program]).output().unwrap();
    let folders = String::from_utf8(output.stdout).unwrap();
    let folders: Vec<String> = folders.lines().map(|line| format!("{line}/ebin")).collect();
    let mut arguments = vec!["-pa"];
    arguments.extend(folders.iter().map(String::as_str));
    let builder = PlainVm::builder(Release::Machine, name, COOKIE, epmd.port());
    let mut vm = builder.args(&arguments).start();
    vm.eval("{ok, _} = application:ensure_all_started(elixir)");
    let script = vm.home().join("pubsub.exs");
    std::fs::write(&script, include_str!("pubsub.exs")).unwrap();
    vm.eval(&format!("'Elixir.Code':require_file(<<\"{}\">>)", script.display()));
    vm
}

#[test]
fn a_subscriber_of_phoenix_pubsub() {
    if skips(&[Need::Erlang, Need::Elixir]) {
        return;
    }
    let epmd = Epmd::start(Release::Machine);
    let name = "shop@127.0.0.1".to_owned();
    let mut stock = Stock { vm: elixir(&name, &epmd), epmd, name };
    // Two processes to a node: each publisher uses one of them.
    stock.vm.eval("'Elixir.LikePhoenix':start('Elixir.Shop.PubSub', 2)");
    stock.vm.eval("'Elixir.LikePhoenix':subscribe('Elixir.Shop.PubSub', <<\"orders\">>)");
    stock.vm.eval(
        "Say = fun(T, M) -> 'Elixir.LikePhoenix':broadcast('Elixir.Shop.PubSub', 2, T, M) end",
    );
    let example = Example::start(&stock, "pubsub", &[&stock.name, "Shop.PubSub", "orders"]);
    assert_eq!(example.line(), "rust@127.0.0.1 listens to orders");
    assert_eq!(
        stock.vm.eval("receive {hello, Who} -> Who after 5000 -> timeout end"),
        "<<\"rust@127.0.0.1\">>"
    );

    let members = |group: &str| {
        format!(
            "[node(P) || P <- pg:get_members('Elixir.Phoenix.PubSub', '{group}'), node(P) =/= node()]"
        )
    };
    for group in ["Elixir.Shop.PubSub.Adapter", "Elixir.Shop.PubSub.Adapter_2"] {
        stock.vm.await_eval(&members(group), "['rust@127.0.0.1']", LIMIT);
    }
    stock.vm.eval("Say(<<\"prices\">>, {not_ours, 1})");
    stock.vm.eval("Say(<<\"orders\">>, {paid, #{id => 7}})");
    assert_eq!(example.line(), "orders: {paid,#{id => 7}}");
    // Publishers enough that both groups are used; each message arrives once.
    stock.vm.eval("[spawn(fun() -> Say(<<\"orders\">>, {n, N}) end) || N <- lists:seq(1, 20)]");
    let mut lines: Vec<String> = (0..20).map(|_| example.line()).collect();
    let mut expected: Vec<String> = (1..=20).map(|n| format!("orders: {{n,{n}}}")).collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
    stock.vm.eval(
        "'Elixir.LikePhoenix':direct_broadcast('rust@127.0.0.1', 'Elixir.Shop.PubSub', \
         <<\"orders\">>, directly)",
    );
    assert_eq!(example.line(), "orders: directly");
    example.end();
    stock.vm.await_eval(&members("Elixir.Shop.PubSub.Adapter"), "[]", LIMIT);
}
