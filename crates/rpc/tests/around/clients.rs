//! Interceptors of clients.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use meshx_rpc::event::Event;
use meshx_rpc::{
    Body, ClientBuilder, Codec, Context, Error, Executed, Functions, Incoming, Kind, Next,
    Outgoing, Request, Server,
};
use tokio::time::Instant;

use crate::{Seen, functions, pair};

#[tokio::test]
async fn they_nest_and_what_they_change_is_what_is_sent() {
    let seen = Seen::default();
    let who = Functions::new().add("who", async |n: u32| {
        let context = Context::current().unwrap();
        let left = context.remaining().unwrap();
        assert!(left < Duration::from_secs(2), "{left:?}");
        Ok::<_, String>((n, context.value("who").map(str::to_owned)))
    });
    let change = async |mut request: Request, next: Next| {
        assert!(request.peer().is_none());
        assert!(request.deadline.unwrap() > Instant::now() + Duration::from_secs(8));
        request.deadline = Some(Instant::now() + Duration::from_secs(1));
        request.metadata.push(("who".to_owned(), "me".to_owned()));
        request.body = Body::encode(Codec::Json, &8).unwrap();
        next.run(request).await
    };
    let client = |it: ClientBuilder| {
        it.intercept(seen.noting("a")).intercept(change).intercept(seen.noting("b"))
    };
    let (client, _server) = pair(who, client, |it| it);
    let told: (u32, Option<String>) = client.call("who", &7).await.unwrap();
    assert_eq!(told, (8, Some("me".to_owned())));
    assert_eq!(seen.take(), ["a call who", "b call who", "b ok", "a ok"]);
    client.cast("who", &7).await.unwrap();
    assert_eq!(seen.take(), ["a cast who", "b cast who", "b ok", "a ok"]);
    client.function("who").fire(&7).await.unwrap();
    assert_eq!(seen.take(), ["a cast who", "b cast who", "b ok", "a ok"]);
    let each = client.call_each::<_, (u32, Option<String>)>("who", &7).await.unwrap();
    assert_eq!(*each[0].1.as_ref().unwrap(), (8, Some("me".to_owned())));
    assert_eq!(seen.take(), ["a call who", "b call who", "b ok", "a ok"]);
}

/// One pass for all attempts; a run of `next` more is a call more.
#[tokio::test]
async fn they_are_around_all_attempts() {
    let (seen, attempts) = (Seen::default(), Seen::default());
    let busy = AtomicU32::new(0);
    let refuse = move |request: Request, next: Next| {
        let made = busy.fetch_add(1, Ordering::SeqCst);
        async move {
            if made < 2 {
                return Err(Error::new(Kind::Overloaded, Executed::Never, "busy"));
            }
            next.run(request).await
        }
    };
    let noted = attempts.clone();
    let observe = move |event: &Event<'_>| {
        if let Event::Called(called) = event {
            noted.note(called.attempt.to_string());
        }
    };
    let again = async |request: Request, next: Next| {
        next.clone().run(request.clone()).await?;
        next.run(request).await
    };
    let client = |it: ClientBuilder| {
        it.observe(observe).intercept(seen.noting("a")).intercept(again).intercept(seen.noting("b"))
    };
    let (client, _server) = pair(functions(), client, |it| it.intercept(refuse));
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    assert_eq!(attempts.take(), ["1", "2", "3", "1"]);
    assert_eq!(seen.take(), ["a call add", "b call add", "b ok", "b call add", "b ok", "a ok"]);
}

#[tokio::test]
async fn what_they_refuse_or_answer_is_not_sent() {
    let seen = Seen::default();
    let noted = seen.clone();
    let observe = move |event: &Event<'_>| match event {
        Event::CastLost { function, error } => noted.note(format!("{function} {}", error.reason())),
        other => noted.note(format!("{other:?}")),
    };
    let door = async |request: Request, _: Next| match request.value("cached") {
        Some(it) => Ok(Body::encode(Codec::Json, &it.parse::<u32>().unwrap()).unwrap()),
        None => Err(Error::new(Kind::Denied, Executed::Never, "not from here")),
    };
    let client = |it: ClientBuilder| it.observe(observe).intercept(door);
    let (client, _server) = pair(functions(), client, |it| it);
    let cached = client.function("add").metadata("cached", "9");
    assert_eq!(cached.clone().call::<_, u32>(&(1, 2)).await.unwrap(), 9);
    let error = client.call::<_, u32>("add", &(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Denied, Executed::Never));
    assert_eq!(error.to_string(), "add: not from here");
    // Nothing was dialled, and no attempt made.
    assert_eq!(seen.take(), [""; 0]);
    client.function("add").fire(&(1, 2)).await.unwrap_err();
    assert_eq!(seen.take(), ["add not from here"]);
    let error = client.function("back").open::<u32, u32>().await.unwrap_err();
    assert_eq!(error.to_string(), "back: not from here");
    // An answer is no exchange.
    let error = cached.open::<u32, u32>().await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
}

#[tokio::test(start_paused = true)]
async fn a_call_has_no_more_time_with_them_than_without() {
    let hold = async |request: Request, next: Next| {
        if request.function() == "add" {
            std::future::pending::<()>().await;
        }
        next.run(request).await
    };
    let (client, _server) = pair(functions(), |it| it.intercept(hold), |it| it);
    for (function, executed) in [("add", Executed::Never), ("forever", Executed::Maybe)] {
        let begun = Instant::now();
        let call = client.function(function).timeout(Duration::from_secs(1));
        let error = call.call::<_, u32>(&()).await.unwrap_err();
        let took = begun.elapsed();
        assert_eq!((error.kind(), error.executed()), (Kind::Deadline, executed), "{error}");
        assert!(took < Duration::from_millis(1010), "{took:?}");
    }
}

#[tokio::test]
async fn a_panic_in_one_is_an_error_of_its_call_only() {
    let clumsy = async |request: Request, next: Next| {
        let late = request.value("late").is_some();
        assert!(late || request.value("stumble").is_none(), "as it should");
        let result = next.run(request).await;
        assert!(!late, "as it should");
        result
    };
    let (client, _server) = pair(functions(), |it| it.intercept(clumsy), |it| it);
    for (when, executed) in [("stumble", Executed::Never), ("late", Executed::Maybe)] {
        let call = client.function("add").metadata(when, "yes");
        let error = call.call::<_, u32>(&(1, 2)).await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Panic, executed));
    }
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
}

#[tokio::test]
async fn they_are_around_the_opening_of_an_exchange() {
    let seen = Seen::default();
    let back = async |mut words: Incoming<u32>, mut back: Outgoing<String>| {
        let context = Context::current().unwrap();
        assert_eq!(context.deadline(), None);
        while let Some(word) = words.next().await {
            back.send(&format!("{} {}", context.value("who").unwrap(), word?)).await?;
        }
        Ok::<_, Error>(())
    };
    let who = async |mut request: Request, next: Next| {
        assert_eq!((request.deadline, request.body.bytes.len()), (None, 0));
        request.metadata.push(("who".to_owned(), "me".to_owned()));
        next.run(request).await
    };
    let client = |it: ClientBuilder| it.intercept(seen.noting("a")).intercept(who);
    let all = Functions::new().add_exchange("back", back);
    let (client, _server) = pair(all, client, |it| it);
    let (mut say, mut hear) = client.function("back").open::<u32, String>().await.unwrap();
    assert_eq!(seen.take(), ["a stream back", "a ok"]);
    say.send(&1).await.unwrap();
    assert_eq!(hear.next().await.unwrap().unwrap(), "me 1");
    drop(say);
    assert!(hear.next().await.is_none());
}

#[tokio::test]
async fn an_exchange_that_an_interceptor_gives_up_is_left() {
    let seen = Seen::default();
    let noted = seen.clone();
    let back = move |_: Incoming<u32>, _: Outgoing<u32>| {
        let context = Context::current().unwrap();
        let noted = noted.clone();
        noted.note("begun");
        tokio::spawn(async move {
            context.cancelled().await;
            noted.note("left");
        });
        std::future::pending::<Result<(), Error>>()
    };
    let give_up = async |request: Request, next: Next| {
        next.run(request).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err::<Body, _>(Error::new(Kind::Denied, Executed::Maybe, "no"))
    };
    let all = Functions::new().add_exchange("back", back);
    let (client, _server) = pair(all, |it| it.intercept(give_up), |it| it);
    client.function("back").open::<u32, u32>().await.unwrap_err();
    let mut all = Vec::new();
    crate::until("the server knows", || {
        all.extend(seen.take());
        all == ["begun", "left"]
    })
    .await;
}

/// A call inside of a function, and what is around both.
#[tokio::test]
async fn they_see_the_call_that_theirs_is_a_part_of() {
    let (inner, _inside) = pair(
        functions(),
        |it| {
            it.intercept(async |request: Request, next: Next| {
                let above = request.context().map(Context::function);
                assert_eq!(above, Some("outer"));
                assert!(request.deadline <= request.context().unwrap().deadline());
                next.run(request).await
            })
        },
        |it: Server| it,
    );
    let outer = Functions::new().add("outer", move |both: (u32, u32)| {
        let inner = inner.clone();
        async move { inner.call::<_, u32>("add", &both).await }
    });
    let (client, _server) = pair(outer, |it| it, |it| it);
    assert_eq!(client.call::<_, u32>("outer", &(1, 2)).await.unwrap(), 3);
}
