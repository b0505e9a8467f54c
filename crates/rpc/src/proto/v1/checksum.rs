//! The default checksum of the Elixir package.

/// A CRC-32 (IEEE 802.3), big-endian, without the zeros in front, but of one byte at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum(u32);

/// Of these parts, one after another.
///
/// ```
/// # use meshx_rpc::v1::wire::checksum;
/// assert_eq!(checksum(&[b"te", b"st"]).to_vec(), [0xd8, 0x7f, 0x7e, 0x0c]);
/// assert_eq!(checksum(&[]).to_vec(), [0]);
/// ```
pub fn checksum(parts: &[&[u8]]) -> Checksum {
    let mut crc = crc32fast::Hasher::new();
    for part in parts {
        crc.update(part);
    }
    Checksum(crc.finalize())
}

impl Checksum {
    /// As it is on the wire.
    pub fn to_vec(self) -> Vec<u8> {
        let bytes = self.0.to_be_bytes();
        let zeros = bytes.iter().take(3).take_while(|&&byte| byte == 0).count();
        bytes.get(zeros..).unwrap_or_default().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_in_front_are_left_out() {
        for (crc, bytes) in [
            (0, &[0][..]),
            (0x00_00_00_01, &[1]),
            (0x00_88_6d_11, &[0x88, 0x6d, 0x11]),
            (0x00_00_01_00, &[1, 0]),
            (0xff_00_00_00, &[255, 0, 0, 0]),
        ] {
            assert_eq!(Checksum(crc).to_vec(), bytes);
        }
    }
}
