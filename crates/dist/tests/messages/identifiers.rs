//! Pids, ports and references as large as a release takes them, and larger.

use meshx_dist::control::Control;
use meshx_dist::handshake::Flags;
use meshx_etf::{Node, Pid, Port, Reference, Term, term};

use crate::session::Session;

/// Pairs: what every release takes, and what only those take that have `V4_NC`.
fn pairs(node: &Node) -> Vec<(Term, Term)> {
    let pid = |id, serial| Term::from(Pid { node: node.clone(), id, serial });
    let port = |id| Term::Port(Port { node: node.clone(), id });
    let reference = |words: &[u32]| Term::from(Reference::new(node.clone(), words).expect("few"));
    vec![
        (pid((1 << 15) - 1, (1 << 13) - 1), pid(1 << 15, 0)),
        (pid(1, (1 << 13) - 1), pid(1, 1 << 13)),
        (port((1 << 28) - 1), port(1 << 28)),
        (reference(&[0x3_ffff, u32::MAX, u32::MAX]), reference(&[1, 2, 3, 4, 5])),
    ]
}

/// `old`: the VM has no `V4_NC`. What is wide is known to be so before it is sent, and costs the
/// connection if it is sent nevertheless.
pub(crate) fn limits(port: u16, old: bool) {
    for number in 0..4 {
        let name = format!("wide{number}@localhost");
        let mut session = Session::dial(port, &name, Flags::NODE);
        let (narrow, wide) = pairs(&session.node)[number].clone();
        let content = term!({ narrow, (narrow) });
        session.tell_driver(&content);
        assert_eq!(session.got(), content);
        let content = term!({ wide, (wide.clone()) });
        assert!(session.is_wide(&content));
        session.tell_driver(&content);
        if old {
            assert!(session.is_closed(), "{wide}");
        } else {
            assert_eq!(session.got(), content);
        }
    }
    // As a sender.
    let mut session = Session::dial(port, "wide@localhost", Flags::NODE);
    let from = Pid { id: 1 << 15, ..session.me.clone() };
    let control = Control::Send { from: Some(from), to: session.driver.clone() };
    session.send(&control, Some(&term!(hi)));
    if old {
        assert!(session.is_closed());
    } else {
        assert_eq!(session.got(), term!(hi));
    }
}
