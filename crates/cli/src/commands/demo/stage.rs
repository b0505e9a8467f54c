//! Where the demo plays: a control plane in this process, members in processes of their own.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use meshx_agent::{Agent, AgentConfig};
use meshx_consul::{Client, Config};
use meshx_core::{Action, IntentionName};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, exit};
use crate::output::Output;
use crate::sidecars::Sidecars;

/// The longest that any step of the story may take.
const STEP_LIMIT: Duration = Duration::from_secs(20);

/// The control plane, and everybody who was started.
pub(crate) struct Stage {
    agent: Agent,
    pub(crate) client: Client,
    pub(crate) teller: Teller,
    members: Vec<Member>,
    step: u32,
    /// What every member finds in its environment.
    pub(crate) environment: Vec<(String, String)>,
}

/// Where the story is told: on stdout, or aside, where stdout is for data.
#[derive(Clone, Copy)]
pub(crate) struct Teller {
    pub(crate) output: Output,
    pub(crate) is_aside: bool,
}

/// One `meshx exec` with its program. It is spoken to line by line.
pub(crate) struct Member {
    child: Child,
    input: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    name: String,
}

impl Teller {
    pub(crate) fn story(self, text: &str) {
        if self.is_aside { self.output.say(text) } else { self.output.story(text) }
    }
}

impl Stage {
    /// Starts the control plane: on Consul's own port when the mesh is to stay and the port is
    /// free, on any free port otherwise.
    pub(crate) async fn open(keep: bool, teller: Teller) -> Result<Self, Failure> {
        let config = |port| AgentConfig {
            http_addr: SocketAddr::from(([127, 0, 0, 1], port)),
            dns_addr: None,
            node_name: "demo".to_owned(),
            ..AgentConfig::default()
        };
        let begun = Instant::now();
        let agent = match keep {
            true => match Agent::start(config(8500)).await {
                Ok(agent) => agent,
                Err(_taken) => Agent::start(config(0)).await?,
            },
            false => Agent::start(config(0)).await?,
        };
        let client = Client::new(Config::at(&agent.http_addr().to_string())?)?;
        let mut stage =
            Self { agent, client, teller, members: Vec::new(), step: 0, environment: Vec::new() };
        stage.step("a control plane for this machine starts");
        stage.show(&format!("meshx agent --http-addr {}", stage.agent.http_addr()));
        stage.tell(&format!(
            "ready in {} ms, trust domain {}",
            begun.elapsed().as_millis(),
            stage.agent.trust_domain()
        ));
        Ok(stage)
    }

    /// A new step of the story.
    pub(crate) fn step(&mut self, title: &str) {
        self.step += 1;
        self.teller.story(&format!("\n{}. {title}", self.step));
    }

    /// What a person would have typed.
    pub(crate) fn show(&self, command: &str) {
        self.teller.story(&format!("   $ {command}"));
    }

    /// What came of it.
    pub(crate) fn tell(&self, text: &str) {
        self.teller.story(&format!("     {text}"));
    }

    /// What somebody does who is called by this name.
    pub(crate) fn act(&self, name: &str, what: &str) {
        self.teller.story(&format!("   ({name})> {what}"));
    }

    /// What came of everything, for programs.
    pub(crate) fn report(&self, report: &serde_json::Value) {
        if self.teller.is_aside {
            self.teller.output.data(report, ToString::to_string);
        }
    }

    /// Starts a member, by `meshx ARGUMENTS`, and waits for its program to say that it runs.
    pub(crate) async fn start(
        &mut self,
        name: &str,
        arguments: &[&str],
        shown: &str,
    ) -> Result<usize, Failure> {
        self.show(shown);
        let mut command = Command::new("/proc/self/exe");
        // The story is told the same in every environment.
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("MESHX_") || text.starts_with("CONSUL_") {
                command.env_remove(&variable);
            }
        }
        let mut child = command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("CONSUL_HTTP_ADDR", self.agent.http_addr().to_string())
            // Ctrl-C is ours: we end the members in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::internal("start a member", &e))?;
        let input = child.stdin.take();
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::internal("start a member", &"no pipes"));
        };
        // Lines that a person at that terminal would see.
        let (teller, whose) = (self.teller, name.to_owned());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                teller.story(&format!("     [{whose}] {line}"));
            }
        });
        let answers = BufReader::new(stdout).lines();
        self.members.push(Member { child, input, answers, name: name.to_owned() });
        let place = self.members.len() - 1;
        self.expect(place, "ready").await?;
        Ok(place)
    }

    /// Says a line to a member's program and shows the answer, which must be as expected.
    pub(crate) async fn ask(
        &mut self,
        member: usize,
        shown: &str,
        line: &str,
        expected: &str,
    ) -> Result<(), Failure> {
        let name = self.members[member].name.clone();
        self.act(&name, shown);
        self.send(member, line).await?;
        let answer = self.expect(member, expected).await?;
        self.tell(&answer);
        Ok(())
    }

    /// What any two nodes show: mutual TLS between them, a deny that cuts their link, an allow that
    /// heals it. `connect` is what the second one is shown to be asked, and what it reads for that.
    pub(crate) async fn deny_and_allow(
        &mut self,
        node2: usize,
        connect: (&str, &str),
        nodes: &str,
    ) -> Result<(), Failure> {
        self.step(
            "what is on the wire: mutual TLS between two sidecars, each proving its node's name",
        );
        self.wire().await?;

        self.step("deny: the live link is cut");
        self.show("meshx intentions deny node2@demo node1@demo");
        let begun = Instant::now();
        self.put("node2@demo", "node1@demo", Action::Deny).await?;
        self.ask_until(node2, nodes, "[]").await?;
        let cut = begun.elapsed().as_millis();
        self.tell(&format!("node2 saw the link go down {cut} ms after the command"));
        self.ask(node2, connect.0, connect.1, "false").await?;

        self.step("allow: they can connect again");
        self.show("meshx intentions allow node2@demo node1@demo");
        self.put("node2@demo", "node1@demo", Action::Allow).await?;
        let healed = self.ask_until(node2, connect.1, "true").await?;
        self.tell(&format!("connected again {} ms later", healed.as_millis()));
        Ok(())
    }

    /// Asks again and again until the answer is as expected; says how long that took.
    pub(crate) async fn ask_until(
        &mut self,
        member: usize,
        line: &str,
        expected: &str,
    ) -> Result<Duration, Failure> {
        let begun = Instant::now();
        loop {
            self.send(member, line).await?;
            let answer = self.answer(member).await?;
            if answer == expected {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > STEP_LIMIT {
                return Err(self.unexpected(member, expected, &answer));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Sets the intentions of a pair both ways and counts the links that live meanwhile.
    pub(crate) async fn put(&self, a: &str, b: &str, action: Action) -> Result<(), Failure> {
        let (a, b) = (Self::name(a)?, Self::name(b)?);
        self.client.put_intention(&a, &b, action).await?;
        Ok(self.client.put_intention(&b, &a, action).await?)
    }

    fn name(text: &str) -> Result<IntentionName, Failure> {
        text.parse().map_err(|e| Failure::internal("name a service", &e))
    }

    /// What the sidecars see of each other.
    pub(crate) async fn wire(&self) -> Result<(), Failure> {
        let sidecars = Sidecars::ask(&self.client).await?;
        let all = sidecars.reports.iter().flat_map(|r| r.connections.iter().map(move |c| (r, c)));
        for (report, c) in all {
            let direction = match c.direction {
                meshx_proxy::Direction::Inbound => "accepted from",
                meshx_proxy::Direction::Outbound => "dialled",
            };
            self.tell(&format!(
                "sidecar of {}: {direction} {}   {} {}",
                report.service, c.remote, c.tls, c.cipher
            ));
            self.tell(&format!("   peer proved {} (serial {})", c.peer, c.peer_serial));
            self.tell(&format!("   {} bytes out, {} bytes back", c.sent, c.received));
        }
        Ok(())
    }

    async fn send(&mut self, member: usize, line: &str) -> Result<(), Failure> {
        let member = &mut self.members[member];
        let Some(input) = member.input.as_mut() else { return Ok(()) };
        let written = input.write_all(format!("{line}\n").as_bytes()).await;
        written.map_err(|e| Failure::internal(&format!("talk to {}", member.name), &e))
    }

    /// The next line that is an answer; what else the program prints is passed over.
    async fn answer(&mut self, member: usize) -> Result<String, Failure> {
        let member = &mut self.members[member];
        let next = async {
            while let Some(line) = member.answers.next_line().await? {
                if let Some(answer) = line.strip_prefix("=> ") {
                    return Ok(Some(answer.to_owned()));
                }
            }
            Ok::<_, std::io::Error>(None)
        };
        match tokio::time::timeout(STEP_LIMIT, next).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(Self::failed(&format!("{} ended", member.name))),
            Ok(Err(error)) => Err(Self::failed(&format!("{}: {error}", member.name))),
            Err(_) => Err(Self::failed(&format!("{} did not answer", member.name))),
        }
    }

    async fn expect(&mut self, member: usize, expected: &str) -> Result<String, Failure> {
        let answer = self.answer(member).await?;
        if answer == expected {
            Ok(answer)
        } else {
            Err(self.unexpected(member, expected, &answer))
        }
    }

    fn unexpected(&self, member: usize, expected: &str, answer: &str) -> Failure {
        let name = &self.members[member].name;
        Self::failed(&format!("{name} answered `{answer}` where `{expected}` was expected"))
    }

    pub(crate) fn failed(what: &str) -> Failure {
        Failure::new(309, exit::NEGATIVE, format!("the demo failed: {what}"))
    }

    /// Kills a member without a warning, and waits until it is dead.
    pub(crate) async fn kill(&mut self, member: usize) -> Result<(), Failure> {
        let Member { child, name, .. } = &mut self.members[member];
        if let Some(pid) = child.id() {
            self.teller.story(&format!("   $ kill -9 {pid}"));
        }
        match tokio::time::timeout(STEP_LIMIT, child.kill()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Self::failed(&format!("{name} cannot be killed"))),
        }
    }

    /// Leaves everything running until Ctrl-C.
    pub(crate) async fn keep_open(&mut self, hints: &[String]) {
        let address = self.agent.http_addr();
        let export =
            (address.port() != 8500).then(|| format!("   export CONSUL_HTTP_ADDR={address}"));
        self.teller.story("\nThe mesh stays until Ctrl-C. In another terminal:");
        for hint in export.iter().chain(hints) {
            self.teller.story(hint);
        }
        let (Ok(mut int), Ok(mut term)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
    }

    /// Ends the members and the control plane.
    pub(crate) async fn close(mut self) {
        for member in &mut self.members {
            // The program reads the end of its input and stops by itself.
            member.input = None;
        }
        for member in &mut self.members {
            if tokio::time::timeout(Duration::from_secs(5), member.child.wait()).await.is_err() {
                let pid = member.child.id().and_then(|id| i32::try_from(id).ok());
                if let Some(pid) = pid.and_then(Pid::from_raw) {
                    let _gone_already = rustix::process::kill_process(pid, Signal::TERM);
                }
                drop(tokio::time::timeout(Duration::from_secs(5), member.child.wait()).await);
            }
        }
        self.agent.shutdown().await;
    }
}
