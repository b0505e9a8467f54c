//! The story with two stock Erlang VMs.

use std::time::Instant;

use super::stage::Stage;
use crate::failure::Failure;

/// Reads expressions from the input, line by line, and prints their values after `=> `.
const DRIVER: &str = "spawn(fun() -> io:format(\"=> ready~n\"), L = fun(L) -> \
    case io:get_line(\"\") of Line when is_list(Line) -> \
      R = try {ok,T,_} = erl_scan:string(Line), {ok,E} = erl_parse:parse_exprs(T), \
        {value,V,_} = erl_eval:exprs(E,[]), V catch C:X -> {C,X} end, \
      io:format(\"=> ~0p~n\",[R]), L(L); \
    _ -> halt(0) end end, L(L) end).";

pub(super) async fn tell(stage: &mut Stage) -> Result<Vec<String>, Failure> {
    let vm = |name| ["exec", "--name", name, "--", "erl", "-noshell", "-eval", DRIVER];

    stage.step("two stock Erlang VMs join the mesh: no dependency, no EPMD, loopback only");
    let begun = Instant::now();
    let shown = |n| format!("meshx exec --name node{n}@demo -- erl");
    stage.start("node1@demo", &vm("node1@demo"), &shown(1)).await?;
    let node2 = stage.start("node2@demo", &vm("node2@demo"), &shown(2)).await?;
    stage.tell(&format!("both VMs booted and registered in {} ms", begun.elapsed().as_millis()));

    stage.step("they connect and call each other, as on a plain cluster");
    let connect = "net_kernel:connect_node('node1@demo').";
    let call = "erpc:call('node1@demo', erlang, node, []).";
    stage.ask(node2, connect, connect, "true").await?;
    stage.ask(node2, call, call, "node1@demo").await?;
    stage.ask(node2, "nodes().", "nodes().", "[node1@demo]").await?;

    stage.deny_and_allow(node2, (connect, connect), "nodes().").await?;
    stage.ask(node2, call, call, "node1@demo").await?;
    Ok(vec![
        "   meshx status".to_owned(),
        "   meshx intentions deny node2@demo node1@demo     # and allow".to_owned(),
        "   meshx why node2@demo node1@demo".to_owned(),
        "   meshx exec --name me@demo -- iex                # then: Node.connect(:node1@demo)"
            .to_owned(),
    ])
}
