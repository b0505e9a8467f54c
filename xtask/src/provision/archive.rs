//! Packages of another Debian release, unpacked into the cache and never installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, debian};
use crate::step::{self, say};

/// Something to be unpacked.
#[derive(Debug)]
pub(super) struct Archive {
    /// What it is, for people.
    pub(super) title: &'static str,
    /// Its folder in the cache.
    folder: &'static str,
    /// The Debian release that has it.
    suite: &'static str,
    packages: &'static [&'static str],
    /// A file below the folder that is there when all is well.
    proof: &'static str,
    /// What `provide` returns, below the folder.
    result: &'static str,
    /// Whether the folder is to be entered with `chroot`.
    is_chroot: bool,
}

pub(super) const CONSUL: Archive = Archive {
    title: "Consul 1.8.7",
    folder: "consul-1.8.7",
    suite: "bullseye",
    packages: &["consul"],
    proof: "usr/bin/consul",
    result: "usr/bin/consul",
    is_chroot: false,
};

pub(super) const OTP_27: Archive = Archive {
    title: "Erlang/OTP 27",
    folder: "otp-27",
    suite: "trixie",
    packages: &[
        "erlang-base",
        "coreutils",
        "dash",
        "libacl1",
        "libattr1",
        "libc6",
        "libcap2",
        "libgcc-s1",
        "libgmp10",
        "liblzma5",
        "libpcre2-8-0",
        "libsctp1",
        "libselinux1",
        "libssl3t64",
        "libstdc++6",
        "libsystemd0",
        "libtinfo6",
        "libzstd1",
        "zlib1g",
    ],
    proof: "usr/lib/erlang/releases/27",
    result: "",
    is_chroot: true,
};

impl Archive {
    pub(super) fn is_present(&self, cache: &Path) -> bool {
        cache.join(self.folder).join(self.proof).exists()
    }

    /// The path of the result, after fetching and unpacking where that is still to be done.
    pub(super) fn provide(&self, cache: &Path) -> Result<PathBuf> {
        let home = cache.join(self.folder);
        if !self.is_present(cache) {
            let codename = debian()?;
            say(&format!("fetching {} (Debian {})", self.title, self.suite));
            let work = cache.join(format!(".{}-{}", self.folder, std::process::id()));
            let outcome = self.build(&work, &home, &codename);
            // The work folder is ours alone; what is left of it is of no use.
            let _ignored = fs::remove_dir_all(&work);
            outcome?;
        }
        if !self.is_present(cache) {
            bail!("the package has no {}", self.proof);
        }
        Ok(home.join(self.result))
    }

    fn build(&self, work: &Path, home: &Path, codename: &str) -> Result<()> {
        fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
        let unpacked = work.join("unpacked");
        fs::create_dir(&unpacked)?;
        if self.is_chroot {
            lay_out_chroot(&unpacked)?;
        }
        for package in apt::download(work, self.suite, codename, self.packages)? {
            step::run(Command::new("dpkg").arg("-x").arg(&package).arg(&unpacked))?;
        }
        if home.exists() {
            fs::remove_dir_all(home)?; // incomplete: the proof is missing
        }
        fs::rename(&unpacked, home).with_context(|| format!("cannot make {}", home.display()))
    }
}

/// The links between `/lib` and `/usr/lib` that Debian's base system, not its packages, makes.
fn lay_out_chroot(top: &Path) -> Result<()> {
    for folder in ["bin", "lib", "lib64", "sbin"] {
        fs::create_dir_all(top.join("usr").join(folder))?;
        symlink(format!("usr/{folder}"), top.join(folder))?;
    }
    for folder in ["dev", "etc", "proc", "root", "tmp"] {
        fs::create_dir(top.join(folder))?;
    }
    Ok(())
}
