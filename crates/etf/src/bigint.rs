//! Integers of any size.

use std::cmp::Ordering;
use std::fmt;

/// An integer of any size: a sign and a magnitude in little-endian bytes, as on the wire.
///
/// There is one representation of every value: no leading zeros, and zero is not negative. What
/// fits an `i64` is [`Term::Integer`](crate::Term::Integer) wherever this crate makes a term.
///
/// ```
/// use meshx_etf::BigInt;
/// let big = BigInt::from(-(1_i128 << 100));
/// assert_eq!(big.to_string(), "-1267650600228229401496703205376");
/// assert_eq!(i128::try_from(&big), Ok(-(1 << 100)));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct BigInt {
    negative: bool,
    digits: Box<[u8]>,
}

/// A magnitude above this many bytes prints in base 16, because base 10 takes quadratic time.
pub(crate) const DECIMAL: usize = 32 * 1024;

impl BigInt {
    /// The integer of this sign and magnitude (little-endian bytes).
    pub fn new(negative: bool, magnitude: &[u8]) -> Self {
        let digits = trim(magnitude);
        Self { negative: negative && !digits.is_empty(), digits: digits.into() }
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// Its magnitude as little-endian bytes; the last one is not zero.
    pub fn magnitude(&self) -> &[u8] {
        &self.digits
    }

    /// The value, if it fits.
    pub fn to_i64(&self) -> Option<i64> {
        small(self.negative, &self.digits)
    }

    /// The integer part of a finite float, exactly; zero for others.
    pub(crate) fn from_float(value: f64) -> Self {
        let bits = value.to_bits();
        let exponent = u32::try_from((bits >> 52) & 0x7ff).unwrap_or_default();
        let mantissa = (bits & 0x000f_ffff_ffff_ffff) | 0x0010_0000_0000_0000;
        if exponent < 1023 || exponent == 0x7ff {
            return Self::default();
        }
        if exponent < 1023 + 52 {
            let shift = (1023_u32 + 52).saturating_sub(exponent);
            return Self::new(value < 0.0, &(mantissa >> shift).to_le_bytes());
        }
        let shift = exponent.saturating_sub(1023 + 52);
        let zeros = usize::try_from(shift / 8).unwrap_or_default();
        let mut digits = vec![0; zeros];
        digits.extend_from_slice(&(u128::from(mantissa) << (shift % 8)).to_le_bytes());
        Self::new(value < 0.0, &digits)
    }

    /// Reads digits of a base from 2 to 36; `None` for anything else and for more digits than a
    /// sensible time allows.
    pub(crate) fn parse(negative: bool, text: &str, base: u32) -> Option<Self> {
        if text.is_empty() || text.len() > DECIMAL.saturating_mul(2) {
            return None;
        }
        let mut limbs: Vec<u32> = Vec::new();
        for character in text.chars().filter(|&c| c != '_') {
            let mut carry = u64::from(character.to_digit(base)?);
            for limb in &mut limbs {
                let sum = u64::from(*limb).saturating_mul(base.into()).saturating_add(carry);
                *limb = low(sum);
                carry = sum >> 32;
            }
            if carry > 0 {
                limbs.push(low(carry));
            }
        }
        let digits: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        Some(Self::new(negative, &digits))
    }

    fn decimal(&self) -> String {
        let mut limbs: Vec<u32> = self
            .digits
            .chunks(4)
            .map(|chunk| {
                chunk.iter().rev().fold(0_u32, |limb, &byte| (limb << 8) | u32::from(byte))
            })
            .collect();
        let mut groups = Vec::new();
        while !limbs.is_empty() {
            let mut rest = 0_u64;
            for limb in limbs.iter_mut().rev() {
                let value = (rest << 32) | u64::from(*limb);
                *limb = low(value / 1_000_000_000);
                rest = value % 1_000_000_000;
            }
            groups.push(rest);
            while limbs.last() == Some(&0) {
                limbs.pop();
            }
        }
        let mut text = groups.pop().unwrap_or_default().to_string();
        for group in groups.iter().rev() {
            text.push_str(&format!("{group:09}"));
        }
        text
    }
}

/// The value of a sign and magnitude, if it fits.
#[inline]
pub(crate) fn small(negative: bool, magnitude: &[u8]) -> Option<i64> {
    let digits = trim(magnitude);
    let mut bytes = [0; 8];
    bytes.get_mut(..digits.len())?.copy_from_slice(digits);
    let value = u64::from_le_bytes(bytes);
    if negative { 0_i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

#[inline]
fn trim(magnitude: &[u8]) -> &[u8] {
    let len = magnitude.iter().rposition(|&byte| byte != 0).map_or(0, |at| at.saturating_add(1));
    magnitude.get(..len).unwrap_or(magnitude)
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}

impl From<i128> for BigInt {
    fn from(value: i128) -> Self {
        Self::new(value < 0, &value.unsigned_abs().to_le_bytes())
    }
}

impl From<u128> for BigInt {
    fn from(value: u128) -> Self {
        Self::new(false, &value.to_le_bytes())
    }
}

impl From<i64> for BigInt {
    fn from(value: i64) -> Self {
        i128::from(value).into()
    }
}

impl From<u64> for BigInt {
    fn from(value: u64) -> Self {
        u128::from(value).into()
    }
}

/// The error is the number itself: it does not fit.
impl<'a> TryFrom<&'a BigInt> for i128 {
    type Error = &'a BigInt;

    fn try_from(big: &'a BigInt) -> Result<Self, &'a BigInt> {
        let value = u128::try_from(&BigInt { negative: false, digits: big.digits.clone() });
        let value = value.map_err(|()| big)?;
        if big.negative { 0_i128.checked_sub_unsigned(value) } else { value.try_into().ok() }
            .ok_or(big)
    }
}

impl TryFrom<&BigInt> for u128 {
    type Error = ();

    fn try_from(big: &BigInt) -> Result<Self, ()> {
        let mut bytes = [0; 16];
        if big.negative {
            return Err(());
        }
        bytes.get_mut(..big.digits.len()).ok_or(())?.copy_from_slice(&big.digits);
        Ok(Self::from_le_bytes(bytes))
    }
}

impl PartialOrd for BigInt {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BigInt {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitudes = || {
            let digits = (self.digits.iter().rev(), other.digits.iter().rev());
            self.digits.len().cmp(&other.digits.len()).then_with(|| digits.0.cmp(digits.1))
        };
        match (self.negative, other.negative) {
            (false, false) => magnitudes(),
            (true, true) => magnitudes().reverse(),
            (negative, _) => {
                if negative {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
        }
    }
}

/// In base 10; above 32 KiB of magnitude as `16#...`, which Erlang reads too.
impl fmt::Display for BigInt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        if self.digits.len() <= DECIMAL {
            return f.write_str(&self.decimal());
        }
        f.write_str("16#")?;
        let mut bytes = self.digits.iter().rev();
        bytes.next().map_or(Ok(()), |byte| write!(f, "{byte:X}"))?;
        bytes.try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for BigInt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
