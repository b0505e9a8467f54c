//! How an OPEN begins (§2.5).

use std::time::Duration;

use bytes::BufMut;

use super::client::Request;
use crate::{Error, Executed, Kind, NAME_MAX};

/// What an OPEN says before its block.
pub(super) struct OpenPayload {
    bytes: [u8; FIXED + NAME_MAX],
    len: usize,
}

/// Its part before the name.
const FIXED: usize = 10;

impl OpenPayload {
    pub(super) fn new(request: &Request<'_>) -> Result<Self, Error> {
        let name = request.function;
        let Some(len) = u8::try_from(name.len()).ok().filter(|&len| len > 0) else {
            let reason = format!("names of functions have 1 to {NAME_MAX} bytes");
            return Err(Error::new(Kind::UnknownFunction, Executed::Never, reason));
        };
        let micros = |it: Duration| u64::try_from(it.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut bytes = [0; FIXED + NAME_MAX];
        let mut rest = &mut bytes[..];
        rest.put_u64_le(request.timeout.map_or(0, micros));
        rest.put_u8(request.argument.codec.number());
        rest.put_u8(len);
        rest.put_slice(name.as_bytes());
        Ok(Self { bytes, len: FIXED.saturating_add(name.len()) })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
