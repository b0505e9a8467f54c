//! Releases of Erlang/OTP: the machine's own, and others in folders for `chroot`.

use std::path::{Path, PathBuf};

use crate::Need;
use crate::needs::given_or_cached;

/// A release of Erlang/OTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The `erl` of this machine, whatever release it is (25 on Debian 12).
    Machine,
    /// Erlang/OTP 23 of Debian 11, by `MESHX_TEST_OTP23`.
    Otp23,
    /// Erlang/OTP 27 of Debian 13, by `MESHX_TEST_OTP27`.
    Otp27,
    /// Erlang/OTP 29 of Debian's unstable suite, by `MESHX_TEST_OTP29`.
    Otp29,
}

impl Release {
    /// All of them, oldest first, the machine's own where Debian 12 has it.
    pub const ALL: [Self; 4] = [Self::Otp23, Self::Machine, Self::Otp27, Self::Otp29];

    /// What a test with a VM of this release needs: for [`skips`](crate::skips).
    pub fn needs(self) -> &'static [Need] {
        match self {
            Self::Machine => &[Need::Erlang],
            Self::Otp23 => &[Need::Otp(Self::Otp23), Need::Root],
            Self::Otp27 => &[Need::Otp(Self::Otp27), Need::Root],
            Self::Otp29 => &[Need::Otp(Self::Otp29), Need::Root],
        }
    }

    /// The beginning of a command line that runs `program` (such as `erl`, `epmd`) of this release;
    /// arguments follow it. What is started is the program itself, with the same process id.
    ///
    /// In a `chroot` it sees this machine's `/tmp`, `/dev` and `/etc` in a mount namespace of its own.
    pub fn program(self, program: &str) -> Vec<String> {
        if self == Self::Machine {
            return vec![program.to_owned()];
        }
        let top = self.folder().unwrap_or_else(|| panic!("{self:?} is there"));
        let top = top.display();
        let script = format!(
            "for folder in tmp dev etc; do mount --bind /$folder '{top}'/$folder || exit; done; \
             exec chroot '{top}' /usr/bin/{program} \"$@\""
        );
        ["unshare", "--mount", "sh", "-c", &script, program].map(str::to_owned).to_vec()
    }

    pub(crate) fn missing(self) -> &'static str {
        match self {
            Self::Machine => "no erl",
            Self::Otp23 => "no Erlang/OTP 23 (MESHX_TEST_OTP23)",
            Self::Otp27 => "no Erlang/OTP 27 (MESHX_TEST_OTP27)",
            Self::Otp29 => "no Erlang/OTP 29 (MESHX_TEST_OTP29)",
        }
    }

    /// The folder to be entered with `chroot`; for the machine's own release, `/`.
    pub(crate) fn folder(self) -> Option<PathBuf> {
        match self {
            Self::Machine => Some(Path::new("/").to_owned()),
            Self::Otp23 => given_or_cached("MESHX_TEST_OTP23", "otp-23"),
            Self::Otp27 => given_or_cached("MESHX_TEST_OTP27", "otp-27"),
            Self::Otp29 => given_or_cached("MESHX_TEST_OTP29", "otp-29"),
        }
    }
}
