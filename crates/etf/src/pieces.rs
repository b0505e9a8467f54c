//! An encoded term of which large binaries are not copied.

use crate::{Binary, EncodeError, Encoder, Term, tag};

/// An encoded term in pieces, for a vectored write: small parts in one buffer, and between them the
/// large binaries, shared with the term.
///
/// ```
/// use meshx_etf::{Binary, Encoder, Term, decode};
/// let large = Term::from(Binary::from(vec![7; 1 << 20]));
/// let pieces = Encoder::new().pieces(&Term::Tuple(vec![large.clone(), 1.into()]))?;
/// assert_eq!(pieces.slices().map(<[u8]>::len).collect::<Vec<_>>(), [8, 1 << 20, 2]);
/// let whole: Vec<u8> = pieces.slices().flatten().copied().collect();
/// assert_eq!(decode(&whole)?, Term::Tuple(vec![large, 1.into()]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Pieces {
    bytes: Vec<u8>,
    large: Vec<(usize, Binary)>,
    large_bytes: usize,
}

/// From so many bytes on, sharing costs less than copying.
pub(crate) const LARGE: usize = 4096;

impl Encoder {
    /// Encodes a term with its version byte; binaries of 4 KiB and more are shared with it. Never
    /// compressed.
    pub fn pieces(&self, term: &Term) -> Result<Pieces, EncodeError> {
        let mut pieces = Pieces { bytes: Vec::with_capacity(128), ..Pieces::default() };
        pieces.bytes.push(tag::VERSION);
        let mut writer = self.writer(&mut pieces.bytes);
        writer.large = Some((&mut pieces.large, &mut pieces.large_bytes));
        writer.term(term)?;
        Ok(pieces)
    }
}

impl Pieces {
    /// How many bytes there are in all.
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_add(self.large_bytes)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The pieces in their order; none is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        parts(&self.bytes, &self.large).map(|(bytes, _)| bytes)
    }
}

/// What is in `bytes`, and between it the binaries at their places; beside each of these itself.
pub(crate) fn parts<'a>(
    bytes: &'a [u8],
    large: &'a [(usize, Binary)],
) -> impl Iterator<Item = (&'a [u8], Option<&'a Binary>)> {
    let starts = [0].into_iter().chain(large.iter().map(|&(at, _)| at));
    let ends = large.iter().map(|&(at, _)| at).chain([bytes.len()]);
    let small = starts.zip(ends).map(move |(start, end)| bytes.get(start..end).zip(Some(None)));
    let large = large.iter().map(|(_, binary)| Some((binary.as_slice(), Some(binary))));
    let both = small.zip(large.chain([None])).flat_map(|(small, large)| [small, large]);
    both.flatten().filter(|(slice, _)| !slice.is_empty())
}
