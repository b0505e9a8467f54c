//! Messages as frames, by the parts that a connection would use.

use std::num::NonZeroU64;

use meshx_etf::dist::{self, Draft, Form, OutCache};
use meshx_etf::{Term, TypedError};

/// A message that is not yet for any connection.
pub(crate) fn draft(control: &Term, payload: &Term) -> Draft {
    typed(control, |draft| Ok(draft.payload(payload)?)).expect("terms that have an encoding")
}

pub(crate) fn typed(
    control: &Term,
    payload: impl FnOnce(&mut Draft) -> Result<(), TypedError>,
) -> Result<Draft, TypedError> {
    let mut draft = Draft::new(Form::Cached);
    draft.term(control)?;
    draft.end_control();
    payload(&mut draft)?;
    Ok(draft)
}

/// The message as one frame.
pub(crate) fn whole(out: &mut OutCache, draft: &Draft) -> Vec<u8> {
    let mut wire = Vec::new();
    dist::begin_whole(&mut wire);
    out.header(draft, &mut wire);
    draft.slices().for_each(|slice| wire.extend_from_slice(slice));
    wire
}

/// The message in fragments with at most `size` bytes of the payload.
pub(crate) fn fragments(
    out: &mut OutCache,
    draft: &Draft,
    sequence: NonZeroU64,
    size: usize,
) -> Vec<Vec<u8>> {
    let body: Vec<u8> = draft.slices().flatten().copied().collect();
    let (control, payload) = body.split_at(draft.control_len());
    let mut parts = payload.chunks(size);
    let count = u64::try_from(parts.len().max(1)).expect("few");
    let mut frames = vec![Vec::new()];
    dist::begin_first(sequence, count, &mut frames[0]);
    out.header(draft, &mut frames[0]);
    frames[0].extend_from_slice(control);
    frames[0].extend_from_slice(parts.next().unwrap_or_default());
    for (part, left) in parts.zip((1..count).rev()) {
        let mut frame = Vec::new();
        dist::begin_next(sequence, left, &mut frame);
        frame.extend_from_slice(part);
        frames.push(frame);
    }
    frames
}
