//! A client that lives as long as one command.

use std::sync::Arc;
use std::time::Instant;

use meshx_rpc::event::{Event, Pretty};
use meshx_rpc::transport::{Tcp, Unix};
use meshx_rpc::{Client, ClientBuilder, Codec, Error, Kind, Peer};
use tokio::sync::{Notify, watch};

use super::failing::failure;
use super::key::key;
use super::member::Member;
use crate::args::rpc::{Address, Reach};
use crate::commands::node::interruptions;
use crate::failure::{Failure, exit};
use crate::output::Output;

/// The client that asks.
///
/// One that lives longer dials until a call's time is over. Who sits at a terminal would rather know at
/// once that nobody is there, so the first attempt decides.
pub(super) struct Asking {
    pub(super) client: Client,
    /// What is known of the connections.
    pub(super) dialled: watch::Receiver<Dialled>,
    /// Who asks, in the mesh.
    member: Option<Member>,
    /// Told of each signal that ends a program.
    interrupted: Arc<Notify>,
}

/// What became of dialling.
#[derive(Clone, Debug, Default)]
pub(super) struct Dialled {
    /// The first connection, and when it was there.
    pub(super) first: Option<(Peer, Instant)>,
    /// How many there have been.
    pub(super) connections: usize,
    failed: Option<Error>,
}

impl Asking {
    /// One connection, which is dialled with the first call.
    pub(super) async fn start(
        address: &Address,
        reach: &Reach,
        output: Output,
    ) -> Result<Self, Failure> {
        Self::start_with(address, reach, output, |builder| told(builder.connections(1))).await
    }

    /// The same, with what else there is to say.
    pub(super) async fn start_with(
        address: &Address,
        reach: &Reach,
        output: Output,
        more: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, Failure> {
        // Before anything is registered anywhere: what is left behind is taken back.
        let interrupted = interruptions()?;
        let key = reach.key_file.as_deref().map(key).transpose()?;
        let mut member = None;
        let builder = match address {
            Address::Tcp(address) => Client::to(Tcp::to(address)),
            Address::Unix(path) => Client::to(Unix::to(path)),
            Address::Service(service) => {
                let joined = Member::join(service, reach, output).await?;
                Client::to(member.insert(joined).way())
            }
        };
        let builder = match key {
            Some(key) => builder.key(key),
            None => builder,
        };
        let (tell, dialled) = watch::channel(Dialled::default());
        let builder = builder.codec(Codec::Json).timeout(reach.timeout).named("meshx", "").observe(
            move |event: &Event<'_>| match event {
                Event::Connected { peer, .. } => tell.send_modify(|dialled| {
                    dialled.connections = dialled.connections.saturating_add(1);
                    dialled.first.get_or_insert_with(|| (Peer::clone(peer), Instant::now()));
                }),
                Event::Unreachable { error, .. } | Event::HandshakeFailed { error, .. } => {
                    tell.send_modify(|dialled| {
                        dialled.failed.get_or_insert_with(|| Error::clone(error));
                    });
                }
                _ => {}
            },
        );
        let client = more(builder).start();
        Ok(Self { client, dialled, member, interrupted })
    }

    /// Runs what asks to its end, unless there is nobody to ask, or a signal comes; then nobody asks any
    /// more, in the mesh, too.
    pub(super) async fn finish<T>(
        self,
        work: impl AsyncFnOnce(Client) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let done = Box::pin(self.wait(work)).await;
        Box::pin(self.end()).await;
        done
    }

    /// The same, when there is more to ask.
    pub(super) async fn wait<T>(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work(self.client.clone()) => done.map_err(|error| self.failure(&error)),
            error = self.nobody_there() => Err(self.failure(&error)),
            () = self.interrupted() => Err(Failure::new(313, exit::INTERRUPTED, "interrupted")),
        }
    }

    /// Resolves when a signal comes.
    pub(super) async fn interrupted(&self) {
        self.interrupted.notified().await;
    }

    /// Takes who asked out of the mesh.
    pub(super) async fn end(self) {
        let Self { client, member, interrupted, .. } = self;
        // The sidecar waits for connections that live.
        drop(client);
        let Some(member) = member else { return };
        tokio::select! {
            () = member.leave() => {}
            // A second signal does not wait.
            () = interrupted.notified() => {}
        }
    }

    /// What the mesh knows of a connection that failed says more than that it failed.
    fn failure(&self, error: &Error) -> Failure {
        let of_mesh = match error.kind() {
            Kind::Transport | Kind::Deadline => self.member.as_ref().and_then(Member::why),
            _ => None,
        };
        let own = failure(error);
        match of_mesh {
            Some(known) => Failure { rpc: own.rpc, ..known },
            None => own,
        }
    }

    /// Why there is no connection, if there never was one.
    async fn nobody_there(&self) -> Error {
        let mut dialled = self.dialled.clone();
        loop {
            let now = dialled.borrow_and_update().clone();
            match now {
                Dialled { first: None, failed: Some(error), .. } => return error,
                Dialled { first: None, .. } if dialled.changed().await.is_ok() => {}
                // Later ones are dialled again.
                _ => std::future::pending().await,
            }
        }
    }
}

/// With `-v` each call is told on stderr, and where its time went.
pub(super) fn told(builder: ClientBuilder) -> ClientBuilder {
    match tracing::enabled!(target: "meshx_rpc", tracing::Level::INFO) {
        true => builder.observe(Pretty::new()),
        false => builder,
    }
}
