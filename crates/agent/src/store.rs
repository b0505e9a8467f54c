//! What survives the agent: the certificate authority and the intentions, in one file.
//!
//! The file is written whole under a new name, synced, renamed over the old one, and the directory is
//! synced, all before a write is acknowledged. It carries a digest: a file that is torn, damaged or
//! not ours is refused with a message and left as it is.
//!
//! The file holds the key of the authority. Directory and file must belong to the user of the agent
//! and be open to nobody else; what is not so is refused, not mended, because somebody may have been
//! there before. Everything is opened relative to the directory that was judged, and no symbolic link
//! in it is followed.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meshx_consul_api::Intention;
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::AgentError;
use crate::limits;
use crate::state::SavedAuthority;

/// How long another agent's lock on the directory is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// The name of the state file.
const FILE: &str = "agent.json";
/// Its name while it is written.
const NEW: &str = "agent.json.new";
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
    path: PathBuf,
    dir: File,
    /// Held as long as the agent runs.
    _lock: File,
}

impl Store {
    /// Takes the directory, and makes it where it is missing (mode 0700).
    pub(crate) fn open(path: &Path) -> Result<Self, AgentError> {
        let refused = |reason: String| AgentError::DataDir { path: path.to_owned(), reason };
        let failed = |error: io::Error| refused(error.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        let dir = File::from(dir);
        judge(&dir, path, "700").map_err(refused)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK;
        let lock = open_in(&dir, "lock", flags).map_err(failed)?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), dir, _lock: lock }),
                // An agent that was told to end may still be writing its last answer.
                Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_LIMIT => {
                    std::thread::sleep(LOCK_LIMIT / 50);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(AgentError::DataDirBusy { path: path.to_owned() });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// What was saved; `None` when nothing ever was.
    pub(crate) fn load(&self) -> Result<Option<Saved>, AgentError> {
        let path = self.path.join(FILE);
        let refused = |reason: String| AgentError::State { path: path.clone(), reason };
        // Whoever put a pipe there must not make the agent wait for its other end.
        let file = match open_in(&self.dir, FILE, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(error.to_string())),
        };
        if !file.metadata().is_ok_and(|about| about.is_file()) {
            return Err(refused("it is not a file".to_owned()));
        }
        judge(&file, &path, "600").map_err(refused)?;
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
        // What an agent left that was killed here, or what somebody put here.
        match rustix::fs::unlinkat(&self.dir, NEW, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = open_in(&self.dir, NEW, flags)?;
        let written = (|| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            rustix::fs::renameat(&self.dir, NEW, &self.dir, FILE)?;
            self.dir.sync_all()
        })();
        if written.is_err() {
            let _gone_or_kept = rustix::fs::unlinkat(&self.dir, NEW, AtFlags::empty());
        }
        written
    }
}

/// Opens a file in the directory, for its owner only (0600) when it is made. A symbolic link is an
/// error.
fn open_in(dir: &File, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(File::from(file)),
        Err(rustix::io::Errno::LOOP) => {
            Err(io::Error::other(format!("`{name}` is a symbolic link, which is not followed")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuses what is not ours alone.
fn judge(file: &File, path: &Path, mode: &str) -> Result<(), String> {
    let about = file.metadata().map_err(|error| error.to_string())?;
    let (owner, us) = (about.uid(), rustix::process::geteuid().as_raw());
    if owner != us {
        return Err(format!(
            "it belongs to user {owner}, the agent runs as user {us}: chown {us} {}",
            path.display()
        ));
    }
    if about.mode() & 0o077 != 0 {
        return Err(format!(
            "it is open to other users (mode {:04o}): chmod {mode} {}",
            about.mode() & 0o7777,
            path.display()
        ));
    }
    Ok(())
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
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
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

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_that_is_open_to_others_is_refused() {
        let dir = Dir::new();
        fs::create_dir(&dir.0).unwrap();
        for mode in [0o755, 0o750, 0o701, 0o777, 0o1777] {
            set_mode(&dir.0, mode);
            let error = Store::open(&dir.0).unwrap_err();
            assert!(matches!(error, AgentError::DataDir { .. }), "{error}");
            let command = format!("chmod 700 {}", dir.0.display());
            assert!(error.to_string().contains(&command), "{error}");
            assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0, "nothing was made in it");
        }
        set_mode(&dir.0, 0o700);
        Store::open(&dir.0).unwrap();
    }

    #[test]
    fn a_directory_or_file_of_another_user_is_refused() {
        let dir = Dir::new();
        let store = Store::open(&dir.0).unwrap();
        store.save(&saved(7)).unwrap();
        let file = dir.0.join(FILE);
        if std::os::unix::fs::chown(&file, Some(65_534), None).is_err() {
            return; // Only root can give files away.
        }
        let Err(error) = store.load() else { panic!("a file of another user was read") };
        assert!(error.to_string().contains("belongs to user 65534"), "{error}");
        drop(store);
        std::os::unix::fs::chown(&dir.0, Some(65_534), None).unwrap();
        let error = Store::open(&dir.0).unwrap_err();
        assert!(error.to_string().contains("belongs to user 65534"), "{error}");
    }

    #[test]
    fn what_was_prepared_gets_no_key() {
        let dir = Dir::new();
        let store = Store::open(&dir.0).unwrap();
        let (new, file, bait) = (dir.0.join(NEW), dir.0.join(FILE), dir.0.join("bait"));
        fs::write(&new, "").unwrap();
        set_mode(&new, 0o666);
        // Somebody holds it open already.
        let mut held = File::open(&new).unwrap();
        store.save(&saved(7)).unwrap();
        let mut seen = String::new();
        held.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "", "the key went to a file that somebody holds");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(&bait, "").unwrap();
        symlink(&bait, &new).unwrap();
        store.save(&saved(8)).unwrap();
        assert_eq!(fs::read(&bait).unwrap(), b"", "a symbolic link was followed");
        assert!(!fs::symlink_metadata(&file).unwrap().is_symlink());
        assert_eq!(store.load().unwrap().unwrap().index, 8);
    }

    #[test]
    fn a_state_file_that_is_not_ours_alone_is_refused() {
        let dir = Dir::new();
        let store = Store::open(&dir.0).unwrap();
        store.save(&saved(7)).unwrap();
        let (file, other) = (dir.0.join(FILE), dir.0.join("other"));
        let refused = || {
            let Err(AgentError::State { reason, .. }) = store.load() else {
                panic!("the file was read");
            };
            reason
        };
        for mode in [0o644, 0o640, 0o602] {
            set_mode(&file, mode);
            assert!(refused().contains(&format!("chmod 600 {}", file.display())));
        }
        set_mode(&file, 0o600);
        fs::rename(&file, &other).unwrap();
        symlink(&other, &file).unwrap();
        assert!(refused().contains("symbolic link"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(refused().contains("not a file"));
        fs::remove_dir(&file).unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(store.load().unwrap().unwrap().index, 7);
    }

    #[test]
    fn a_lock_that_is_a_symbolic_link_is_refused() {
        let dir = Dir::new();
        DirBuilder::new().mode(0o700).create(&dir.0).unwrap();
        let bait = dir.0.join("bait");
        symlink(&bait, dir.0.join("lock")).unwrap();
        let error = Store::open(&dir.0).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert!(!bait.exists());
    }
}
