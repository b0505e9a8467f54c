//! Who may hold a name: at most one process of this machine.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use meshx_consul::Client;
use meshx_consul_api::{AgentService, CheckStatus};

use crate::member::hostname;
use crate::{MemberConfig, WorkloadError, admin};

/// Time for an old holder of the name to leave when it is replaced.
const REPLACE_LIMIT: Duration = Duration::from_secs(45);

/// The claim of this process on an instance id, released when it drops or the process ends.
///
/// An abstract Unix socket (unix(7)): the kernel gives each address to one process of the network
/// namespace at a time, and takes it back however the process ends.
#[derive(Debug)]
pub(crate) struct Claim(#[expect(dead_code, reason = "held, not used")] UnixListener);

impl Claim {
    /// Claims the id, unless somebody who lives holds it.
    ///
    /// A registration that is left over from a killed process is no obstacle. With `replace`, a live
    /// holder of ours is asked to end first, and another tool's registration is taken over.
    pub(crate) async fn take(
        client: &Client,
        config: &MemberConfig,
    ) -> Result<Self, WorkloadError> {
        let address = abstract_address(client, config)?;
        let deadline = Instant::now() + REPLACE_LIMIT;
        let mut asked = false;
        loop {
            let bound = UnixListener::bind_addr(&address);
            let holder = client.agent_service(config.id.as_str()).await?;
            let alive = match (&bound, &holder) {
                (Err(error), _) if error.kind() != io::ErrorKind::AddrInUse => {
                    let what = format!("cannot claim the name {}", config.id);
                    return Err(WorkloadError::io(what)(io::Error::from(error.kind())));
                }
                (Err(_), holder) => Some(Holder::of(holder.as_ref())),
                (Ok(_), None) => None,
                (Ok(_), Some(holder)) => living(client, config, holder).await?,
            };
            match (bound, alive) {
                (Ok(listener), None) => return Ok(Self(listener)),
                (Ok(listener), Some(Holder { ours: false, .. })) if config.replace => {
                    return Ok(Self(listener));
                }
                (_, Some(holder)) if !config.replace || Instant::now() > deadline => {
                    return Err(holder.conflict(config));
                }
                (_, Some(holder)) if !asked => {
                    if let Some(socket) = &holder.socket {
                        admin::ask_to_stop(Path::new(socket)).await?;
                        asked = true;
                    }
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Who holds a name.
struct Holder {
    who: String,
    socket: Option<String>,
    /// Registered by one of our processes.
    ours: bool,
}

impl Holder {
    fn of(registered: Option<&AgentService>) -> Self {
        let Some(service) = registered else {
            let who = "a process that is just starting".to_owned();
            return Self { who, socket: None, ours: true };
        };
        let meta = |key: &str| service.meta.get(key).map_or("?", String::as_str);
        let socket = service.meta.get(admin::META_ADMIN).cloned();
        let who = match &socket {
            Some(_) => format!("process {} on {}", meta(admin::META_PID), meta(admin::META_HOST)),
            None => "it was registered by another tool".to_owned(),
        };
        Self { who, ours: socket.is_some(), socket }
    }

    fn conflict(self, config: &MemberConfig) -> WorkloadError {
        WorkloadError::Conflict {
            id: config.id.to_string(),
            holder: self.who,
            replaceable: !config.replace,
        }
    }
}

/// The holder of a registration, if it lives.
///
/// One of this machine lives if its admin socket answers or its process is the one that registered.
/// Of another machine's, the check's state is all that can be known.
async fn living(
    client: &Client,
    config: &MemberConfig,
    service: &AgentService,
) -> Result<Option<Holder>, WorkloadError> {
    let holder = Holder::of(Some(service));
    let Some(socket) = &holder.socket else { return Ok(Some(holder)) };
    if tokio::net::UnixStream::connect(socket).await.is_ok() {
        return Ok(Some(holder));
    }
    let meta = |key: &str| service.meta.get(key).map_or("", String::as_str);
    if meta(admin::META_HOST) == hostname() {
        let started = meta(admin::META_PID).parse().ok().and_then(start_of);
        let same = started.is_some_and(|started| started == meta(admin::META_START));
        return Ok(same.then_some(holder));
    }
    let entries = client.health_service(config.name.as_str()).await?;
    let passing = entries.iter().any(|entry| {
        entry.service.id == config.id.as_str() && entry.status() != CheckStatus::Critical
    });
    Ok(passing.then_some(holder))
}

/// When a process started, in the kernel's ticks since boot (proc(5), `/proc/PID/stat`, field 22); `None`
/// if it has ended, though its parent may not have asked how.
pub(crate) fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    fields.nth(18).filter(|_| !ended).map(str::to_owned)
}

/// One address for each user, control plane and id.
fn abstract_address(client: &Client, config: &MemberConfig) -> Result<SocketAddr, WorkloadError> {
    let text = format!("{} {}", client.address(), config.id);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let name = format!("meshx/{}/{hash:016x}", rustix::process::getuid().as_raw());
    SocketAddr::from_abstract_name(name)
        .map_err(WorkloadError::io(format!("cannot claim the name {}", config.id)))
}
