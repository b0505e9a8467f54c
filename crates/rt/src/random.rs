//! Randomness of the operating system.

/// 32 random bits.
pub fn u32() -> u32 {
    getrandom::u32().unwrap_or_else(|_| fallback())
}

/// A number below `bound`; 0 when `bound` is 0.
pub fn below(bound: usize) -> usize {
    if bound == 0 { 0 } else { u32() as usize % bound }
}

/// `length` random characters of `0-9a-f`, for names that must not collide.
pub fn hex(length: usize) -> String {
    (0..length).map(|_| char::from_digit(u32() & 15, 16).unwrap_or('0')).collect()
}

/// Only reached where the kernel has no entropy call at all: enough for jitter and names. Keys and
/// challenges never come from here.
fn fallback() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.subsec_nanos())
}
