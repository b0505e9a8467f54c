//! One instance, kept registered whatever the agent does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use meshx_consul::{Instance, Registration};
use meshx_core::{Code, Diagnostic, Health};
use serde_json::{Value, json};

use crate::agent::{Agent, Asked, Reply, client, eventually, nobody, skip, soon};

/// How often an instance says that it lives, well within its TTL of 15 s.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// What the agent remembers, and how it behaves.
#[derive(Default)]
struct Memory {
    services: BTreeMap<String, Value>,
    /// The state and output of the check, by its id.
    checks: BTreeMap<String, (String, String)>,
    registrations: usize,
    /// The status for a check that is not known: 404, or 500 in 1.8.
    unknown: u16,
    /// How long a registration takes.
    slow: Duration,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Memory>>);

impl Shared {
    fn new(unknown: u16) -> Self {
        let shared = Self::default();
        shared.with(|memory| memory.unknown = unknown);
        shared
    }

    fn with<T>(&self, read: impl FnOnce(&mut Memory) -> T) -> T {
        read(&mut self.0.lock().unwrap())
    }

    fn knows(&self, id: &str) -> bool {
        self.with(|memory| memory.services.contains_key(id))
    }

    fn check(&self) -> Option<(String, String)> {
        self.with(|memory| memory.checks.get("meshx:web-1").cloned())
    }

    fn forget(&self) {
        self.with(|memory| {
            memory.services.clear();
            memory.checks.clear();
        });
    }

    /// The agent's answer to one request.
    fn answer(&self, asked: &Asked) -> Reply {
        let path = asked.target.split('?').next().unwrap();
        let tail = path.rsplit('/').next().unwrap().to_owned();
        self.with(|memory| {
            if path == "/v1/agent/service/register" {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                memory.services.insert(text(&asked.body["ID"]), asked.body.clone());
                let sidecar = &asked.body["Connect"]["SidecarService"]["Checks"][0];
                for check in [&asked.body["Check"], sidecar].iter().filter(|c| c.is_object()) {
                    let state = (text(&check["Status"]), String::new());
                    memory.checks.insert(text(&check["CheckID"]), state);
                }
                memory.registrations += 1;
                Reply::ok("").after(memory.slow)
            } else if path.starts_with("/v1/agent/check/update/") {
                let Some(state) = memory.checks.get_mut(&tail) else {
                    let text = format!("CheckID \"{tail}\" does not have associated TTL");
                    return Reply::status(memory.unknown, text);
                };
                let text = |name: &str| asked.body[name].as_str().unwrap().to_owned();
                *state = (text("Status"), text("Output"));
                Reply::ok("")
            } else if path.starts_with("/v1/agent/service/deregister/") {
                memory.services.remove(&tail);
                memory.checks.clear();
                Reply::ok("")
            } else if path.starts_with("/v1/health/connect/") {
                let sidecar = "meshx:web-1-sidecar-proxy";
                let passing = memory.checks.get(sidecar).map(|(state, _)| state.clone());
                Reply::at(5, json!([{
                    "Node": {"Node": "n", "Address": "127.0.0.1", "Datacenter": "dc1"},
                    "Service": {"ID": "web-1-sidecar-proxy", "Address": "127.0.0.1", "Port": 20000},
                    "Checks": [{"CheckID": "c", "Status": passing.unwrap_or("critical".into())}],
                }]))
            } else {
                Reply::status(404, "")
            }
        })
    }

    fn agent(&self) -> Agent {
        self.agent_at(([127, 0, 0, 1], 0).into())
    }

    fn agent_at(&self, address: SocketAddr) -> Agent {
        let shared = self.clone();
        Agent::at(address, move |asked| shared.answer(asked))
    }
}

fn instance() -> Instance {
    Instance::new(
        "web".parse().unwrap(),
        "web-1".parse().unwrap(),
        Some(([127, 0, 0, 1], 8080).into()),
        Some(([10, 0, 0, 5], 20000).into()),
        vec!["v1".to_owned()],
        BTreeMap::from([("key".to_owned(), "value".to_owned())]),
    )
}

#[tokio::test]
async fn what_is_registered() {
    let memory = Shared::new(404);
    let agent = memory.agent();
    let _registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
    assert_eq!(agent.lines()[0], "PUT /v1/agent/service/register?replace-existing-checks=true");
    assert_eq!(
        agent.asked()[0].body,
        json!({
            "ID": "web-1", "Name": "web", "Tags": ["v1"], "Meta": {"key": "value"},
            "Address": "127.0.0.1", "Port": 8080,
            "Check": {
                "CheckID": "meshx:web-1", "Name": "Program and sidecar", "TTL": "15s",
                "Status": "critical", "DeregisterCriticalServiceAfter": "10m0s",
            },
            "Connect": {"SidecarService": {
                "Address": "10.0.0.5", "Port": 20000,
                "Checks": [{
                    "CheckID": "meshx:web-1-sidecar-proxy", "Name": "Sidecar", "TTL": "15s",
                    "Status": "critical", "DeregisterCriticalServiceAfter": "10m0s",
                }],
                "Proxy": {"LocalServiceAddress": "127.0.0.1", "LocalServicePort": 8080},
            }},
        })
    );
}

#[tokio::test]
async fn an_agent_that_is_away_is_an_error_at_the_start() {
    let address = nobody().to_string();
    let error = soon(Registration::start(client(&address), instance())).await.unwrap_err();
    assert_eq!(error.code(), Code(101));
    let agent = Agent::new(|_| Reply::status(403, "Permission denied"));
    let error = soon(Registration::start(agent.client(), instance())).await.unwrap_err();
    assert_eq!(error.code(), Code(106));
}

#[tokio::test]
async fn health_is_told_at_once_and_then_again_and_again() {
    let memory = Shared::new(404);
    let agent = memory.agent();
    let registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
    let begun = Instant::now();
    registration.set_health(Health::Passing, "it listens");
    let wanted = Some(("passing".to_owned(), "it listens".to_owned()));
    eventually("the state", || memory.check() == wanted).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    soon(registration.visible(Duration::from_secs(1))).await.unwrap();
    registration.set_health(Health::Critical, "it crashed");
    let wanted = Some(("critical".to_owned(), "it crashed".to_owned()));
    eventually("the state", || memory.check() == wanted).await;

    memory.with(|m| *m.checks.get_mut("meshx:web-1").unwrap() = ("expired".into(), String::new()));
    skip(HEARTBEAT).await;
    eventually("a heartbeat", || memory.check() == wanted).await;
    assert_eq!(memory.with(|memory| memory.registrations), 1);
}

#[tokio::test]
async fn an_instance_that_is_not_seen_is_an_error_in_time() {
    let memory = Shared::new(404);
    let agent = memory.agent();
    let registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
    let error = soon(registration.visible(Duration::from_millis(200))).await.unwrap_err();
    assert!(error.to_string().contains("not shown as passing after 200ms"), "{error}");
}

#[tokio::test]
async fn where_the_program_listens_may_be_known_later() {
    let memory = Shared::new(404);
    let agent = memory.agent();
    let mut unknown = instance();
    unknown.local = None;
    let registration = soon(Registration::start(agent.client(), unknown)).await.unwrap();
    registration.set_health(Health::Passing, "it listens");
    registration.set_local(([127, 0, 0, 1], 9999).into());
    eventually("the port", || memory.with(|m| m.services["web-1"]["Port"] == 9999)).await;
    eventually("still passing", || memory.check().is_some_and(|c| c.0 == "passing")).await;
}

/// The agent lost everything, and answers as 1.8 does, or as later releases do.
#[tokio::test]
async fn a_lost_registration_is_made_again() {
    for unknown in [404, 500] {
        let memory = Shared::new(unknown);
        let agent = memory.agent();
        let registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
        registration.set_health(Health::Passing, "it listens");
        eventually("the state", || memory.check().is_some_and(|c| c.0 == "passing")).await;
        memory.forget();
        skip(HEARTBEAT).await;
        eventually("it is registered", || memory.knows("web-1")).await;
        let again =
            agent.asked().into_iter().rev().find(|a| a.target.contains("register?")).unwrap();
        assert_eq!(again.body["Check"]["Status"], "passing", "peers see no gap");
        let told = || memory.check() == Some(("passing".to_owned(), "it listens".to_owned()));
        eventually("the state", told).await;
        drop(registration);
    }
}

#[tokio::test]
async fn an_agent_that_went_and_came_back_without_memory() {
    let memory = Shared::new(404);
    let address = nobody();
    let agent = memory.agent_at(address);
    let registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
    registration.set_health(Health::Passing, "it listens");
    eventually("the state", || memory.check().is_some_and(|c| c.0 == "passing")).await;
    agent.kill().await;
    memory.forget();
    tokio::time::sleep(Duration::from_secs(4)).await;
    registration.set_health(Health::Warning, "changed while it was away");
    let back = Instant::now();
    let _agent = memory.agent_at(address);
    let told = ("warning".to_owned(), "changed while it was away".to_owned());
    eventually("it is registered", || memory.check() == Some(told.clone())).await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    assert!(memory.knows("web-1"));
}

#[tokio::test]
async fn an_agent_that_errs_for_a_while_is_not_flooded() {
    let memory = Shared::new(500);
    let (broken, shared) = (Arc::new(AtomicBool::new(false)), memory.clone());
    let switch = Arc::clone(&broken);
    let agent = Agent::new(move |asked| {
        if switch.load(Ordering::SeqCst) {
            Reply::status(500, "No cluster leader")
        } else {
            shared.answer(asked)
        }
    });
    let registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    let before = agent.asked().len();
    registration.set_health(Health::Passing, "it listens");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // Two at a time: the update is refused as if it were unknown, and so is the registration.
    let asked = agent.asked().len() - before;
    assert!(asked <= 14, "{asked} requests in 1.5 s");
    memory.forget();
    broken.store(false, Ordering::SeqCst);
    let told = ("passing".to_owned(), "it listens".to_owned());
    eventually("it is registered", || memory.check() == Some(told.clone())).await;
}

#[tokio::test]
async fn deregistering_takes_it_out_and_stops_the_keeper() {
    let memory = Shared::new(404);
    let agent = memory.agent();
    let registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
    soon(registration.deregister()).await.unwrap();
    assert!(!memory.knows("web-1"));
    assert_eq!(agent.lines().pop().unwrap(), "PUT /v1/agent/service/deregister/web-1");
    skip(2 * HEARTBEAT).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!memory.knows("web-1"), "and it does not come back");
}

/// The keeper is in the middle of a registration that takes its time.
#[tokio::test]
async fn deregistering_during_a_registration_takes_it_out_as_well() {
    let memory = Shared::default();
    let shared = memory.clone();
    // What was asked takes effect when it is answered.
    let agent = Agent::new(move |asked| {
        if asked.target.contains("register?") && shared.knows("web-1") {
            let (late, asked) = (shared.clone(), asked.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                drop(late.answer(&asked));
            });
            return Reply::ok("").after(Duration::from_millis(300));
        }
        shared.answer(asked)
    });
    let registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
    let before = agent.asked().len();
    registration.set_local(([127, 0, 0, 1], 9999).into());
    eventually("the second registration", || {
        agent.asked()[before..].iter().any(|asked| asked.target.contains("register?"))
    })
    .await;
    soon(registration.deregister()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!memory.knows("web-1"), "it came back: {:?}", agent.lines());
}

#[tokio::test]
async fn deregistering_from_an_agent_that_hangs_ends_in_time() {
    let agent = Agent::new(|asked| {
        if asked.target.contains("/deregister/") { Reply::never() } else { Reply::ok("") }
    });
    let registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
    let begun = Instant::now();
    let error = soon(registration.deregister()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(error.to_string().contains("deregister web-1"), "{error}");
}

#[tokio::test]
async fn dropping_takes_the_registration_out_in_the_background() {
    let memory = Shared::new(404);
    let agent = memory.agent();
    let registration = soon(Registration::start(agent.client(), instance())).await.unwrap();
    assert!(memory.knows("web-1"));
    // Outside of any runtime, as at the end of a synchronous owner.
    std::thread::spawn(move || drop(registration)).join().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!memory.knows("web-1"));
    let asked = agent.asked().len();
    skip(2 * HEARTBEAT).await;
    assert_eq!(agent.asked().len(), asked, "nobody renews it");
}
