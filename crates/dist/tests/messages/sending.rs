//! Messages, exit signals, group leaders, spawned processes.

use meshx_dist::control::{Control, Destination, Spawned, Target};
use meshx_dist::handshake::Flags;
use meshx_etf::{Binary, Pid, Term, term};

use crate::session::{Session, atom, reference_in};

/// Messages to pids and names; exit signals; group leaders.
pub(crate) fn messages(session: &mut Session) {
    let (me, driver) = (session.me.clone(), session.driver.clone());
    for content in [term!(hi), term!({["text", 1.5], #{a => (me.clone())}}), term!([])] {
        session.tell_driver(&content);
        assert_eq!(session.got(), content);
        let name = Control::SendName { from: me.clone(), to: atom("driver") };
        session.send(&name, Some(&content));
        assert_eq!(session.got(), content);
        let named = term!({counter, (session.node.name().clone())});
        session.erlang("send", [named, content.clone()]);
        let name = Control::SendName { from: driver.clone(), to: atom("counter") };
        assert_eq!(session.other(), (name, Some(content), false));
    }
    // To nobody: nothing comes of it.
    let nobody = Control::SendName { from: me.clone(), to: atom("nobody") };
    session.send(&nobody, Some(&term!(hi)));

    session.kill(&driver, &term!({some, reason}));
    assert_eq!(session.got(), term!({EXIT, (me.clone()), {some, reason}}));
    session.erlang("exit", [me.clone().into(), term!({other, "reason"})]);
    let signal = Control::ExitSignal { from: driver, to: Destination::Pid(me.clone()) };
    assert_eq!(session.other(), (signal, Some(term!({other, "reason"})), false));

    let sleeper = session.sleeper();
    session.send(&Control::GroupLeader { leader: me.clone(), to: sleeper.clone() }, None);
    let leader = session.erlang("process_info", [sleeper.clone().into(), term!(group_leader)]);
    assert_eq!(leader, term!({group_leader, (me.clone())}));
    session.erlang("group_leader", [sleeper.clone().into(), me.clone().into()]);
    assert_eq!(session.control(), Control::GroupLeader { leader: sleeper.clone(), to: me });
    session.kill(&sleeper, &term!(kill));
}

/// Messages to aliases: OTP 24 and later.
pub(crate) fn aliases(session: &mut Session) {
    let (me, driver) = (session.me.clone(), session.driver.clone());
    let alias = reference_in(session.erlang("alias", []));
    let to_alias = Control::SendAlias { from: me.clone(), to: alias.clone() };
    session.send(&to_alias, Some(&term!({by, alias})));
    assert_eq!(session.got(), term!({by, alias}));
    session.erlang("unalias", [alias.into()]);
    session.send(&to_alias, Some(&term!({by, alias})));
    let ours = session.reference();
    session.erlang("send", [ours.clone().into(), term!({to, alias})]);
    let to_alias = Control::SendAlias { from: driver, to: ours };
    assert_eq!(session.other(), (to_alias, Some(term!({to, alias})), false));
}

/// Processes that we start there, and that they start here.
pub(crate) fn spawns(session: &mut Session) {
    let (me, driver) = (session.me.clone(), session.driver.clone());
    let request = |session: &mut Session, function: &str, arguments: &Term, options: Term| {
        let reference = session.reference();
        let spawn = Control::Spawn {
            reference: reference.clone(),
            from: me.clone(),
            leader: me.clone(),
            module: atom("erlang"),
            function: atom(function),
            arity: u8::try_from(arguments.as_list().expect("a list").len()).expect("few"),
            options,
        };
        session.send(&spawn, Some(arguments));
        let Control::SpawnReply { reference: of, to, linked, monitored, result } =
            session.control()
        else {
            panic!("no reply")
        };
        assert_eq!((of, to), (reference.clone(), me.clone()));
        (reference, linked, monitored, result)
    };
    let say = term!([(me.clone()), hi]);
    let (reference, linked, monitored, result) = request(session, "send", &say, term!([monitor]));
    let Spawned::Pid(pid) = result else { panic!("{result:?}") };
    assert_eq!((linked, monitored), (false, true));
    assert_eq!(session.message(), term!(hi));
    session.is_down(Target::Pid(pid), reference, &term!(normal));

    let throw = term!([{no, reason}]);
    let (_, linked, monitored, result) = request(session, "exit", &throw, term!([link]));
    let Spawned::Pid(pid) = result else { panic!("{result:?}") };
    assert_eq!((linked, monitored), (true, false));
    let exit = Control::Exit { from: pid, to: me.clone() };
    assert_eq!(session.other(), (exit, Some(term!({no, reason})), false));

    let (.., result) = request(session, "exit", &throw, term!([{priority, highest}]));
    assert_eq!(result, Spawned::Error(atom("badopt")));

    // Theirs; that of a pid, and that of a reason; also with more arguments than a function can have.
    let many: Term = (0..300).map(Term::from).collect();
    for (arguments, arity) in [(term!([1, "two"]), 2), (many, 255)] {
        let node = session.node.name().clone();
        let options = term!([monitor, link, {reply_tag, {tag, 1}}]);
        let call = [node.into(), term!(m), term!(f), arguments.clone(), options];
        let wanted = reference_in(session.erlang("spawn_request", call));
        let (control, payload, _) = session.other();
        let Control::Spawn { reference, from, module, function, arity: said, options, .. } =
            control
        else {
            panic!("{control:?}")
        };
        assert_eq!((&reference, from, payload), (&wanted, driver.clone(), Some(arguments)));
        assert_eq!((module, function, said), (atom("m"), atom("f"), arity));
        let options = options.as_list().expect("a list");
        assert!(options.contains(&term!(link)) && options.contains(&term!(monitor)), "{options:?}");
        let (linked, result) = match arity {
            2 => (true, Spawned::Pid(Pid { id: 99, ..me.clone() })),
            _ => (false, Spawned::Error(atom("notsup"))),
        };
        let to = driver.clone();
        let reply = Control::SpawnReply { reference, to, linked, monitored: linked, result };
        session.send(&reply, None);
        let outcome = if linked {
            term!({{tag, 1}, (wanted.clone()), ok, (Pid { id: 99, ..me.clone() })})
        } else {
            term!({{tag, 1}, (wanted.clone()), error, notsup})
        };
        assert_eq!(session.got(), outcome);
        if linked {
            let from = Pid { id: 99, ..me.clone() };
            let exit = Control::Exit { from: from.clone(), to: driver.clone() };
            session.send(&exit, Some(&term!(done)));
            let (from, to) = (Target::Pid(from), driver.clone());
            session
                .send(&Control::Down { from, to, reference: wanted.clone() }, Some(&term!(done)));
            let pid = Pid { id: 99, ..me.clone() };
            assert_eq!(session.got(), term!({EXIT, (pid.clone()), done}));
            assert_eq!(session.got(), term!({DOWN, (wanted), process, (pid), done}));
        }
    }
}

/// 5 MB in both directions, with small messages of other senders between their fragments.
pub(crate) fn large(session: &mut Session) {
    let (me, driver) = (session.me.clone(), session.driver.clone());
    let binary: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let binary = Term::from(Binary::from(binary));
    let large = term!({large, (binary), (atom("an_atom_of_the_first_fragment"))});
    let from =
        |id| Some(Pid { id, ..me.clone() }).filter(|_| session.flags.contains(Flags::SEND_SENDER));
    let controls = [1, 2].map(|id| Control::Send { from: from(id), to: driver.clone() });
    session.push(1, &controls[0], Some(&large));
    for number in 0..20_i64 {
        session.push(2, &controls[1], Some(&term!({small, (number)})));
    }
    session.push(1, &controls[0], Some(&term!(behind)));
    session.flush();
    let mut got = Vec::new();
    while got.len() < 22 {
        got.push(session.got());
    }
    let place = |wanted: &Term| got.iter().position(|it| it == wanted).expect("all of it");
    let numbers: Vec<_> = (0..20_i64).map(|number| place(&term!({small, (number)}))).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(place(&large) < place(&term!(behind)));
    // With fragments the small ones were first; without, that is as it was pushed.
    let overtaken = place(&large) > numbers[19];
    assert_eq!(overtaken, session.flags.contains(Flags::FRAGMENTS));
    // What the driver passed on was as large, and came back.
    assert!(session.others.is_empty());
}

/// Operation 37, in both directions: OTP 28 and later.
pub(crate) fn alternatives(session: &mut Session) {
    let (me, driver) = (session.me.clone(), session.driver.clone());
    let ours = session.reference();
    let urgent = term!([priority]);
    session.erlang("send", [ours.clone().into(), term!(now), urgent.clone()]);
    let alias = Control::SendAlias { from: driver.clone(), to: ours.clone() };
    assert_eq!(session.other(), (alias, Some(term!(now)), true));
    session.erlang("exit", [ours.clone().into(), term!(now), urgent]);
    let exit = Control::ExitSignal { from: driver.clone(), to: Destination::Alias(ours) };
    assert_eq!(session.other(), (exit, Some(term!(now)), true));

    let options = term!([priority]);
    let alias = reference_in(session.erlang("alias", [options]));
    for to in [Destination::Alias(alias), Destination::Name(atom("driver"))] {
        let signal = Control::ExitSignal { from: me.clone(), to };
        session.send(&signal, Some(&term!({by, 37})));
        assert_eq!(session.got(), term!({EXIT, (me.clone()), {by, 37}}));
    }
}
