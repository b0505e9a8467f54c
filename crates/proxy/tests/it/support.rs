//! A small mesh: one authority, programs that count who reaches them, sidecars beside them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::forge::Forge;
use meshx_core::{Action, Endpoint, Intention, IntentionSet, ServiceName, SpiffeId, TrustDomain};
use meshx_identity::ca::CertificateAuthority;
use meshx_identity::{Identity, Material};
use meshx_proxy::{
    EndpointView, Event, Journal, OpenUpstream, Outcome, Protocol, Sidecar, SidecarConfig, Step,
};
use meshx_rt::net;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What nothing on loopback may take longer than, unless it hangs.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) type Policy = watch::Sender<Arc<IntentionSet>>;

pub(crate) fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// A trust domain with its root and its intentions.
pub(crate) struct Mesh {
    pub(crate) domain: TrustDomain,
    pub(crate) ca: CertificateAuthority,
    /// The same root, for certificates that `ca` would not issue.
    pub(crate) forge: Forge,
    pub(crate) policy: Policy,
    serial: AtomicU64,
}

impl Mesh {
    /// Everything is allowed.
    pub(crate) fn new() -> Self {
        let domain: TrustDomain = "11111111-2222-3333-4444-555555555555.consul".parse().unwrap();
        let (ca, forge) = Forge::authority(&domain);
        Self { domain, ca, forge, policy: policy(&[]), serial: AtomicU64::new(100) }
    }

    /// Replaces the intentions; what they do not name is allowed.
    pub(crate) fn decide(&self, rules: &[(&str, &str, Action)]) {
        self.policy.send_replace(rule_set(rules));
    }

    pub(crate) fn id(&self, service: &str) -> SpiffeId {
        SpiffeId::new(self.domain.clone(), "dc1", name(service))
    }

    /// A leaf that is valid from a minute before `from` for `life` after it.
    pub(crate) fn material_from(
        &self,
        service: &str,
        from: SystemTime,
        life: Duration,
    ) -> Material {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let leaf = self.ca.issue(&self.id(service), serial, from, life).unwrap();
        Material::from_pem(&leaf.cert_pem, &leaf.key_pem, [self.ca.cert_pem()]).unwrap()
    }

    pub(crate) fn material(&self, service: &str) -> Material {
        self.material_from(service, SystemTime::now(), Duration::from_hours(72))
    }

    pub(crate) fn identity(&self, service: &str) -> Identity {
        Identity::new(self.material(service)).unwrap()
    }

    /// A sidecar of `service` in front of `program`, with the mesh's intentions.
    pub(crate) fn station(
        &self,
        service: &str,
        protocol: Protocol,
        program: SocketAddr,
    ) -> Station {
        Station::start(service, protocol, self.identity(service), &self.policy, Some(program))
    }

    /// A sidecar of a service that only dials.
    pub(crate) fn caller(&self, service: &str, protocol: Protocol) -> Station {
        Station::start(service, protocol, self.identity(service), &self.policy, None)
    }
}

pub(crate) fn rule_set(rules: &[(&str, &str, Action)]) -> Arc<IntentionSet> {
    let rules = rules
        .iter()
        .map(|(source, destination, action)| {
            Intention::new(source.parse().unwrap(), destination.parse().unwrap(), *action)
        })
        .collect();
    Arc::new(IntentionSet::new(rules, Action::Allow))
}

pub(crate) fn policy(rules: &[(&str, &str, Action)]) -> Policy {
    watch::Sender::new(rule_set(rules))
}

/// A sidecar with what moves it.
pub(crate) struct Station {
    pub(crate) sidecar: Sidecar,
    pub(crate) public: SocketAddr,
    pub(crate) target: watch::Sender<Option<SocketAddr>>,
    pub(crate) journal: Journal,
}

/// A local address that leads to a service.
pub(crate) struct Door {
    pub(crate) local: SocketAddr,
    pub(crate) view: watch::Sender<EndpointView>,
    pub(crate) open: OpenUpstream,
}

impl Station {
    pub(crate) fn start(
        service: &str,
        protocol: Protocol,
        identity: Identity,
        policy: &Policy,
        program: Option<SocketAddr>,
    ) -> Self {
        let public = listen();
        let address = public.local_addr().unwrap();
        let target = watch::Sender::new(program);
        let journal = Journal::new(|_| {});
        let config = SidecarConfig::new(
            name(service),
            protocol,
            identity,
            policy.subscribe(),
            target.subscribe(),
            journal.clone(),
        );
        Self { sidecar: Sidecar::start(config, public), public: address, target, journal }
    }

    /// Opens a door to these instances of `destination`.
    pub(crate) fn open(
        &self,
        destination: &str,
        protocol: Protocol,
        instances: &[SocketAddr],
    ) -> Door {
        let listener = listen();
        let local = listener.local_addr().unwrap();
        let view = watch::Sender::new(view(instances));
        let open = self.sidecar.open(name(destination), protocol, vec![listener], view.subscribe());
        Door { local, view, open }
    }

    /// How many attempts were refused at `step`.
    pub(crate) fn refused(&self, step: Step) -> u64 {
        self.journal.refused().iter().find(|(s, _)| *s == step).map_or(0, |(_, count)| *count)
    }

    pub(crate) fn live(&self) -> usize {
        self.sidecar.connections().len()
    }

    /// Waits for a refusal, and says why it was.
    pub(crate) async fn refusal(&self, step: Step) -> String {
        eventually(&format!("a refusal at {step}"), || self.refused(step) > 0).await;
        let events = self.journal.events();
        let detail = events.iter().rev().find_map(|event| match &event.outcome {
            Outcome::Refused { step: s, detail } if *s == step => Some(detail.clone()),
            _ => None,
        });
        detail.unwrap()
    }

    /// Waits until something like this happened.
    pub(crate) async fn event(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        eventually(what, || self.journal.events().iter().any(&wanted)).await;
        self.journal.events().into_iter().rev().find(|event| wanted(event)).unwrap()
    }
}

pub(crate) fn view(instances: &[SocketAddr]) -> EndpointView {
    let endpoints = instances
        .iter()
        .enumerate()
        .map(|(number, address)| Endpoint {
            address: *address,
            id: format!("instance-{number}").parse().unwrap(),
            datacenter: "dc1".to_owned(),
        })
        .collect();
    EndpointView::new(endpoints, true)
}

/// A program that listens, counts who reaches it, and serves each connection in its own way.
pub(crate) struct Program {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Program {
    pub(crate) fn serving<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Self { address, accepted, task }
    }

    /// Says back what it hears, until it hears the end.
    pub(crate) fn echo() -> Self {
        Self::serving(async |mut stream: TcpStream| {
            let (mut read, mut write) = stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        })
    }

    /// Connections that reached it.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn listen() -> TcpListener {
    net::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

pub(crate) async fn dial(address: SocketAddr) -> TcpStream {
    net::dial(address, SOON).await.unwrap()
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, net::free_port().unwrap()).into()
}

/// Asks an echo, and is sure of the answer.
pub(crate) async fn talk(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), word: &[u8]) {
    assert!(answers(stream, word).await, "no echo");
}

/// True when the echo answers.
pub(crate) async fn answers(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    word: &[u8],
) -> bool {
    let exchange = async {
        stream.write_all(word).await?;
        let mut answer = vec![0; word.len()];
        stream.read_exact(&mut answer).await?;
        assert_eq!(answer, word);
        std::io::Result::Ok(())
    };
    tokio::time::timeout(SOON, exchange).await.expect("neither an answer nor an end").is_ok()
}

/// Waits until the other side ends the connection, in whatever way; gives what it said before.
pub(crate) async fn end_of(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut said = Vec::new();
    let read = stream.read_to_end(&mut said);
    drop(tokio::time::timeout(SOON, read).await.expect("the connection does not end"));
    said
}

/// True while the other side has neither ended the connection nor said anything.
pub(crate) async fn is_quiet(stream: &TcpStream) -> bool {
    tokio::time::timeout(Duration::from_millis(100), stream.peek(&mut [0])).await.is_err()
}

pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets `time` pass for every timer of this test at once. Nothing may be under way that should
/// happen before.
pub(crate) async fn skip(time: Duration) {
    tokio::time::sleep(Duration::from_millis(150)).await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
