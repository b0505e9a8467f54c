//! What other nodes say, as far as it is kept.

use std::time::Duration;

use meshx_dist::handshake::Cookie;
use meshx_etf::term;

use super::*;
use crate::carrier::{Memory, Switchboard};
use crate::process::Mailbox;

/// A scope of one node, and a process of another that is taken for one.
struct Told {
    scope: Scope,
    peer: Node,
    says: Mailbox,
}

impl Told {
    async fn new() -> Self {
        let board = Switchboard::new();
        let node = |name: &str| {
            let builder = Node::builder(format!("{name}@h")).cookie(Cookie::new("secret"));
            builder.carrier(Memory::new(&board)).start()
        };
        let (node, peer) = (node("a").await.unwrap(), node("b").await.unwrap());
        peer.connect(node.name()).await.unwrap();
        let says = peer.mailbox().unwrap();
        Self { scope: node.pg("pg").unwrap(), peer, says }
    }

    fn limit(&self, members: usize) {
        self.scope.groups.write().unwrap().limit = members;
    }

    fn pids(&self, count: usize) -> Vec<Term> {
        (0..count).map(|_| Term::Pid(self.peer.mailbox().unwrap().pid().clone())).collect()
    }

    /// It is told this, and then something of which it can be seen that it was heard.
    async fn tell(&self, message: &Term) {
        self.says.send_term(self.scope.pid(), message).await.unwrap();
        let last = self.peer.mailbox().unwrap();
        let discover = term!({discover, (last.pid().clone())});
        last.send_term(self.scope.pid(), &discover).await.unwrap();
        let mut last = last;
        last.receive_within(Duration::from_secs(10)).await.expect("an answer");
    }

    async fn sync(&self, group: &str, pids: &[Term]) {
        let (me, pids) = (self.says.pid().clone(), Term::List(pids.to_vec()));
        let groups = Term::List(vec![Term::Tuple(vec![Term::atom(group), pids])]);
        self.tell(&term!({sync, (me), (groups)})).await;
    }

    async fn join(&self, group: &str, pids: &[Term]) {
        let (me, pids) = (self.says.pid().clone(), Term::List(pids.to_vec()));
        self.tell(&term!({join, (me), (Term::atom(group)), (pids)})).await;
    }

    async fn leave(&self, group: &str, pids: &[Term]) {
        let (me, pids) = (self.says.pid().clone(), Term::List(pids.to_vec()));
        self.tell(&term!({leave, (me), (pids), [(Term::atom(group))]})).await;
    }

    fn members(&self, group: &str) -> usize {
        self.scope.members(&Term::atom(group)).len()
    }
}

/// What there is no room for is not kept in secret, either: said once more when there is room, it
/// counts.
#[tokio::test]
async fn what_there_is_no_room_for_is_not_kept() {
    let told = Told::new().await;
    told.limit(3);
    let pids = told.pids(4);
    told.sync("first", &pids[..2]).await;
    told.join("second", &pids[..2]).await;
    assert_eq!((told.members("first"), told.members("second")), (2, 0));
    told.sync("first", &pids).await;
    assert_eq!(told.members("first"), 2, "four are too many, the two that were in stay");
    told.join("second", &pids[..2]).await;
    told.leave("first", &pids[..1]).await;
    told.join("second", &pids[..2]).await;
    assert_eq!((told.members("first"), told.members("second")), (1, 2));
    told.sync("second", &pids[..2]).await;
    assert_eq!((told.members("first"), told.members("second")), (0, 2), "once each");
    // Who is gone makes room in the same message.
    told.sync("third", &pids[..3]).await;
    assert_eq!((told.members("second"), told.members("third")), (0, 3));
    told.limit(4);
    told.sync("third", &pids).await;
    assert_eq!(told.members("third"), 4);
}

/// A node has one scope of a name; one that comes with ever new ones is heard no further.
#[tokio::test]
async fn a_node_has_few_scopes_of_a_name() {
    const SOON: Duration = Duration::from_millis(150);
    let told = Told::new().await;
    let discover = async |mailbox: &mut Mailbox| {
        let message = term!({discover, (mailbox.pid().clone())});
        mailbox.send_term(told.scope.pid(), &message).await.unwrap();
        mailbox.receive_within(SOON).await.is_some()
    };
    let mut scopes = Vec::new();
    for number in 0..18 {
        let mut scope = told.peer.mailbox().unwrap();
        assert_eq!(discover(&mut scope).await, number < 16, "scope {number}");
        scopes.push(scope);
    }
    assert!(discover(&mut scopes[0]).await, "who is known is heard");
    scopes.truncate(15);
    let mut next = told.peer.mailbox().unwrap();
    let begun = std::time::Instant::now();
    while !discover(&mut next).await {
        assert!(begun.elapsed() < Duration::from_secs(10), "there is room for another");
    }
}
