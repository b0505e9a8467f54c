//! Packages of another Debian release, unpacked into the cache and never installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{apt, debian};
use crate::step::{self, say};

/// Something to be unpacked.
#[derive(Debug)]
pub(super) struct Archive {
    /// What it is, for people.
    pub(super) title: &'static str,
    /// The flag of `provision` that asks for it; empty where every test run does.
    pub(super) flag: &'static str,
    /// The variable by which the tests learn its path.
    pub(super) variable: &'static str,
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
    flag: "",
    variable: "MESHX_TEST_CONSUL",
    folder: "consul-1.8.7",
    suite: "bullseye",
    packages: &["consul"],
    proof: "usr/bin/consul",
    result: "usr/bin/consul",
    is_chroot: false,
};

/// What is fetched only when it is asked for: other releases of Erlang/OTP.
pub(super) const OPTIONAL: &[Archive] = &[OTP_23, OTP_27, OTP_29];

const OTP_23: Archive = Archive {
    title: "Erlang/OTP 23",
    flag: "--otp23",
    variable: "MESHX_TEST_OTP23",
    folder: "otp-23",
    suite: "bullseye",
    packages: &[
        "erlang-base",
        "dash",
        "libacl1",
        "libattr1",
        "libc6",
        "libgcc-s1",
        "libgcrypt20",
        "libgpg-error0",
        "liblz4-1",
        "liblzma5",
        "libpcre2-8-0",
        "libsctp1",
        "libselinux1",
        "libstdc++6",
        "libsystemd0",
        "libtinfo6",
        "libzstd1",
        "sed",
        "zlib1g",
    ],
    proof: "usr/lib/erlang/releases/23",
    result: "",
    is_chroot: true,
};

const OTP_27: Archive = Archive {
    title: "Erlang/OTP 27",
    flag: "--otp27",
    variable: "MESHX_TEST_OTP27",
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

/// The unstable suite moves on: when it has OTP 30, this one says so and fails.
const OTP_29: Archive = Archive {
    title: "Erlang/OTP 29",
    flag: "--otp29",
    variable: "MESHX_TEST_OTP29",
    folder: "otp-29",
    suite: "sid",
    packages: OTP_27.packages,
    proof: "usr/lib/erlang/releases/29",
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
            unpack(&package, &unpacked)?;
        }
        if self.is_chroot && !unpacked.join("bin/sh").exists() {
            // Up to Debian 11 a script of the package made it.
            symlink("dash", unpacked.join("bin/sh"))?;
        }
        if home.exists() {
            fs::remove_dir_all(home)?; // incomplete: the proof is missing
        }
        fs::rename(&unpacked, home).with_context(|| format!("cannot make {}", home.display()))
    }
}

/// As `dpkg -x`, except that a folder in the package does not replace a link to a folder: packages of
/// Debian 11 still have files in `/lib`.
fn unpack(package: &Path, top: &Path) -> Result<()> {
    let mut extract = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let archive = extract.stdout.take().context("dpkg-deb has no output")?;
    let unpacked = step::run(
        Command::new("tar").args(["-x", "--keep-directory-symlink", "-C"]).arg(top).stdin(archive),
    );
    if !extract.wait()?.success() {
        bail!("dpkg-deb cannot read {}", package.display());
    }
    unpacked
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
