//! Durations as Go writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nanoseconds of the units of Go's `time.ParseDuration`.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5
    ("μs", 1_000), // U+03BC
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest duration that Go can hold, in nanoseconds.
const MAX: u128 = i64::MAX as u128;

/// A duration in Go's text form: `10s`, `1m30s`, `500ms`, `1.5h`.
///
/// Negative durations are refused: none is meaningful in this API. A bare number other than `0` has
/// no unit and is refused as text; as a JSON number it is nanoseconds, as Consul reads it.
///
/// ```
/// use meshx_consul_api::GoDuration;
/// let wait: GoDuration = "1.5m".parse()?;
/// assert_eq!(wait.to_string(), "1m30s");
/// assert!("10".parse::<GoDuration>().is_err());
/// # Ok::<(), meshx_consul_api::DurationError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(Duration);

/// A text that is not a duration in Go's form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// Not a number with a unit.
    #[error("not a duration: write a number and a unit, such as `10s` or `1m30s`")]
    Invalid,
    /// Beyond what Go can hold (292 years), or negative.
    #[error("the duration is out of range")]
    OutOfRange,
}

impl GoDuration {
    /// A duration of this many seconds.
    pub fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The same duration in the standard library's type.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<GoDuration> for Duration {
    fn from(duration: GoDuration) -> Self {
        duration.0
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if text.starts_with('-') {
            return Err(DurationError::OutOfRange);
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() || text.len() > 64 {
            return Err(DurationError::Invalid);
        }
        let mut total: u128 = 0;
        while !rest.is_empty() {
            let (whole, after) = split_digits(rest);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => split_digits(after),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(DurationError::Invalid);
            }
            let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let (_, nanos) =
                UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError::Invalid)?;
            total = total.saturating_add(scale(whole, fraction, *nanos)?);
            rest = after;
        }
        if total > MAX {
            return Err(DurationError::OutOfRange);
        }
        u64::try_from(total)
            .map(|nanos| Self(Duration::from_nanos(nanos)))
            .map_err(|_| DurationError::OutOfRange)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)] {
            if nanos < size * 1_000 {
                return write!(f, "{}{unit}", decimal(nanos, size));
            }
        }
        let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", decimal(nanos % 60_000_000_000, 1_000_000_000))
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Nanos(i64),
            Float(f64),
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) if text.is_empty() => Ok(Self::default()),
            Form::Text(text) => text.parse().map_err(de::Error::custom),
            Form::Nanos(nanos) => u64::try_from(nanos)
                .map(|nanos| Self(Duration::from_nanos(nanos)))
                .map_err(|_| de::Error::custom(DurationError::OutOfRange)),
            Form::Float(nanos) => Duration::try_from_secs_f64(nanos / 1e9)
                .map(Self)
                .map_err(|_| de::Error::custom(DurationError::OutOfRange)),
        }
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` of a unit, in nanoseconds, cut off below one.
fn scale(whole: &str, fraction: &str, unit: u128) -> Result<u128, DurationError> {
    let number = |digits: &str| -> Result<u128, DurationError> {
        if digits.is_empty() {
            Ok(0)
        } else {
            digits.parse().map_err(|_| DurationError::OutOfRange)
        }
    };
    // More than 15 digits of a fraction are below a nanosecond, even of hours.
    let fraction = fraction.get(..15).unwrap_or(fraction);
    let size = fraction.bytes().fold(1_u128, |size, _| size * 10);
    let parts = number(fraction)?.saturating_mul(unit) / size;
    Ok(number(whole)?.saturating_mul(unit).saturating_add(parts))
}

/// `value / size` in decimals without trailing zeros.
fn decimal(value: u128, size: u128) -> String {
    let (whole, rest) = (value / size, value % size);
    if rest == 0 {
        return whole.to_string();
    }
    let width = size.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_writes_as_go_does() {
        for (text, canonical) in [
            ("0", "0s"),
            ("10s", "10s"),
            ("90s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("72h", "72h0m0s"),
            ("500ms", "500ms"),
            ("1500ms", "1.5s"),
            ("1h15m30.918s", "1h15m30.918s"),
            ("100us", "100µs"),
            ("+5m", "5m0s"),
            (".5s", "500ms"),
            ("2562047h47m16.854775807s", "2562047h47m16.854775807s"),
        ] {
            assert_eq!(text.parse::<GoDuration>().unwrap().to_string(), canonical, "{text}");
        }
        for bad in ["", "10", "s", "abc", "1x", "1 s", "-1s", ".s", "1s2", "9999999999h", "+"] {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
        }
    }

    #[test]
    fn json_numbers_are_nanoseconds() {
        let read = |json: &str| serde_json::from_str::<GoDuration>(json).map(GoDuration::get);
        assert_eq!(read("1000000").unwrap(), Duration::from_millis(1));
        assert_eq!(read("1e9").unwrap(), Duration::from_secs(1));
        assert_eq!(read("\"\"").unwrap(), Duration::ZERO);
        assert!(read("-1").is_err());
        assert!(read("1e300").is_err());
        assert!(read("true").is_err());
    }

    proptest! {
        #[test]
        fn text_form_is_lossless(nanos in 0..=i64::MAX as u64) {
            let duration = GoDuration(Duration::from_nanos(nanos));
            prop_assert_eq!(duration.to_string().parse::<GoDuration>(), Ok(duration));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
