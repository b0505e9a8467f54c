//! What a node can do, as a set of bits.

use std::fmt;
use std::ops::{BitAnd, BitOr};

/// Capability flags (`erl_dist_protocol`, "Distribution Flags"; bit numbers as in OTP's `dist.h`).
///
/// ```
/// use meshx_dist::handshake::Flags;
/// let stock = Flags::from_bits(0xd_07df_7fbd); // OTP 25 and 27, visible
/// assert_eq!(stock, Flags::NODE | Flags::PUBLISHED);
/// assert!(stock.missing(Flags::MANDATORY_26).is_empty());
/// assert_eq!(Flags::from_bits(0b101).to_string(), "PUBLISHED EXTENDED_REFERENCES");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u64);

macro_rules! flags {
    ($($(#[doc = $doc:literal])* $name:ident = $bit:literal;)*) => {
        impl Flags {
            $($(#[doc = $doc])* pub const $name: Self = Self(1 << $bit);)*
        }
        const NAMES: &[(Flags, &str)] = &[$((Flags::$name, stringify!($name)),)*];
    };
}

flags! {
    /// A visible node; without it the link is hidden.
    PUBLISHED = 0;
    /// Obsolete.
    ATOM_CACHE = 1;
    /// References of more than one word. Mandatory.
    EXTENDED_REFERENCES = 2;
    /// Control messages 19, 20 and 21.
    DIST_MONITOR = 3;
    /// Mandatory.
    FUN_TAGS = 4;
    /// Monitors by registered name.
    DIST_MONITOR_NAME = 5;
    /// Obsolete.
    HIDDEN_ATOM_CACHE = 6;
    /// Mandatory.
    NEW_FUN_TAGS = 7;
    /// Mandatory.
    EXTENDED_PIDS_PORTS = 8;
    /// Mandatory.
    EXPORT_PTR_TAG = 9;
    /// Mandatory.
    BIT_BINARIES = 10;
    /// Mandatory.
    NEW_FLOATS = 11;
    /// Unicode in I/O requests.
    UNICODE_IO = 12;
    /// Distribution headers with an atom cache.
    DIST_HDR_ATOM_CACHE = 13;
    /// One-byte lengths of atoms.
    SMALL_ATOM_TAGS = 14;
    /// Internal to the VM, never sent.
    ETS_COMPRESSED = 15;
    /// Mandatory.
    UTF8_ATOMS = 16;
    /// Mandatory.
    MAP_TAG = 17;
    /// Creations of 32 bits. Mandatory.
    BIG_CREATION = 18;
    /// Control messages 22 and 23 instead of 2 and 12.
    SEND_SENDER = 19;
    /// Any term as sequential trace label.
    BIG_SEQTRACE_LABELS = 20;
    /// Internal to the VM, never sent.
    PENDING_CONNECT = 21;
    /// Control messages 24 to 28.
    EXIT_PAYLOAD = 22;
    /// Fragmented messages.
    FRAGMENTS = 23;
    /// The handshake of OTP 23. Mandatory.
    HANDSHAKE_23 = 24;
    /// The link protocol of OTP 23.3. Mandatory from OTP 26 on.
    UNLINK_ID = 25;
    /// Stands for all of [`Flags::MANDATORY_25`]. (The protocol's documentation gives bit 36; the VM
    /// uses this one.)
    MANDATORY_25_DIGEST = 26;
    /// Control messages 29 to 32.
    SPAWN = 32;
    /// Not a capability: the initiator asks the acceptor for a node name.
    NAME_ME = 33;
    /// Wider pids, ports and references. Mandatory from OTP 26 on.
    V4_NC = 34;
    /// Process aliases.
    ALIAS = 35;
    /// Internal to the VM, never sent.
    LOCAL_EXT = 36;
    /// Control message 37, OTP 28.
    ALTACT_SIG = 37;
    /// Native records, OTP 29.
    NATIVE_RECORDS = 38;
}

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// What every release from OTP 25 on refuses to do without. OTP 23 and 24 have it, too, and we ask
    /// no more of a peer.
    pub const MANDATORY_25: Self = Self(0x0107_0f94);
    /// What OTP 26 and later refuse to do without.
    pub const MANDATORY_26: Self = Self(Self::MANDATORY_25.0 | Self::UNLINK_ID.0 | Self::V4_NC.0);
    /// What a stock node of OTP 25 to 27 sends, without [`Flags::PUBLISHED`]: a hidden node.
    pub const NODE: Self = Self(0xd_07df_7fbc);

    /// The set with exactly these bits, known or not.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits, as they are sent.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// As a receiver must read them: [`Flags::MANDATORY_25_DIGEST`] brings what it stands for.
    #[must_use]
    pub const fn expanded(self) -> Self {
        if self.contains(Self::MANDATORY_25_DIGEST) {
            Self(self.0 | Self::MANDATORY_25.0)
        } else {
            self
        }
    }

    /// Which of `needed` a peer with these flags lacks, after [`Flags::expanded`].
    #[must_use]
    pub const fn missing(self, needed: Self) -> Self {
        needed.without(self.expanded())
    }

    /// What two sides use with each other: what both have, the peer's flags being read by
    /// [`Flags::expanded`].
    #[must_use]
    pub const fn negotiated(self, peer: Self) -> Self {
        Self(self.0 & peer.expanded().0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Flags {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The names of the flags, in the order of their bits, separated by spaces; bits without a name as
/// one hexadecimal number; `none` if the set is empty.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut unnamed = *self;
        let mut separator = "";
        for (flag, name) in NAMES {
            if self.contains(*flag) {
                write!(f, "{separator}{name}")?;
                separator = " ";
                unnamed = unnamed.without(*flag);
            }
        }
        if unnamed.is_empty() { Ok(()) } else { write!(f, "{separator}{:#x}", unnamed.0) }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mandatory_sets_are_those_of_the_table() {
        let of_25 = [
            Flags::EXTENDED_REFERENCES,
            Flags::FUN_TAGS,
            Flags::NEW_FUN_TAGS,
            Flags::EXTENDED_PIDS_PORTS,
            Flags::EXPORT_PTR_TAG,
            Flags::BIT_BINARIES,
            Flags::NEW_FLOATS,
            Flags::UTF8_ATOMS,
            Flags::MAP_TAG,
            Flags::BIG_CREATION,
            Flags::HANDSHAKE_23,
        ];
        let union = of_25.into_iter().fold(Flags::NONE, BitOr::bitor);
        assert_eq!(union, Flags::MANDATORY_25);
        // The smallest set that OTP 25 and 27 accept from a hidden node (seen).
        assert_eq!(Flags::MANDATORY_26.bits(), 0x4_0307_0f94);
    }

    #[test]
    fn digest_flag_stands_for_the_mandatory_ones() {
        let short = Flags::from_bits(0x4_0600_0000); // accepted by OTP 25 and 27 (seen)
        assert!(short.missing(Flags::MANDATORY_26).is_empty());
        let digest_only = Flags::MANDATORY_25_DIGEST; // accepted by 25, refused by 27 (seen)
        assert!(digest_only.missing(Flags::MANDATORY_25).is_empty());
        assert_eq!(digest_only.missing(Flags::MANDATORY_26), Flags::UNLINK_ID | Flags::V4_NC);
        let negotiated = Flags::NODE.negotiated(short);
        assert!(negotiated.contains(Flags::MANDATORY_26));
        assert!(!negotiated.contains(Flags::FRAGMENTS));
    }

    #[test]
    fn display_names_known_bits_and_shows_the_rest() {
        assert_eq!(Flags::NONE.to_string(), "none");
        assert_eq!(Flags::from_bits(1 | 1 << 27).to_string(), "PUBLISHED 0x8000000");
        assert_eq!(format!("{:?}", Flags::NAME_ME), "Flags(NAME_ME)");
    }
}
