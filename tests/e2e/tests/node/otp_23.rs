//! What is different with VMs of OTP 23; what is not is tested beside the other releases.

use meshx_e2e::{PlainVm, Release, skips};
use meshx_node::etf::{Term, term};
use meshx_node::{Flags, SendError, Signal};

use crate::{COOKIE, LIMIT, Stock};

/// OTP 23 and OTP 27 refuse each other. What passes through a node between them must be something that
/// the other can read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rust_node_between_otp_23_and_otp_27() {
    if skips(&[Release::Otp23.needs(), Release::Otp27.needs()].concat()) {
        return;
    }
    let mut old = Stock::start(Release::Otp23, "old");
    let mut new = PlainVm::start(Release::Otp27, "new@127.0.0.1", COOKIE, old.epmd.port());
    assert_eq!(old.vm.connect("new@127.0.0.1"), "false");
    let node = old.beside("rust").start().await.unwrap();
    let mut relay = node.mailbox().unwrap();
    relay.register("relay").unwrap();
    old.vm.eval("register(shell, self())");
    let shell = ("shell", old.name.as_str());

    new.eval("{relay, 'rust@127.0.0.1'} ! self()");
    new.eval("{relay, 'rust@127.0.0.1'} ! alias([explicit_unalias])");
    let mut identifiers = Vec::new();
    for _ in 0..2 {
        let Some(Signal::Message(message)) = relay.receive_within(LIMIT).await else { panic!() };
        identifiers.push(message.body.term().unwrap());
    }
    let [Term::Pid(pid), Term::Reference(alias)] = &identifiers[..] else { panic!() };
    relay.send(shell, &(1, pid)).await.unwrap();
    let node_of = "receive {1, P} -> node(P) after 5000 -> timeout end";
    assert_eq!(old.vm.eval(node_of), "'new@127.0.0.1'");
    assert_eq!(alias.words().len(), 5);
    let refused = relay.send(shell, &(2, alias)).await;
    assert!(matches!(refused, Err(SendError::Incapable { lacks: Flags::V4_NC, .. })));
    // And the other way.
    old.vm.eval("{relay, 'rust@127.0.0.1'} ! {make_ref(), self(), hd(erlang:ports())}");
    let Some(Signal::Message(message)) = relay.receive_within(LIMIT).await else { panic!() };
    let all = message.body.term().unwrap();
    relay.send_term(pid, &all).await.unwrap();
    let nodes = "receive {R, S, Q} -> [node(R), node(S), node(Q)] after 5000 -> timeout end";
    assert_eq!(new.eval(nodes), "['old@127.0.0.1','old@127.0.0.1','old@127.0.0.1']");

    let peers = node.peers();
    let of = |name: &str| peers.iter().find(|peer| peer.name == *name).expect(name);
    let newer = Flags::UNLINK_ID | Flags::V4_NC | Flags::ALIAS;
    assert_eq!(of("old@127.0.0.1").offered & newer, Flags::NONE);
    assert_eq!(of("new@127.0.0.1").offered & newer, newer);
}

/// More processes than OTP 23 has pids for: those beyond are told what it is, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_processes_than_otp_23_has_pids_for() {
    if skips(Release::Otp23.needs()) {
        return;
    }
    let mut old = Stock::start(Release::Otp23, "old");
    let node = old.beside("rust").start().await.unwrap();
    old.vm.eval("register(shell, self())");
    let shell = ("shell", old.name.as_str());
    let crowd: Vec<_> = (0..33_000).map(|_| node.mailbox().unwrap()).collect();
    let (mut sent, mut refused) = (0, 0);
    for mailbox in &crowd {
        match mailbox.send(shell, mailbox.pid()).await {
            Ok(()) => sent += 1,
            Err(SendError::Incapable { lacks: Flags::V4_NC, .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent > 32_700 && refused > 200, "{sent} {refused}");
    let count = "(fun Count(N) -> receive P when is_pid(P) -> Count(N + 1) \
                 after 1000 -> N end end)(0)";
    assert_eq!(old.vm.eval(count), sent.to_string());
    let spawned = old.vm.try_eval("erpc:call('rust@127.0.0.1', erlang, node, [])").unwrap_err();
    assert!(spawned.contains("system_limit"), "{spawned}");
    drop(crowd);
    assert_eq!(old.vm.eval("erpc:call('rust@127.0.0.1', erlang, node, [])"), "'rust@127.0.0.1'");
    assert_eq!(node.peers().len(), 1);
}

/// A call that nobody waits for any more: the answer comes to the pid, late, and is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers_are_dropped() {
    if skips(Release::Otp23.needs()) {
        return;
    }
    let mut old = Stock::start(Release::Otp23, "old");
    old.vm.eval(
        "register(slow, spawn(fun F() -> receive {'$gen_call', From, Q} -> \
         timer:sleep(100), gen_server:reply(From, Q), F() end end))",
    );
    let node = old.beside("rust").start().await.unwrap();
    let mut mailbox = node.mailbox().unwrap();
    let slow = ("slow", old.name.as_str());
    let limit = std::time::Duration::from_millis(20);
    assert!(mailbox.call::<_, Term>(slow, &term!(first), limit).await.is_err());
    let second = mailbox.call::<_, Term>(slow, &term!(second), LIMIT).await;
    assert_eq!(second.unwrap(), term!(second));
    assert!(mailbox.try_receive().is_none());
}
