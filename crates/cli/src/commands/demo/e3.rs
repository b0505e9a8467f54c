//! The story E3: functions that services of the mesh call.

use std::fmt;
use std::time::{Duration, Instant};

use meshx_core::{Action, Diagnostic, IntentionName};
use meshx_rpc::{CallError, Client, Kind, v1};
use serde_json::{Value, json};

use super::e3_math::{MathClient, MathError, POLICY};
use super::member::{Caller, millis};
use super::stage::Stage;
use crate::failure::Failure;

/// The longest that one call may take, and that a deny may take to be felt.
const LIMIT: Duration = Duration::from_secs(5);
/// How long is waited for an answer where none should come.
const NO_ANSWER: Duration = Duration::from_millis(500);

/// A service that calls, and its typed client.
struct Player {
    name: &'static str,
    caller: Caller,
    client: Client,
    math: MathClient,
}

/// What came of the steps, for programs.
#[derive(Default)]
struct Steps(Vec<Value>);

pub(super) async fn tell(stage: &mut Stage) -> Result<Vec<String>, Failure> {
    let mut steps = Steps::default();
    let told = play(stage, &mut steps).await;
    stage.report(&json!({"schema": "meshx.demo.e3/1", "ok": told.is_ok(), "steps": steps.0}));
    told?;
    Ok(vec![
        "   meshx rpc list math --as web".to_owned(),
        "   meshx rpc call math math.add '[40, 2]' --as web".to_owned(),
        "   meshx rpc call math math.add '[40, 2]' --as guest   # denied".to_owned(),
        "   meshx intentions deny web math                      # and allow".to_owned(),
    ])
}

async fn play(stage: &mut Stage, steps: &mut Steps) -> Result<(), Failure> {
    stage.step("a service of functions joins the mesh; its policy says who may call which of them");
    POLICY.lines().for_each(|line| stage.tell(line));
    stage.start("math", &["demo-peer", "--rpc", "e3"], "./math        # a program in Rust").await?;

    stage.step("two services join that call it; in this process, each with its own sidecar");
    let begun = Instant::now();
    let web = Player::join(stage, "web").await?;
    let guest = Player::join(stage, "guest").await?;
    steps.done("join", begun, &json!({"callers": ["web", "guest"]}));
    stage.tell(&format!("web and guest are registered after {}", millis(begun.elapsed())));

    typed_calls(stage, steps, &web, &guest).await?;
    errors(stage, steps, &web, &guest).await?;
    version_1(stage, steps, &web).await?;

    stage.step("what is on the wire: mutual TLS between the sidecars, each proving its service");
    stage.wire().await?;

    deny_and_allow(stage, steps, &web, &guest).await?;
    web.leave().await?;
    guest.leave().await
}

/// What is called gives what it should, and knows who called.
async fn typed_calls(
    stage: &mut Stage,
    steps: &mut Steps,
    web: &Player,
    guest: &Player,
) -> Result<(), Failure> {
    stage.step("web calls a function: its arguments, result and error have types on both sides");
    for time in ["with connecting, through both sidecars", "and on the connection that there is"] {
        stage.act(web.name, "math.add(40, 2)");
        let begun = Instant::now();
        let sum = web.math.add(40, 2).await.map_err(|error| of(&error))?;
        expect("math.add(40, 2)", &sum, &42)?;
        stage.tell(&format!("{sum}   in {}, {time}", millis(begun.elapsed())));
        steps.done("call", begun, &json!({"function": "math.add", "result": sum}));
    }

    stage.step("whom the server saw: callers do not say who they are, their sidecars prove it");
    for player in [web, guest] {
        stage.act(player.name, "math.caller()");
        let begun = Instant::now();
        let identity = player.identity().await?;
        stage.tell(&identity);
        steps.done("identity", begun, &json!({"caller": player.name, "identity": identity}));
    }
    Ok(())
}

/// A function that fails, and one that may not be called.
async fn errors(
    stage: &mut Stage,
    steps: &mut Steps,
    web: &Player,
    guest: &Player,
) -> Result<(), Failure> {
    stage.step("a function fails: its error is a value, and the connection stays");
    stage.act(web.name, "math.divide(7, 0)");
    let begun = Instant::now();
    let wanted = MathError::DivisionByZero { dividend: 7 };
    match web.math.divide(7, 0).await {
        Err(CallError::Application(error)) if error == wanted => {
            stage.tell(&format!("{error:?}: {error}"));
            let error = error.to_string();
            steps.done("application_error", begun, &json!({"caller": web.name, "error": error}));
        }
        other => return Err(unexpected("math.divide(7, 0)", &other, &wanted)),
    }

    stage.step("guest may not add, says the policy");
    stage.act(guest.name, "math.add(40, 2)");
    let begun = Instant::now();
    match guest.math.add(40, 2).await {
        Err(CallError::Rpc(error)) if error.kind() == Kind::Denied => {
            show(stage, &error);
            steps.done("denied", begun, &failed(guest.name, &error));
        }
        other => return Err(unexpected("math.add(40, 2) by guest", &other, &"a denial")),
    }
    Ok(())
}

/// As a program in Elixir calls.
async fn version_1(stage: &mut Stage, steps: &mut Steps, web: &Player) -> Result<(), Failure> {
    stage.step("the same functions for programs in Elixir with the package meshx_rpc");
    stage.act(web.name, "version 1 of the wire: \"math.add\", [40, 2]");
    let begun = Instant::now();
    let old = v1::Client::new(web.caller.way(), v1::ClientOptions::default())?;
    let sum: i64 = old.request("math.add").within(LIMIT).call(&(40, 2)).await?;
    expect("math.add of version 1", &sum, &42)?;
    stage.tell(&format!("{sum}   in {}, with connecting", millis(begun.elapsed())));
    let identity: Option<String> = old.request("math.caller").within(LIMIT).call(&()).await?;
    let identity = proven(web.name, identity)?;
    stage.tell(&format!("called by {identity}"));
    steps.done("version_1", begun, &json!({"result": sum, "identity": identity}));
    old.close().await;
    Ok(())
}

/// An intention ends what policies only judge.
async fn deny_and_allow(
    stage: &mut Stage,
    steps: &mut Steps,
    web: &Player,
    guest: &Player,
) -> Result<(), Failure> {
    stage.step("deny: the live connection is cut, and no other is made");
    stage.show("meshx intentions deny web math");
    let begun = Instant::now();
    put(stage, Action::Deny).await?;
    if tokio::time::timeout(LIMIT, web.caller.seen.ended.notified()).await.is_err() {
        return Err(Stage::failed("the connection of web lived on after the deny"));
    }
    stage.tell(&format!("web saw the end {} after the command", millis(begun.elapsed())));
    steps.done("cut", begun, &json!({"source": "web", "destination": "math"}));
    stage.act(web.name, "math.add(40, 2)");
    let begun = Instant::now();
    let result = web.client.function("math.add").timeout(NO_ANSWER).call::<_, i64>(&(40, 2)).await;
    match result {
        Err(error) if matches!(error.kind(), Kind::Transport | Kind::Deadline) => {
            show(stage, &error);
            let why = web.caller.why();
            let why =
                why.ok_or_else(|| Stage::failed("the sidecar does not say why it refuses"))?;
            stage.tell("and the sidecar of web says why:");
            show(stage, &why);
            let mut step = failed(web.name, &error);
            step["why"] = why.to_string().into();
            steps.done("refused", begun, &step);
        }
        other => return Err(unexpected("math.add(40, 2) by web", &other, &"no answer")),
    }
    stage.act(guest.name, "math.caller()");
    let begun = Instant::now();
    let identity = guest.identity().await?;
    stage.tell(&format!("{identity}   nobody else is cut"));
    steps.done("not_cut", begun, &json!({"caller": guest.name}));

    stage.step("allow: web can call again");
    stage.show("meshx intentions allow web math");
    let begun = Instant::now();
    put(stage, Action::Allow).await?;
    stage.act(web.name, "math.add(40, 2)");
    let sum = web.math.add(40, 2).await.map_err(|error| of(&error))?;
    expect("math.add(40, 2)", &sum, &42)?;
    stage.tell(&format!("{sum}   {} after the command", millis(begun.elapsed())));
    steps.done("healed", begun, &json!({"function": "math.add", "result": sum}));
    Ok(())
}

impl Player {
    async fn join(stage: &Stage, name: &'static str) -> Result<Self, Failure> {
        let caller = Caller::join(&stage.client, name, "math", stage.teller.output).await?;
        let client = caller.client().named(name, "demo").connections(1).timeout(LIMIT).start();
        let math = MathClient::new(client.clone());
        Ok(Self { name, caller, client, math })
    }

    /// Who it is, as the server says.
    async fn identity(&self) -> Result<String, Failure> {
        proven(self.name, self.math.caller().await.map_err(|error| of(&error))?)
    }

    async fn leave(self) -> Result<(), Failure> {
        let Self { caller, client, math, .. } = self;
        // The sidecar waits for the connections that there are.
        drop((client, math));
        caller.leave().await
    }
}

impl Steps {
    /// A step came out as it should.
    fn done(&mut self, step: &str, begun: Instant, more: &Value) {
        let mut value = json!({"step": step, "seconds": begun.elapsed().as_secs_f64()});
        if let (Some(value), Some(more)) = (value.as_object_mut(), more.as_object()) {
            value.extend(more.clone());
        }
        self.0.push(value);
    }
}

async fn put(stage: &Stage, action: Action) -> Result<(), Failure> {
    let name = |text: &str| {
        text.parse::<IntentionName>().map_err(|error| Failure::internal("name a service", &error))
    };
    Ok(stage.client.put_intention(&name("web")?, &name("math")?, action).await?)
}

/// An error, as the command line would show it.
fn show(stage: &Stage, error: &dyn Diagnostic) {
    stage.tell(&format!("error[{}]: {error}", error.code()));
    if let Some(hint) = error.hint() {
        stage.tell(&format!("hint: {hint}"));
    }
}

fn failed(caller: &str, error: &meshx_rpc::Error) -> Value {
    json!({
        "caller": caller,
        "code": error.code().to_string(),
        "kind": error.kind().token(),
        "error": error.to_string(),
        "hint": error.hint(),
    })
}

/// The identity of the service, which must be this one.
fn proven(name: &str, identity: Option<String>) -> Result<String, Failure> {
    match identity {
        Some(identity) if identity.ends_with(&format!("/svc/{name}")) => Ok(identity),
        other => Err(unexpected("math.caller()", &other, &name)),
    }
}

/// A call that should have had a result.
fn of<E: fmt::Display>(error: &CallError<E>) -> Failure {
    match error {
        CallError::Rpc(error) => Failure::of(error),
        CallError::Application(error) => Stage::failed(&error.to_string()),
    }
}

fn expect<T: PartialEq + fmt::Debug>(what: &str, value: &T, wanted: &T) -> Result<(), Failure> {
    if value == wanted { Ok(()) } else { Err(unexpected(what, value, wanted)) }
}

fn unexpected(what: &str, value: &dyn fmt::Debug, wanted: &dyn fmt::Debug) -> Failure {
    Stage::failed(&format!("{what} gave {value:?} where {wanted:?} was expected"))
}
