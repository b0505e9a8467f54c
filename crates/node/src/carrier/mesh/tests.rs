//! The upstreams of a carrier over a mesh that counts what is open.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};

use meshx_core::{Code, Diagnostic, Lease, MeshError};

use super::*;

/// Counts services and upstreams; leads nowhere.
#[derive(Clone, Default)]
struct Counting {
    services: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

#[derive(Debug, thiserror::Error)]
#[error("no such thing")]
struct Refused;

impl Diagnostic for Refused {
    fn code(&self) -> Code {
        Code(706)
    }

    fn hint(&self) -> Option<String> {
        Some("ask for it".to_owned())
    }
}

impl ServiceMesh for Counting {
    async fn start(&self, service: Service) -> Result<Running, MeshError> {
        self.services.fetch_add(1, Ordering::SeqCst);
        let services = Arc::clone(&self.services);
        let local = service.local.unwrap();
        Ok(Running {
            name: service.name,
            id: service.id,
            local,
            public: local,
            lease: Lease::new(move || _ = services.fetch_sub(1, Ordering::SeqCst)),
        })
    }

    async fn ready(&self, _: &Running, _: Duration) -> Result<(), MeshError> {
        Ok(())
    }

    async fn stop(&self, _: Running) -> Result<(), MeshError> {
        self.stopped.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn connect(&self, _: &Running, upstream: Upstream) -> Result<Connected, MeshError> {
        if upstream.destination.as_str() == "refused@h" {
            return Err(MeshError::new("connect", Refused));
        }
        if upstream.destination.as_str() == "silent@h" {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        self.open.fetch_add(1, Ordering::SeqCst);
        self.opened.fetch_add(1, Ordering::SeqCst);
        let open = Arc::clone(&self.open);
        let lease = Lease::new(move || _ = open.fetch_sub(1, Ordering::SeqCst));
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Ok(Connected { destination: upstream.destination, local, lease })
    }

    async fn disconnect(&self, _: Connected) -> Result<(), MeshError> {
        Ok(())
    }

    fn last_failure(&self, _: &Running, peer: &ServiceName, _: Duration) -> Option<MeshError> {
        (peer.as_str() == "refused@h").then(|| MeshError::new("connect", Refused))
    }
}

async fn listening() -> (Counting, Mesh<Counting>) {
    let counting = Counting::default();
    let mesh = Mesh::new(counting.clone());
    let me = Myself { name: "me@h".to_owned(), hidden: false };
    // Nobody is to be accepted here.
    drop(mesh.listen(&me).await.unwrap());
    (counting, mesh)
}

async fn upstream(mesh: &Mesh<Counting>, node: &str) -> io::Result<SocketAddr> {
    mesh.0.upstream(&node.parse().unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn an_upstream_is_shared_and_closed_when_it_is_not_used() {
    let (counting, mesh) = listening().await;
    let open = || counting.open.load(Ordering::SeqCst);
    let (a, b) = tokio::join!(upstream(&mesh, "a@h"), upstream(&mesh, "a@h"));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(open(), 1);
    tokio::time::sleep(UNUSED * 3 / 4).await;
    upstream(&mesh, "a@h").await.unwrap();
    upstream(&mesh, "b@h").await.unwrap();
    tokio::time::sleep(UNUSED * 3 / 4).await;
    assert_eq!((open(), counting.opened.load(Ordering::SeqCst)), (2, 2), "it was used");
    tokio::time::sleep(UNUSED).await;
    assert_eq!(open(), 0);
    // And again, after whoever looked after them has ended.
    upstream(&mesh, "a@h").await.unwrap();
    tokio::time::sleep(UNUSED * 2).await;
    assert_eq!((open(), counting.opened.load(Ordering::SeqCst)), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn upstreams_are_bounded_and_end_with_the_carrier() {
    let (counting, mesh) = listening().await;
    for number in 0..UPSTREAMS + 10 {
        upstream(&mesh, &format!("n{number}@h")).await.unwrap();
    }
    assert_eq!(counting.open.load(Ordering::SeqCst), UPSTREAMS);
    // The last one is still there.
    upstream(&mesh, &format!("n{}@h", UPSTREAMS + 9)).await.unwrap();
    assert_eq!(counting.opened.load(Ordering::SeqCst), UPSTREAMS + 10);
    drop(mesh);
    assert_eq!(counting.open.load(Ordering::SeqCst), 0);
    assert_eq!(counting.services.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_keeps_its_code_and_hint() {
    let (_, mesh) = listening().await;
    let refused = mesh.dial("refused@h").await.unwrap_err();
    let told = mesh.why_closed("refused@h").unwrap();
    for reason in [refused, told] {
        let node = meshx_etf::Atom::cut("refused@h");
        let error = crate::ConnectError::Reach { node, reason: Arc::new(reason) };
        assert_eq!(error.code(), Code(706));
        assert_eq!(error.hint().as_deref(), Some("ask for it"));
        assert!(error.to_string().contains("no such thing"), "{error}");
    }
    assert!(mesh.why_closed("a@h").is_none());
    assert!(mesh.dial("no name").await.is_err());
}

/// A dial that is on its way when the node stops does not keep the service in the mesh.
#[tokio::test(start_paused = true)]
async fn a_dial_does_not_keep_the_service() {
    let (counting, mesh) = listening().await;
    assert!(mesh.proves_names());
    let stopped = || counting.stopped.load(Ordering::SeqCst);
    // The node gives it up soon.
    let dial = tokio::time::timeout(Duration::from_millis(300), mesh.dial("silent@h"));
    let (dialled, undone) = tokio::join!(dial, async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        mesh.stop().await
    });
    assert!(dialled.is_err());
    undone.unwrap();
    assert_eq!(stopped(), 1);
    assert!(mesh.stop().await.is_ok() && stopped() == 1, "once is enough");
    // One that does not let go is said.
    let (_, mesh) = listening().await;
    let dial = tokio::time::timeout(RELEASED * 2, mesh.dial("silent@h"));
    let (_, undone) = tokio::join!(dial, async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        mesh.stop().await
    });
    assert_eq!(undone.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
