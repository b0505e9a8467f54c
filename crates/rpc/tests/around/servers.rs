//! Interceptors of servers.

use std::sync::Arc;
use std::time::Duration;

use meshx_core::Action;
use meshx_etf::{Term, term};
use meshx_rpc::event::Event;
use meshx_rpc::transport::Memory;
use meshx_rpc::{
    Body, Client, Codec, Context, Error, Executed, Functions, Incoming, Kind, Next, Outgoing, Peer,
    Policy, Protocol, Refs, Request, Retries, Rule, Server, v1,
};

use crate::{Seen, functions, pair};

#[tokio::test]
async fn they_nest_in_their_order_and_those_of_functions_are_inside() {
    let seen = Seen::default();
    let all = functions()
        .intercept(seen.noting("c"))
        .intercept(seen.noting("d"))
        .add("later", async |()| Ok::<_, String>(7));
    let (a, b) = (seen.noting("a"), seen.noting("b"));
    let (client, _server) = pair(all, |it| it, |it| it.intercept(a).intercept(b));
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    let all =
        ["a call add", "b call add", "c call add", "d call add", "d ok", "c ok", "b ok", "a ok"];
    assert_eq!(seen.take(), all);
    assert_eq!(client.call::<_, u32>("later", &()).await.unwrap(), 7);
    assert_eq!(seen.take(), ["a call later", "b call later", "b ok", "a ok"]);
    // Its error, too.
    client.call::<_, u32>("add", &(1, u32::MAX)).await.unwrap_err();
    assert_eq!(seen.take()[4..], ["d error", "c error", "b error", "a error"]);
}

#[tokio::test]
async fn they_see_the_call_and_change_its_argument_and_result() {
    let twice = async |mut request: Request, next: Next| {
        let peer = request.peer().unwrap();
        assert_eq!((&*peer.address, peer.protocol), ("memory", Protocol::V2));
        assert_eq!(request.value("who"), Some("web"));
        // Inside of an interceptor the call is the current one.
        let current = Context::current().unwrap();
        assert_eq!((current.function(), current.req_ref()), ("add", 1));
        assert!(current.value("traceparent").is_some());
        assert_eq!(current.deadline(), request.deadline);
        assert!(current.remaining().unwrap() <= Duration::from_secs(5));
        let (a, b): (u32, u32) = request.body.decode().unwrap();
        request.body = Body::encode(request.body.codec, &(a * 2, b * 2)).unwrap();
        let result = next.run(request).await?;
        assert_eq!(result.decode::<u32>().unwrap(), 6);
        Ok(Body::encode(Codec::Json, "six").unwrap())
    };
    let (client, _server) = pair(functions(), |it| it, |it| it.intercept(twice));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let call = client.function("add").metadata("who", "web").metadata("traceparent", trace);
    let result: String = call.timeout(Duration::from_secs(5)).call(&(1, 2)).await.unwrap();
    assert_eq!(result, "six");
}

#[tokio::test]
async fn they_are_asked_after_the_policy_and_refuse_what_it_lets_in() {
    let seen = Seen::default();
    let rules = vec![Rule::allow(["add", "nosuch"], ["*"])];
    let policy = Policy::new(rules, Action::Deny).unwrap();
    let refuse = async |request: Request, _: Next| {
        let reason = format!("no {} today", request.function());
        Err::<Body, _>(Error::new(Kind::Denied, Executed::Never, reason))
    };
    let server = |it: Server| it.policy(policy).intercept(seen.noting("a")).intercept(refuse);
    let (client, _server) = pair(functions(), |it| it, server);
    for (function, kind) in [("forever", Kind::Denied), ("nosuch", Kind::UnknownFunction)] {
        let error = client.call::<_, u32>(function, &()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(seen.take(), [""; 0], "{function}");
    }
    let error = client.call::<_, u32>("add", &(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Denied, Executed::Never));
    assert_eq!(error.reason(), "no add today");
    assert_eq!(seen.take(), ["a call add", "a error"]);
}

/// What became of another call says nothing of this one: neither that it never ran, nor that its
/// connection is lost.
#[tokio::test]
async fn an_error_of_another_call_is_no_transport_error_of_this_one() {
    let (nowhere, _) = Memory::pair();
    let other = Client::to(nowhere).retries(Retries::NONE).start();
    let seen = Seen::default();
    let asks = move |request: Request, next: Next| {
        let other = other.clone();
        async move {
            let call = other.function("may").timeout(Duration::from_millis(50));
            call.call::<_, ()>(request.function()).await?;
            next.run(request).await
        }
    };
    let server = |it: Server| it.intercept(seen.noting("a")).intercept(asks);
    let (client, _server) = pair(functions(), |it| it, server);
    let error = client.function("add").idempotent().call::<_, u32>(&(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Application, Executed::Yes), "{error}");
    assert!(error.reason().starts_with("may at memory: "), "{error}");
    // It was not made again.
    assert_eq!(seen.take().len(), 2);
}

#[tokio::test]
async fn a_panic_in_one_is_an_error_of_its_call_only() {
    let clumsy = async |request: Request, next: Next| {
        assert!(request.value("stumble").is_none(), "as it should");
        next.run(request).await
    };
    let connections = Seen::default();
    let seen = connections.clone();
    let observe = move |event: &Event<'_>| {
        if let Event::Connected { .. } = event {
            seen.note("connected");
        }
    };
    let client = |it: meshx_rpc::ClientBuilder| it.connections(1);
    let (client, _server) = pair(functions(), client, |it| it.observe(observe).intercept(clumsy));
    let beside = client.function("forever").timeout(Duration::from_millis(200)).call::<_, ()>(&());
    let (beside, error) = tokio::join!(beside, async {
        let call = client.function("add").metadata("stumble", "yes");
        let error = call.call::<_, u32>(&(1, 2)).await.unwrap_err();
        assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
        error
    });
    assert_eq!((error.kind(), error.reason()), (Kind::Panic, "the function panicked"));
    assert_eq!(beside.unwrap_err().kind(), Kind::Deadline);
    assert_eq!(connections.take(), ["connected"]);
}

/// Both versions, and callers without a connection.
#[tokio::test]
async fn callers_of_all_protocols_pass_them_once() {
    let seen = Seen::default();
    let (dial, listen) = Memory::pair();
    let server = Server::new(functions()).intercept(seen.noting("a")).listen(listen);
    let _server = server.also_v1(v1::ServerOptions::default()).unwrap().start();
    let old = v1::Client::new(dial.clone(), v1::ClientOptions::default()).unwrap();
    let new = Client::to(dial).start();
    assert_eq!(new.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    assert_eq!(seen.take(), ["a call add", "a ok"]);
    assert_eq!(old.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    assert_eq!(seen.take(), ["a call add", "a ok"]);
    // A list, in the place of a tuple.
    let list = meshx_etf::encode(&term!([4, 300])).unwrap().into();
    let list = Body { codec: Codec::Etf, bytes: list };
    let sum = old.request("add").call_raw(list).await.unwrap();
    assert_eq!(sum.decode::<Term>().unwrap(), term!(304));
    assert_eq!(seen.take(), ["a call add", "a ok"]);
    old.cast("add", &(1, 2)).await.unwrap();
    new.cast("add", &(1, 2)).await.unwrap();
    crate::until("both casts", || seen.0.lock().unwrap().len() == 4).await;
    assert!(seen.take().contains(&"a cast add".to_owned()));

    let here = functions().intercept(seen.noting("b"));
    let peer = Peer {
        address: "web@host".into(),
        identity: None,
        remote: Refs::default(),
        local: Refs::default(),
        hsk_ref: 0,
        protocol: Protocol::Erlang,
    };
    let context = Context::new(Arc::new(peer), "add".into(), 1, None, Vec::new());
    let argument = Body::encode(Codec::Etf, &(1, 2)).unwrap();
    assert_eq!(here.call(context, argument).await.unwrap().decode::<u32>().unwrap(), 3);
    assert_eq!(seen.take(), ["b call add", "b ok"]);
}

#[tokio::test]
async fn who_refuses_a_cast_tells_it_by_an_event() {
    let lost = Seen::default();
    let seen = lost.clone();
    let observe = move |event: &Event<'_>| {
        if let Event::CastLost { function, error } = event {
            seen.note(format!("{function}: {}", error.reason()));
        }
    };
    let refuse =
        async |_: Request, _: Next| Err::<Body, _>(Error::new(Kind::Denied, Executed::Never, "no"));
    let (client, _server) = pair(functions(), |it| it, |it| it.observe(observe).intercept(refuse));
    client.cast("add", &(1, 2)).await.unwrap();
    crate::until("it is told", || !lost.0.lock().unwrap().is_empty()).await;
    assert_eq!(lost.take(), ["add: no"]);
}

#[tokio::test]
async fn they_are_around_exchanges_until_their_end() {
    let seen = Seen::default();
    let back = async |mut words: Incoming<u32>, mut back: Outgoing<u32>| {
        while let Some(word) = words.next().await {
            back.send(&word?).await?;
        }
        Ok::<_, Error>(())
    };
    let door = async |request: Request, next: Next| match request.value("word") {
        Some("twice") => {
            let again = next.clone();
            next.run(request.clone()).await?;
            again.run(request).await
        }
        Some(_) => next.run(request).await,
        None => Err(Error::new(Kind::Denied, Executed::Never, "say the word")),
    };
    let all = Functions::new().add_exchange("back", back);
    let server = |it: Server| it.intercept(seen.noting("a")).intercept(door);
    let (client, _server) = pair(all, |it| it, server);
    let (_say, mut hear) = client.function("back").open::<u32, u32>().await.unwrap();
    let error = hear.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Denied, Executed::Never));
    assert_eq!(seen.take(), ["a stream back", "a error"]);
    for (word, ends) in [("please", "a ok"), ("twice", "a error")] {
        let call = client.function("back").metadata("word", word);
        let (mut say, mut hear) = call.open::<u32, u32>().await.unwrap();
        say.send(&1).await.unwrap();
        assert_eq!(hear.next().await.unwrap().unwrap(), 1);
        assert_eq!(seen.take(), ["a stream back"]);
        drop(say);
        let end = hear.next().await;
        assert_eq!(end.is_none(), word == "please", "{end:?}");
        assert_eq!(seen.take(), [ends]);
    }
}

#[tokio::test]
async fn a_caller_who_leaves_takes_them_along() {
    struct Gone(Seen);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.note("gone");
        }
    }
    let seen = Seen::default();
    let noted = seen.clone();
    let stays = move |request: Request, next: Next| {
        let gone = Gone(noted.clone());
        async move {
            let result = next.run(request).await;
            drop(gone);
            result
        }
    };
    let (client, _server) = pair(functions(), |it| it, |it| it.intercept(stays));
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    assert_eq!(seen.take(), ["gone"]);
    let call = client.call::<_, ()>("forever", &());
    tokio::time::timeout(Duration::from_millis(50), call).await.unwrap_err();
    crate::until("it is dropped", || seen.take() == ["gone"]).await;
}
