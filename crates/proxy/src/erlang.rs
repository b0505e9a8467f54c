//! The distribution hello, checked before the VM hears of it.

use meshx_core::{NodeName, ServiceName};
use meshx_dist::handshake::{BODY_MAX, Framing, SendName};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{HELLO_LIMIT, Step};

/// Reads the hello of a peer that proved to be `source` and checks that it says the same.
///
/// Returns every byte that was read, to be passed on: the hello, and whatever came with it (a peer
/// has nothing more to say before it is answered, so usually nothing).
///
/// `erl_dist_protocol`, `send_name`: the hello carries the full node name; a node that asks for a
/// name (`DFLAG_NAME_ME`) sends only its host, and the acceptor chooses the rest, so then the host
/// must be the one in the certificate.
pub(crate) async fn read_hello(
    stream: &mut (impl AsyncRead + Unpin),
    source: &ServiceName,
) -> Result<Vec<u8>, (Step, String)> {
    tokio::time::timeout(HELLO_LIMIT, read(stream, source))
        .await
        .unwrap_or_else(|_| Err((Step::Hello, format!("no hello within {HELLO_LIMIT:?}"))))
}

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    source: &ServiceName,
) -> Result<Vec<u8>, (Step, String)> {
    let malformed = |error: &dyn std::fmt::Display| (Step::Hello, error.to_string());
    let mut bytes = Vec::with_capacity(256);
    let hello = loop {
        if let Some((body, _)) = Framing::U16.split(&bytes).map_err(|e| malformed(&e))? {
            break SendName::decode(body).map_err(|e| malformed(&e))?;
        }
        if bytes.len() > BODY_MAX + Framing::U16.prefix() {
            return Err(malformed(&"the hello is too long"));
        }
        let read = stream.read_buf(&mut bytes).await.map_err(|e| malformed(&e))?;
        if read == 0 {
            return Err(malformed(&"the connection ended before the hello"));
        }
    };
    let proved = source.as_node();
    let agrees = if hello.is_dynamic() {
        proved.as_ref().map(NodeName::host) == Some(hello.name.as_str())
    } else {
        hello.name == source.as_str()
    };
    if agrees {
        Ok(bytes)
    } else {
        let name = &hello.name;
        let detail = format!("the hello says `{name}`, the certificate says `{source}`");
        Err((Step::NodeName, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshx_dist::handshake::{Flags, Form};

    fn hello(name: &str, dynamic: bool) -> Vec<u8> {
        let flags = if dynamic { Flags::NAME_ME } else { Flags::HANDSHAKE_23 };
        let message = SendName { form: Form::New, flags, creation: 5, name: name.to_owned() };
        let mut out = bytes::BytesMut::new();
        message.encode(Framing::U16, &mut out).unwrap();
        out.to_vec()
    }

    async fn check(bytes: &[u8], source: &str) -> Result<Vec<u8>, Step> {
        read_hello(&mut &bytes[..], &source.parse().unwrap()).await.map_err(|(step, _)| step)
    }

    #[tokio::test]
    async fn the_name_must_be_the_one_in_the_certificate() {
        let bytes = hello("a@h", false);
        assert_eq!(check(&bytes, "a@h").await, Ok(bytes.clone()));
        assert_eq!(check(&bytes, "b@h").await, Err(Step::NodeName));
        assert_eq!(check(&hello("h", true), "rem-1@h").await, Ok(hello("h", true)));
        assert_eq!(check(&hello("h", true), "rem-1@other").await, Err(Step::NodeName));
        assert_eq!(check(&hello("h", true), "web").await, Err(Step::NodeName));
    }

    #[tokio::test]
    async fn what_is_no_hello_is_refused() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", b"\xff\xffN", b"\x00\x00", b"\x00\x02Nx"]
        {
            assert_eq!(check(bytes, "a@h").await, Err(Step::Hello), "{bytes:?}");
        }
    }
}
