//! What survives the agent: the certificate authority and the intentions, in one file.
//!
//! The file is written whole to a new name, synced, renamed over the old one, and the directory is
//! synced, all before a write is acknowledged. It carries a digest: a file that is torn, damaged or
//! not ours is refused with a message and left as it is.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use meshx_consul_api::Intention;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::AgentError;
use crate::limits;
use crate::state::SavedAuthority;

/// The name of the state file.
const FILE: &str = "agent.json";
/// How the file says what it is.
const FORMAT: &str = "meshx-agent";
/// The version of the form that is written, and the only one that is read.
const VERSION: u64 = 1;

/// Everything that is kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    /// The id of the node.
    pub(crate) node_id: String,
    /// The index of the last write.
    pub(crate) index: u64,
    pub(crate) authority: SavedAuthority,
    pub(crate) intentions: Vec<Intention>,
}

/// A data directory that this process alone uses.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    /// Held as long as the agent runs.
    _lock: File,
}

impl Store {
    /// Takes the directory, and makes it where it is missing (mode 0700).
    pub(crate) fn open(dir: &Path) -> Result<Self, AgentError> {
        let failed = |error: io::Error| AgentError::DataDir {
            path: dir.to_owned(),
            reason: error.to_string(),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let lock = private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(dir.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(AgentError::DataDirBusy { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// What was saved; `None` when nothing ever was.
    pub(crate) fn load(&self) -> Result<Option<Saved>, AgentError> {
        let path = self.dir.join(FILE);
        let refused = |reason: String| AgentError::State { path: path.clone(), reason };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(error.to_string())),
        };
        let mut text = Zeroizing::new(String::new());
        file.take(limits::STATE_FILE + 1)
            .read_to_string(&mut text)
            .map_err(|error| refused(error.to_string()))?;
        if text.len() as u64 > limits::STATE_FILE {
            return Err(refused("it is too large to be the state of an agent".to_owned()));
        }
        decode(&text).map(Some).map_err(refused)
    }

    /// Replaces what was saved. When this returns an error the old state is still there.
    pub(crate) fn save(&self, saved: &Saved) -> io::Result<()> {
        let text = encode(saved)?;
        let (new, path) = (self.dir.join("agent.json.new"), self.dir.join(FILE));
        let written = (|| {
            let mut file =
                private(OpenOptions::new().write(true).create(true).truncate(true)).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.dir)?.sync_all()
        })();
        if written.is_err() {
            let _gone_or_kept = fs::remove_file(&new);
        }
        written
    }
}

/// Files that hold keys are for their owner only.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

fn encode(saved: &Saved) -> io::Result<Zeroizing<String>> {
    let state = serde_json::to_value(saved)?;
    let digest = digest(&state)?;
    let file = json!({"format": FORMAT, "version": VERSION, "sha256": digest, "state": state});
    serde_json::to_string(&file).map(|text| Zeroizing::new(text + "\n")).map_err(io::Error::from)
}

fn decode(text: &str) -> Result<Saved, String> {
    let mut file: Value = serde_json::from_str(text)
        .map_err(|error| format!("it is torn or not a state file ({error})"))?;
    if file["format"] != FORMAT {
        return Err("it was not written by a meshx agent".to_owned());
    }
    if file["version"] != VERSION {
        return Err(format!("it has version {}, this agent reads {VERSION}", file["version"]));
    }
    let state = file["state"].take();
    let found = digest(&state).map_err(|error| error.to_string())?;
    if file["sha256"] != found {
        return Err("it is damaged: its digest does not match".to_owned());
    }
    serde_json::from_value(state).map_err(|error| format!("it lacks a part ({error})"))
}

fn digest(state: &Value) -> io::Result<String> {
    let text = Zeroizing::new(serde_json::to_vec(state)?);
    Ok(Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    use super::*;
    use crate::state::Authority;

    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let name = format!("meshx-agent-store-{}", meshx_rt::random::hex(12));
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    fn saved(index: u64) -> Saved {
        let domain = "ab.consul".parse().unwrap();
        let authority = Authority::generate(domain, "dc1", 1, SystemTime::now()).unwrap();
        Saved {
            node_id: "n".to_owned(),
            index,
            authority: authority.save(None),
            intentions: Vec::new(),
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = Dir::new();
        let store = Store::open(&dir.0).unwrap();
        assert!(store.load().unwrap().is_none());
        store.save(&saved(7)).unwrap();
        store.save(&saved(8)).unwrap();
        let loaded = store.load().unwrap().unwrap();
        assert_eq!(loaded.index, 8);
        Authority::restore(loaded.authority, "dc1", SystemTime::now()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir.0), mode(&dir.0.join(FILE))), (0o700, 0o600));
    }

    #[test]
    fn one_agent_has_a_directory() {
        let dir = Dir::new();
        let first = Store::open(&dir.0).unwrap();
        assert!(matches!(Store::open(&dir.0), Err(AgentError::DataDirBusy { .. })));
        drop(first);
        Store::open(&dir.0).unwrap();
    }

    #[test]
    fn torn_damaged_and_foreign_files_are_refused_and_kept() {
        let dir = Dir::new();
        let store = Store::open(&dir.0).unwrap();
        store.save(&saved(7)).unwrap();
        let path = dir.0.join(FILE);
        let good = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let Err(AgentError::State { reason, .. }) = store.load() else {
                panic!("{} bytes were taken", bytes.len());
            };
            assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it is");
            reason
        };
        for length in [0, 1, good.len() / 2, good.len() - 3] {
            assert!(refused(&good[..length]).contains("torn"), "{length}");
        }
        for at in (0..good.len() - 1).step_by(97) {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            // Between the values a flip may mean nothing; then what is read is what was saved.
            if serde_json::from_slice::<Value>(&flipped).ok()
                != serde_json::from_slice::<Value>(&good).ok()
            {
                refused(&flipped);
            }
        }
        assert!(refused(b"{\"a\":1}").contains("not written by a meshx agent"));
        assert!(refused(b"{\"format\":\"meshx-agent\",\"version\":2}").contains("version 2"));
        fs::write(&path, &good).unwrap();
        assert_eq!(store.load().unwrap().unwrap().index, 7);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_state() {
        let dir = Dir::new();
        let store = Store::open(&dir.0).unwrap();
        store.save(&saved(7)).unwrap();
        // Where the new file would be there is a directory: even root cannot write that.
        fs::create_dir(dir.0.join("agent.json.new")).unwrap();
        store.save(&saved(8)).unwrap_err();
        assert_eq!(store.load().unwrap().unwrap().index, 7);
    }
}
