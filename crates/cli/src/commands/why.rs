//! `meshx why A B`: the path of a connection, step by step, to the step that fails.

use std::time::Duration;

use meshx_core::{NodeName, ServiceName};
use meshx_proxy::{Event, Outcome, Step};
use meshx_rt::net;
use meshx_workload::admin::SidecarReport;
use serde::Serialize;

use crate::args::Why;
use crate::commands::{client, services};
use crate::failure::{Failure, exit};
use crate::output::Output;
use crate::sidecars::Sidecars;

/// Time to reach one sidecar.
const REACH_LIMIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Failed,
    Unknown,
}

#[derive(Debug, Serialize)]
struct Finding {
    step: Step,
    state: State,
    detail: String,
    code: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    schema: &'static str,
    source: String,
    destination: String,
    steps: Vec<Finding>,
    connected: bool,
    conclusion: String,
    next: Option<String>,
}

pub(crate) async fn run(arguments: &Why, output: Output) -> Result<u8, Failure> {
    let client = client(&arguments.control_plane)?;
    let (source, destination) = (&arguments.source, &arguments.destination);
    let sidecars = Sidecars::ask(&client).await?;
    let service = services::one(&client, destination.as_str()).await?;
    let verdict = meshx_consul::policy_now(&client).await?.judge(source, destination);
    let mut steps = Steps { list: Vec::new() };

    let known = client.catalog_services().await?.contains_key(source.as_str());
    if !known {
        steps.add(Step::Name, false, format!("no service `{source}` is registered to dial from"));
    }
    name_form(&mut steps, source, destination);
    name(&mut steps, &service);
    steps.add(Step::Policy, verdict.is_allowed(), verdict.to_string());
    certificate(&mut steps, source, sidecars.of(source.as_str()));
    reach(&mut steps, &service).await;

    let live = link(&sidecars, source, destination);
    let last = last_event(&sidecars, source, destination);
    if let Some(link) = &live {
        steps.add(Step::Handshake, true, link.clone());
    } else if let Some((step, detail)) = last.as_ref().and_then(handshake_failure) {
        steps.add(step, false, detail);
    }
    let failed = steps.list.iter().find(|finding| finding.state == State::Failed);
    let (conclusion, next) = match (&live, failed) {
        (Some(_), _) => ("connected".to_owned(), None),
        (None, None) => ("nothing stands in the way; not connected now".to_owned(), None),
        (None, Some(finding)) => (
            format!("not connected: {} ({})", finding.detail, finding.step),
            next_step(finding, source, destination),
        ),
    };
    let answer = Answer {
        schema: "meshx.why/1",
        source: source.to_string(),
        destination: destination.to_string(),
        connected: live.is_some(),
        steps: steps.list,
        conclusion,
        next,
    };
    let good = answer.connected || answer.steps.iter().all(|f| f.state != State::Failed);
    let known = known && answer.steps.iter().all(|f| f.step != Step::Name || f.state == State::Ok);
    output.data(&answer, text);
    Ok(match (good, known) {
        (true, _) => exit::SUCCESS,
        (false, true) => exit::NEGATIVE,
        (false, false) => exit::NOT_FOUND,
    })
}

struct Steps {
    list: Vec<Finding>,
}

impl Steps {
    fn add(&mut self, step: Step, good: bool, detail: impl Into<String>) {
        let state = if good { State::Ok } else { State::Failed };
        let code = (!good).then(|| step.code().to_string());
        self.list.push(Finding { step, state, detail: detail.into(), code });
    }

    fn unknown(&mut self, step: Step, detail: impl Into<String>) {
        self.list.push(Finding { step, state: State::Unknown, detail: detail.into(), code: None });
    }
}

fn text(answer: &Answer) -> String {
    let mut text = String::new();
    for (number, finding) in answer.steps.iter().enumerate() {
        let mark = match finding.state {
            State::Ok => "✓",
            State::Failed => "×",
            State::Unknown => "?",
        };
        let code = finding.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
        let (number, step) = (number + 1, finding.step.as_str());
        text.push_str(&format!("  {number} {mark} {step:<10} {}{code}\n", finding.detail));
    }
    text.push_str(&answer.conclusion);
    text.push('\n');
    if let Some(next) = &answer.next {
        text.push_str(&format!("  → next: {next}\n"));
    }
    text
}

fn name_form(steps: &mut Steps, source: &ServiceName, destination: &ServiceName) {
    let (Some(a), Some(b)) = (source.as_node(), destination.as_node()) else {
        if destination.as_node().is_some() {
            let detail = format!("{destination} is an Erlang node, {source} is not");
            steps.add(Step::NodeName, false, detail);
        }
        return;
    };
    let form = |node: &NodeName| {
        if node.form() == meshx_core::HostForm::Short { "short names" } else { "long names" }
    };
    let agree = a.form().agrees_with(b.form());
    let detail = if agree {
        format!("both use {}", form(&a))
    } else {
        format!("{a} uses {}, {b} uses {}: the VM refuses to mix them", form(&a), form(&b))
    };
    steps.add(Step::NameForm, agree, detail);
}

fn name(steps: &mut Steps, service: &services::ServiceRow) {
    let name = &service.name;
    if service.instances.is_empty() {
        steps.add(Step::Name, false, format!("no service `{name}` is registered"));
        return;
    }
    let passing = service.instances.iter().filter(|i| i.status != "critical").count();
    let total = service.instances.len();
    steps.add(Step::Name, true, format!("{name} is registered: {total} instances"));
    let why = service.instances.iter().find(|i| i.status == "critical");
    let why = why.map(|i| format!(" ({}: {})", i.id, i.output)).unwrap_or_default();
    steps.add(Step::Health, passing > 0, format!("{passing} of {total} passing{why}"));
}

fn certificate(steps: &mut Steps, source: &ServiceName, report: Option<&SidecarReport>) {
    match report {
        None => steps.unknown(
            Step::Tls,
            format!("the sidecar of {source} cannot be asked: it does not run here"),
        ),
        Some(report) => {
            let hours = report.certificate_seconds_left / 3600;
            let detail = format!("{} is valid for {hours} h", report.spiffe_id);
            steps.add(Step::Tls, report.certificate_seconds_left > 0, detail);
        }
    }
}

async fn reach(steps: &mut Steps, service: &services::ServiceRow) {
    let healthy = service.instances.iter().filter(|instance| instance.status != "critical");
    let addresses: Vec<(&str, &str)> =
        healthy.filter_map(|i| Some((i.id.as_str(), i.sidecar.as_deref()?))).collect();
    if addresses.is_empty() {
        return;
    }
    let mut answers = Vec::new();
    let mut reached = false;
    for (id, address) in addresses {
        let result = match address.parse() {
            Ok(parsed) => net::dial(parsed, REACH_LIMIT).await.map(drop).map_err(|e| e.to_string()),
            Err(_) => Err("it is not an IP address".to_owned()),
        };
        reached |= result.is_ok();
        answers.push(match result {
            Ok(()) => format!("the sidecar of {id} answers at {address}"),
            Err(error) => format!("the sidecar of {id} at {address}: {error}"),
        });
    }
    steps.add(Step::Reach, reached, answers.join("; "));
}

/// A live link between the two, whoever dialled.
fn link(sidecars: &Sidecars, a: &ServiceName, b: &ServiceName) -> Option<String> {
    let both_nodes = a.as_node().is_some() && b.as_node().is_some();
    let all = sidecars.reports.iter().flat_map(|report| &report.connections);
    let mut ours = all.filter(|c| {
        c.source == *a && c.destination == *b || both_nodes && c.source == *b && c.destination == *a
    });
    ours.next().map(|c| {
        let seconds = c.age_milliseconds / 1000;
        format!("{} → {} is up for {seconds} s, {} {}", c.source, c.destination, c.tls, c.cipher)
    })
}

/// The last thing that either sidecar saw of an attempt from `a` to `b`.
fn last_event(sidecars: &Sidecars, a: &ServiceName, b: &ServiceName) -> Option<Event> {
    let all = sidecars.reports.iter().flat_map(|report| &report.events);
    all.filter(|event| {
        event.source.as_deref() == Some(a.as_str()) && event.destination == b.as_str()
    })
    .filter(|event| !matches!(event.outcome, Outcome::Closed { .. }))
    .max_by_key(|event| event.at)
    .cloned()
}

/// The failure of the last attempt, at a step that only an attempt can show.
fn handshake_failure(event: &Event) -> Option<(Step, String)> {
    match &event.outcome {
        Outcome::Refused {
            step: Step::Name | Step::Health | Step::Policy | Step::Reach | Step::NameForm,
            ..
        } => None,
        Outcome::Refused { step, detail } => Some((*step, format!("last attempt: {detail}"))),
        _ => None,
    }
}

fn next_step(finding: &Finding, source: &ServiceName, destination: &ServiceName) -> Option<String> {
    Some(match finding.step {
        Step::Name => {
            let missing = if finding.detail.contains("dial from") { source } else { destination };
            format!("start it: meshx exec --name {missing} -- …")
        }
        Step::Health => format!("meshx services show {destination}"),
        Step::Policy => format!("meshx intentions allow {source} {destination}"),
        Step::Cookie => {
            "start both nodes with the same cookie (~/.erlang.cookie, -setcookie)".to_owned()
        }
        Step::NameForm => "give both hosts a dot, or neither".to_owned(),
        Step::Reach => "is the sidecar's machine up? does a firewall close its port?".to_owned(),
        _ => return None,
    })
}
