//! A client that lives as long as one command.

use std::future::Future;
use std::time::Instant;

use meshx_rpc::event::Event;
use meshx_rpc::transport::{Tcp, Unix};
use meshx_rpc::{Client, ClientBuilder, Codec, Error, Peer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::failing::failure;
use super::key::key;
use crate::args::rpc::{Address, Reach};
use crate::failure::{Failure, exit};

/// The client that asks.
///
/// One that lives longer dials until a call's time is over. Who sits at a terminal would rather know at
/// once that nobody is there, so the first attempt decides.
pub(super) struct Asking {
    pub(super) client: Client,
    dialled: watch::Receiver<Dialled>,
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
    pub(super) fn start(address: &Address, reach: &Reach) -> Result<Self, Failure> {
        Self::start_with(address, reach, |builder| builder.connections(1))
    }

    /// The same, with what else there is to say.
    pub(super) fn start_with(
        address: &Address,
        reach: &Reach,
        more: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, Failure> {
        let builder = match address {
            Address::Tcp(address) => Client::to(Tcp::to(address)),
            Address::Unix(path) => Client::to(Unix::to(path)),
        };
        let builder = match &reach.key_file {
            Some(file) => builder.key(key(file)?),
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
        Ok(Self { client: more(builder).start(), dialled })
    }

    /// Runs what asks to its end, unless there is nobody to ask, or a signal comes.
    pub(super) async fn finish<T>(
        &self,
        asking: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let interrupted = interruption()?;
        tokio::select! {
            done = asking => done.map_err(|error| failure(&error)),
            error = self.nobody_there() => Err(failure(&error)),
            () = interrupted => Err(Failure::new(313, exit::INTERRUPTED, "interrupted")),
        }
    }

    /// What is known of the connections.
    pub(super) fn dialled(&self) -> Dialled {
        self.dialled.borrow().clone()
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

/// Resolves with the first SIGTERM or SIGINT from now on.
pub(super) fn interruption() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::internal("listen for signals", &e));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
