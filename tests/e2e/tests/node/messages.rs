//! Messages, names, links and monitors between a Rust node and a stock one.

use meshx_e2e::Release;
use meshx_node::Signal;
use meshx_node::etf::{Term, term};

use crate::{LIMIT, Stock};

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let mut echo = node.mailbox().unwrap();
    echo.register("echo").unwrap();

    // The VM dials.
    stock.vm.eval("register(me, self())");
    stock.vm.eval("{echo, 'rust@127.0.0.1'} ! {self(), [hello, <<\"x\">>, 1.5, #{a => 1}]}");
    let Some(Signal::Message(message)) = echo.receive_within(LIMIT).await else { panic!() };
    let body = message.body.term().unwrap();
    let Term::Tuple(pair) = &body else { panic!("{body}") };
    let Term::Pid(from) = &pair[0] else { panic!("{body}") };
    assert_eq!(message.from.as_ref(), Some(from));
    assert_eq!(pair[1].to_string(), "[hello,<<\"x\">>,1.5,#{a => 1}]");

    echo.send_term(from, &term!({back, 7})).await.unwrap();
    assert_eq!(stock.vm.eval("receive {back, N} -> N after 5000 -> timeout end"), "7");
    echo.send(("me", stock.name.as_str()), &("typed", 8)).await.unwrap();
    assert_eq!(stock.vm.eval("receive {<<\"typed\">>, M} -> M after 5000 -> timeout end"), "8");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monitors_fire_once_with_the_reason() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let mut mailbox = node.mailbox().unwrap();
    let unknown = mailbox.monitor(("nobody", stock.name.as_str())).await;
    let Some(Signal::Down(down)) = mailbox.receive_within(LIMIT).await else { panic!() };
    assert_eq!((down.reference, down.reason), (unknown, term!(noproc)));

    stock.vm.eval("P = spawn(fun() -> receive {stop, R} -> exit(R) end end)");
    stock.vm.eval("register(victim, P)");
    let reference = mailbox.monitor(("victim", stock.name.as_str())).await;
    // Ours, so that it comes behind the monitor.
    let stop = term!({stop, {some, reason}});
    mailbox.send_term(("victim", stock.name.as_str()), &stop).await.unwrap();
    let Some(Signal::Down(down)) = mailbox.receive_within(LIMIT).await else { panic!() };
    assert_eq!((down.reference, down.reason), (reference, term!({some, reason})));

    // And the VM watches us.
    mailbox.register("watched").unwrap();
    stock.vm.eval("Ref = monitor(process, {watched, 'rust@127.0.0.1'})");
    stock.vm.eval("Ref2 = monitor(process, {nobody, 'rust@127.0.0.1'})");
    let noproc = "receive {'DOWN', Ref2, process, W, Why} -> {W, Why} after 5000 -> timeout end";
    assert_eq!(stock.vm.eval(noproc), "{{nobody,'rust@127.0.0.1'},noproc}");
    mailbox.end(term!({over, 1}));
    let over = "receive {'DOWN', Ref, process, V, Whence} -> {V, Whence} after 5000 -> timeout end";
    assert_eq!(stock.vm.eval(over), "{{watched,'rust@127.0.0.1'},{over,1}}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_breaks_links_and_monitors() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let mut mailbox = node.mailbox().unwrap();
    mailbox.trap_exits(true);
    mailbox.register("here").unwrap();
    stock.vm.eval("{here, 'rust@127.0.0.1'} ! self()");
    let Some(Signal::Message(message)) = mailbox.receive_within(LIMIT).await else { panic!() };
    let Ok(Term::Pid(pid)) = message.body.term() else { panic!() };
    mailbox.link(&pid).await;
    let reference = mailbox.monitor(&pid).await;
    drop(stock);
    let (mut exits, mut downs) = (0, 0);
    while exits + downs < 2 {
        match mailbox.receive_within(LIMIT).await.unwrap() {
            Signal::Exit { from, reason } => {
                assert_eq!((from, reason), (pid.clone(), term!(noconnection)));
                exits += 1;
            }
            Signal::Down(down) => {
                assert_eq!((&down.reference, down.reason), (&reference, term!(noconnection)));
                downs += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((exits, downs), (1, 1));
    assert!(node.peers().is_empty());
}
