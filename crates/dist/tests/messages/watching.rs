//! Links and monitors.

use meshx_dist::control::{Control, Target};
use meshx_dist::handshake::Flags;
use meshx_etf::{Term, term};

use crate::session::{Session, atom, reference_in};

/// Links from us, from them, and their ends.
pub(crate) fn links(session: &mut Session) {
    let (me, driver) = (session.me.clone(), session.driver.clone());
    session.send(&Control::Link { from: me.clone(), to: driver.clone() }, None);
    assert_eq!(session.links(&driver), term!([(me.clone())]));
    let reason = term!({we, are, "gone"});
    session.send(&Control::Exit { from: me.clone(), to: driver.clone() }, Some(&reason));
    assert_eq!(session.got(), term!({EXIT, (me.clone()), (reason)}));
    assert_eq!(session.links(&driver), term!([]));

    // Theirs, which they take back: that must be acknowledged before anything else.
    assert_eq!(session.erlang("link", [me.clone().into()]), term!(true));
    assert_eq!(session.control(), Control::Link { from: driver.clone(), to: me.clone() });
    assert_eq!(session.erlang("unlink", [me.clone().into()]), term!(true));
    let Control::Unlink { id, from, to } = session.control() else { panic!("no unlink") };
    assert_eq!((from, to), (driver.clone(), me.clone()));
    let answered = session.flags.contains(Flags::UNLINK_ID);
    assert_eq!(id != 0, answered);
    if answered {
        session.send(&Control::UnlinkAck { id, from: me.clone(), to: driver.clone() }, None);
    }

    // Ours, which we take back, with every kind of number. A second link, or unlink, is nothing.
    for id in [1, 255, 256, 1 << 31, 1 << 62, 1 << 63, u64::MAX] {
        session.send(&Control::Link { from: me.clone(), to: driver.clone() }, None);
        session.send(&Control::Link { from: me.clone(), to: driver.clone() }, None);
        for _ in 0..2 {
            session.send(&Control::Unlink { id, from: me.clone(), to: driver.clone() }, None);
            if answered {
                let ack = Control::UnlinkAck { id, from: driver.clone(), to: me.clone() };
                assert_eq!(session.control(), ack);
            }
        }
        assert_eq!(session.links(&driver), term!([]));
    }

    // The end of theirs, and a link to who is not there.
    let victim = session.sleeper();
    session.send(&Control::Link { from: me.clone(), to: victim.clone() }, None);
    session.kill(&victim, &term!({killed, [1]}));
    let exit = Control::Exit { from: victim.clone(), to: me.clone() };
    assert_eq!(session.other(), (exit.clone(), Some(term!({killed, [1]})), false));
    session.send(&Control::Link { from: me, to: victim }, None);
    assert_eq!(session.other(), (exit, Some(term!(noproc)), false));
}

/// Monitors by pid and name, in both directions.
pub(crate) fn monitors(session: &mut Session) {
    let me = session.me.clone();
    let victim = session.sleeper();
    session.erlang("register", [term!(victim), victim.clone().into()]);
    let by_pid = session.monitor(Target::Pid(victim.clone()));
    let by_name = session.monitor(Target::Name(atom("victim")));
    let dropped = session.monitor(Target::Pid(victim.clone()));
    let to = Target::Pid(victim.clone());
    session.send(&Control::Demonitor { from: me.clone(), to, reference: dropped }, None);
    session.kill(&victim, &term!(over));
    let mut downs = [session.other(), session.other()];
    downs.sort_by_key(|(control, ..)| {
        matches!(control, Control::Down { from: Target::Name(_), .. })
    });
    session.others.extend(downs);
    session.is_down(Target::Pid(victim.clone()), by_pid, &term!(over));
    session.is_down(Target::Name(atom("victim")), by_name, &term!(over));
    // No third one.
    assert_eq!(session.erlang("whereis", [term!(victim)]), term!(undefined));
    assert!(session.others.is_empty());
    let gone = session.monitor(Target::Pid(victim.clone()));
    session.is_down(Target::Pid(victim), gone, &term!(noproc));

    let named = term!({counter, (session.node.name().clone())});
    for (item, target, object) in [
        (Term::from(me.clone()), Target::Pid(me.clone()), Term::from(me.clone())),
        (named.clone(), Target::Name(atom("counter")), named),
    ] {
        let driver = session.driver.clone();
        for ends in [true, false] {
            let arguments = [term!(process), item.clone()];
            let reference = reference_in(session.erlang("monitor", arguments));
            let (from, to) = (driver.clone(), target.clone());
            let monitor = Control::Monitor { from, to, reference: reference.clone() };
            assert_eq!(session.control(), monitor);
            if ends {
                let down = Control::Down {
                    from: target.clone(),
                    to: driver.clone(),
                    reference: reference.clone(),
                };
                session.send(&down, Some(&term!({over, 1})));
                let object = object.clone();
                assert_eq!(session.got(), term!({DOWN, (reference), process, (object), {over, 1}}));
            } else {
                session.erlang("demonitor", [reference.clone().into()]);
                let (from, to) = (driver.clone(), target.clone());
                assert_eq!(session.control(), Control::Demonitor { from, to, reference });
            }
        }
    }
}
