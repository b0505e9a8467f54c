//! Which trace a call belongs to (W3C Trace Context, Recommendation, level 1).

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A place in a trace: the value of `traceparent` in the metadata of a call (§3.2).
///
/// A call that comes with one is continued by a [`child`](Self::child), a call that comes without one
/// begins a trace of its own: [`continued`](Self::continued) does either. What is malformed counts as
/// absent ("Processing Model"): the trace is begun anew then, and no call fails for it.
///
/// ```
/// use meshx_rpc::TraceParent;
/// let caller: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
/// let ours = caller.child();
/// assert_eq!(ours.trace_id(), caller.trace_id());
/// assert_ne!(ours.span_id(), caller.span_id());
/// assert!(ours.is_sampled());
/// # Ok::<(), meshx_rpc::TraceParentError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    above: Option<[u8; 8]>,
    sampled: bool,
}

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceParentError {
    /// Not four fields of 2, 32, 16 and 2 characters.
    #[error("a traceparent is 00-TRACE-SPAN-FLAGS: 2, 32, 16 and 2 hexadecimal digits")]
    Form,
    /// Not the digits `0-9a-f`.
    #[error("a traceparent is of the digits 0-9 and a-f, in lower case")]
    Digit,
    /// Version `ff`.
    #[error("ff is no version of a traceparent")]
    Version,
    /// The trace or the span has the number zero.
    #[error("neither the trace nor the span of a traceparent is zero")]
    Zero,
}

/// A `traceparent` of version 00 has exactly this many bytes.
const LEN: usize = 55;

/// A longer one of a later version is not looked at.
const LEN_MAX: usize = 512;

impl TraceParent {
    /// The name of the pair of metadata that carries it.
    pub const KEY: &'static str = "traceparent";

    /// The name of the pair that travels beside it. It is passed on as it came, and only with a
    /// `traceparent` that was continued (§3.3).
    pub const STATE_KEY: &'static str = "tracestate";

    /// A trace that begins here. Random, and for names only: it keeps no secret.
    pub fn root(sampled: bool) -> Self {
        let numbers = Numbers::get();
        Self { trace_id: numbers.trace(), span_id: numbers.span(), above: None, sampled }
    }

    /// One whose parts are known; `None` if one of them is zero.
    pub fn from_parts(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> Option<Self> {
        let is_valid = trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self { trace_id, span_id, above: None, sampled })
    }

    /// The next place of the same trace, below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: Numbers::get().span(), above: Some(self.span_id), ..*self }
    }

    /// That of these pairs, if there is exactly one and it is well-formed.
    pub fn of(metadata: &[(String, String)]) -> Option<Self> {
        let mut all = metadata.iter().filter(|(key, _)| key == Self::KEY);
        match (all.next(), all.next()) {
            (Some((_, value)), None) => value.parse().ok(),
            _ => None,
        }
    }

    /// A child of that of these pairs; without one, a trace that begins here and is not sampled.
    #[must_use]
    pub fn continued(metadata: &[(String, String)]) -> Self {
        Self::of(metadata).map_or_else(|| Self::root(false), |parent| parent.child())
    }

    /// The trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The place in it; called `parent-id` in the recommendation.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// The place above, of which this is a [`child`](Self::child). It does not travel: it is known only
    /// where the child was made.
    pub fn above(&self) -> Option<[u8; 8]> {
        self.above
    }

    /// Whether the caller may have recorded it (§3.2.2.5.1).
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let bytes = text.as_bytes();
        if bytes.len() > LEN_MAX {
            return Err(TraceParentError::Form);
        }
        let (known, rest) = bytes.split_at_checked(LEN).ok_or(TraceParentError::Form)?;
        let mut fields = known.split(|byte| *byte == b'-');
        let (version, trace_id, span_id, flags) =
            (field(&mut fields)?, field(&mut fields)?, field(&mut fields)?, field(&mut fields)?);
        if fields.next().is_some() {
            return Err(TraceParentError::Form);
        }
        // A later version may have more, after another dash ("Versioning of traceparent").
        match (version, rest) {
            ([0xff], _) => return Err(TraceParentError::Version),
            (_, []) => {}
            ([later], [b'-', ..]) if later != 0 => {}
            _ => return Err(TraceParentError::Form),
        }
        let [flags] = flags;
        // Flags other than this one are not ours to pass on (§3.2.2.5.2).
        Self::from_parts(trace_id, span_id, flags & 1 == 1).ok_or(TraceParentError::Zero)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(self.sampled))
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The next field as the bytes that its digits mean.
fn field<'a, const N: usize>(
    fields: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<[u8; N], TraceParentError> {
    let digits = fields.next().ok_or(TraceParentError::Form)?;
    let (pairs, []) = digits.as_chunks::<2>() else { return Err(TraceParentError::Form) };
    let pairs = <&[[u8; 2]; N]>::try_from(pairs).map_err(|_| TraceParentError::Form)?;
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Ok(bytes)
}

fn digit(byte: u8) -> Result<u8, TraceParentError> {
    match byte {
        b'0'..=b'9' => Ok(byte ^ b'0'),
        b'a'..=b'f' => Ok(byte.wrapping_sub(b'a').wrapping_add(10)),
        _ => Err(TraceParentError::Digit),
    }
}

/// Numbers of which none comes twice in this process. The kernel is asked once, as a call must not cost
/// system calls; what follows is a walk over all numbers in mixed order (`SplitMix64`).
struct Numbers {
    next: AtomicU64,
    /// What tells traces of two processes apart even if their walks cross.
    salt: u64,
}

impl Numbers {
    fn get() -> &'static Self {
        static NUMBERS: OnceLock<Numbers> = OnceLock::new();
        NUMBERS.get_or_init(|| Self { next: AtomicU64::new(random()), salt: random() })
    }

    fn trace(&self) -> [u8; 16] {
        let id = (u128::from(self.step() ^ self.salt) << 64) | u128::from(self.step());
        id.to_be_bytes()
    }

    fn span(&self) -> [u8; 8] {
        self.step().to_be_bytes()
    }

    /// The next number, never zero.
    fn step(&self) -> u64 {
        loop {
            let mut mixed = self.next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            if mixed != 0 {
                return mixed;
            }
        }
    }
}

fn random() -> u64 {
    (u64::from(meshx_rt::random::u32()) << 32) | u64::from(meshx_rt::random::u32())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The example of §3.2.3.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Result<TraceParent, TraceParentError> {
        text.parse()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let parent = read(EXAMPLE).unwrap();
        assert_eq!(parent.to_string(), EXAMPLE);
        assert_eq!(
            u128::from_be_bytes(parent.trace_id()),
            0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736
        );
        assert_eq!(u64::from_be_bytes(parent.span_id()), 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled());
        let other = TraceParent::root(false);
        assert_eq!(read(&other.to_string()), Ok(other));
        assert!(other.to_string().ends_with("-00"));
    }

    #[test]
    fn flags_that_are_not_known_are_not_passed_on() {
        let text = |flags| format!("{}{flags}", &EXAMPLE[..53]);
        assert_eq!(read(&text("ff")).unwrap().to_string(), EXAMPLE);
        assert_eq!(read(&text("fe")).unwrap().to_string(), text("00"));
        assert_eq!(read(&text("02")).unwrap().to_string(), text("00"));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known_and_written_as_ours() {
        let cc = EXAMPLE.replacen("00", "cc", 1);
        for good in [cc.clone(), format!("{cc}-"), format!("{cc}-what-ever.comes")] {
            assert_eq!(read(&good).unwrap().to_string(), EXAMPLE, "{good}");
        }
        for bad in [format!("{cc}."), format!("{cc}0"), format!("{cc}-{}", "x".repeat(LEN_MAX))] {
            assert_eq!(read(&bad), Err(TraceParentError::Form), "{bad}");
        }
    }

    #[test]
    fn nothing_else_is_taken() {
        use TraceParentError::{Digit, Form, Version, Zero};
        for (bad, why) in [
            ("", Form),
            ("00", Form),
            (&EXAMPLE[..54], Form),
            (&format!("{EXAMPLE}-"), Form),
            (&format!("{EXAMPLE}-00"), Form),
            (&format!(" {EXAMPLE}"), Form),
            (&format!("{EXAMPLE} "), Form),
            (&EXAMPLE.replace('-', "_"), Form),
            (&EXAMPLE.replacen("00-4", "004-", 1), Form),
            (&EXAMPLE.replacen("6-0", "-60", 1), Form),
            ("00-4bf92f3577b34da6a3ce929d0e0e47-6-00f067aa0ba902b7-01", Form),
            (&EXAMPLE.replacen("00", "ff", 1), Version),
            (&EXAMPLE.to_uppercase(), Digit),
            (&EXAMPLE.replacen("4b", "4g", 1), Digit),
            (&EXAMPLE.replacen("00", "0x", 1), Digit),
            ("00-4bf92f3577b34da6a3ce929d0e0e47\u{e9}-00f067aa0ba902b7-01", Digit),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", Zero),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", Zero),
        ] {
            assert_eq!(read(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn any_byte_at_any_place_is_read_or_refused() {
        for at in 0..EXAMPLE.len() {
            for byte in 0..=127_u8 {
                let mut changed = EXAMPLE.as_bytes().to_vec();
                changed[at] = byte;
                let text = String::from_utf8(changed).unwrap();
                if let Ok(read) = read(&text) {
                    assert_eq!(read.to_string()[3..52], text[3..52]);
                }
            }
        }
    }

    #[test]
    fn children_stay_in_the_trace_and_no_two_are_the_same() {
        let root = TraceParent::root(true);
        let mut seen = HashSet::from([root.span_id()]);
        for _ in 0..10_000 {
            let child = root.child();
            assert_eq!((child.trace_id(), child.is_sampled()), (root.trace_id(), true));
            assert_eq!((root.above(), child.above()), (None, Some(root.span_id())));
            assert!(seen.insert(child.span_id()));
        }
        let roots: HashSet<_> = (0..10_000).map(|_| TraceParent::root(true).trace_id()).collect();
        assert_eq!(roots.len(), 10_000);
        // All bits of them change.
        let ors = roots.iter().fold(0, |all, id| all | u128::from_be_bytes(*id));
        let ands = roots.iter().fold(u128::MAX, |all, id| all & u128::from_be_bytes(*id));
        assert_eq!((ors, ands), (u128::MAX, 0));
    }

    #[test]
    fn metadata_with_two_of_them_or_a_broken_one_begins_a_trace() {
        let pair = |value: &str| (TraceParent::KEY.to_owned(), value.to_owned());
        let other = ("other".to_owned(), EXAMPLE.to_owned());
        let parent = read(EXAMPLE).unwrap();
        let good = [other.clone(), pair(EXAMPLE)];
        assert_eq!(TraceParent::of(&good), Some(parent));
        assert_eq!(TraceParent::continued(&good).trace_id(), parent.trace_id());
        assert_ne!(TraceParent::continued(&good).span_id(), parent.span_id());
        for metadata in [vec![], vec![other], vec![pair(EXAMPLE); 2], vec![pair("00")]] {
            assert_eq!(TraceParent::of(&metadata), None);
            let root = TraceParent::continued(&metadata);
            assert_ne!(root.trace_id(), parent.trace_id());
            assert!(!root.is_sampled());
        }
    }
}
