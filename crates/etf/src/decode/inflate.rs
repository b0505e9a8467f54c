//! Compressed terms.

use flate2::{Decompress, FlushDecompress, Status};

use super::DecodeError;
use crate::wire::{Reader, size};

/// Inflates what follows the tag; gives also how many bytes of `input` that took. The promised
/// size must be met exactly, and the memory grows with what really comes out.
pub(super) fn inflate(input: &[u8], limit: usize) -> Result<(Vec<u8>, usize), DecodeError> {
    const STEP: usize = 64 * 1024;
    let mut reader = Reader::new(input);
    let promised = size(reader.u32().ok_or(DecodeError::Truncated)?);
    if promised > limit {
        return Err(DecodeError::Size { size: promised, limit });
    }
    let stream = reader.rest();
    let mut inflater = Decompress::new(true);
    let mut out = Vec::new();
    loop {
        let used = position(inflater.total_in());
        let left = stream.get(used..).unwrap_or_default();
        // One byte more than promised, to notice a stream that does not end there.
        let room = promised.saturating_add(1).saturating_sub(out.len()).min(STEP);
        out.reserve(room);
        let before = (inflater.total_in(), out.len());
        let status = inflater.decompress_vec(left, &mut out, FlushDecompress::None);
        match status.map_err(|_| DecodeError::Compressed)? {
            Status::StreamEnd => break,
            _ if out.len() > promised => return Err(DecodeError::Compressed),
            _ if before == (inflater.total_in(), out.len()) => return Err(DecodeError::Compressed),
            Status::Ok | Status::BufError => {}
        }
    }
    if out.len() != promised {
        return Err(DecodeError::Compressed);
    }
    Ok((out, position(inflater.total_in()).saturating_add(4)))
}

fn position(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
