//! Reading big-endian fields from a slice, without indexing.

/// A cursor over a slice. Every read is `None` when too few bytes are left, and then takes nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.left.split_first_chunk::<N>()?;
        self.left = tail;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.left.split_at_checked(count)?;
        self.left = tail;
        Some(head)
    }

    /// A `u16` length and that many bytes.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let count = ahead.u16()?;
        let bytes = ahead.take(count.into())?;
        *self = ahead;
        Some(bytes)
    }

    /// Everything that has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.left
    }
}
