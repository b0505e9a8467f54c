//! Nodes that meet by Unix sockets.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use meshx_node::carrier::{Carrier, Myself, Unix};
use meshx_node::etf::term;
use meshx_node::{Signal, StartError};
use tokio::task::JoinSet;

use crate::{builder, next};

/// A folder for one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("meshx-{}", meshx_rt::random::hex(16));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn carrier(&self) -> Unix {
        Unix::new(&self.0)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}@127.0.0.1"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn me() -> Myself {
    Myself { name: "a@127.0.0.1".to_owned(), hidden: true }
}

#[tokio::test]
async fn two_nodes_talk_by_sockets() {
    let folder = Folder::new();
    let a = builder("a").carrier(folder.carrier()).start().await.unwrap();
    let b = builder("b").carrier(folder.carrier()).start().await.unwrap();
    let (from, mut to) = (a.mailbox().unwrap(), b.mailbox().unwrap());
    from.send_term(to.pid(), &term!(hello)).await.unwrap();
    let Signal::Message(message) = next(&mut to).await else { panic!() };
    assert_eq!(
        (message.body.term().unwrap(), message.from.unwrap()),
        (term!(hello), from.pid().clone())
    );
    let again = builder("a").carrier(folder.carrier()).start().await.map(drop).unwrap_err();
    assert!(matches!(again, StartError::Listen { .. }), "{again}");
    assert!(again.to_string().contains("listens at"), "{again}");
    a.stop().await;
    assert!(!folder.socket("a").exists());
    let a = builder("a").carrier(folder.carrier()).start().await.unwrap();
    b.connect(a.name()).await.unwrap();
}

/// However many start at once, one of them listens, and is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_starts_at_once_one_succeeds() {
    for _ in 0..50 {
        let folder = Arc::new(Folder::new());
        let mut starts = JoinSet::new();
        for _ in 0..8 {
            let folder = Arc::clone(&folder);
            starts.spawn(async move { folder.carrier().listen(&me()).await });
        }
        let all = starts.join_all().await;
        let (one, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
        assert_eq!(one.len(), 1);
        for error in refused {
            assert_eq!(error.map(drop).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
        folder.carrier().dial(&me().name).await.unwrap();
    }
}

#[tokio::test]
async fn a_socket_is_taken_away_by_whose_it_is() {
    let folder = Folder::new();
    let path = folder.socket("a");
    // A killed node leaves its socket.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listening = folder.carrier().listen(&me()).await.unwrap();
    // Somebody else takes the place.
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(listening);
    folder.carrier().dial(&me().name).await.unwrap();
    let taken = folder.carrier().listen(&me()).await.map(drop).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    drop(other);
    folder.carrier().listen(&me()).await.unwrap();
}
