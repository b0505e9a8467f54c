//! The first word between two of our sidecars.
//!
//! TLS 1.3 lets the dialling side finish before the other has judged it, so a finished handshake does
//! not mean that anybody is there. Two of our sidecars therefore agree by ALPN ([`ALPN`]) on one
//! message before the program's bytes: the inbound side says *go on* when it has admitted the peer
//! and, for plain TCP, reached its program; or it says at which step it refused, and closes. Until
//! then the dialling side has forwarded nothing, so it may try the next instance.
//!
//! Other sidecars (Consul's, Envoy) do not know the protocol name; with them bytes flow at once.
//!
//! ```text
//! go on    0
//! refused  1, length (two bytes, big-endian, at most 512), UTF-8: step, blank, detail
//! ```

use std::io;
use std::time::Duration;

use meshx_identity::ALPN;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::rustls::CommonState;

use crate::Step;

const GO_ON: u8 = 0;
const REFUSED: u8 = 1;
/// Longest text of a refusal, in bytes.
const MAX_TEXT: u16 = 512;
/// A peer that does not read its refusal is not waited for.
const REFUSE_LIMIT: Duration = Duration::from_secs(1);

/// True when both sides of a finished handshake know the greeting.
pub(crate) fn agreed(connection: &CommonState) -> bool {
    connection.alpn_protocol() == Some(ALPN)
}

/// Inbound: the peer is admitted.
pub(crate) async fn go_on(tls: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    tls.write_all(&[GO_ON]).await?;
    tls.flush().await
}

/// Inbound: the peer is refused. Best effort; the connection closes in order.
pub(crate) async fn refuse(tls: &mut (impl AsyncWrite + Unpin), step: Step, detail: &str) {
    let mut text = format!("{step} {detail}");
    text.truncate(text.floor_char_boundary(MAX_TEXT.into()));
    let told = async {
        let length = u16::try_from(text.len()).unwrap_or(0);
        tls.write_all(&[REFUSED]).await?;
        tls.write_all(&length.to_be_bytes()).await?;
        tls.write_all(text.as_bytes()).await?;
        tls.shutdown().await
    };
    if !matches!(tokio::time::timeout(REFUSE_LIMIT, told).await, Ok(Ok(()))) {
        tracing::trace!("the refused peer was gone already");
    }
}

/// Outbound: waits for the word. An error of the connection stays an error; a refusal is
/// [`Answer::Refused`].
pub(crate) async fn read(tls: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
    match tls.read_u8().await? {
        GO_ON => Ok(Answer::GoOn),
        REFUSED => {
            let length = tls.read_u16().await?;
            if length > MAX_TEXT {
                return Err(io::Error::other("the peer's refusal is too long"));
            }
            let mut text = vec![0; length.into()];
            tls.read_exact(&mut text).await?;
            let text = String::from_utf8_lossy(&text);
            let (step, detail) = text.split_once(' ').unwrap_or((&text, ""));
            let detail = detail.chars().filter(|c| !c.is_control()).collect();
            Ok(Answer::Refused(Step::from_word(step).unwrap_or(Step::Handshake), detail))
        }
        other => Err(io::Error::other(format!("the peer's first word is {other}"))),
    }
}

/// What the inbound side said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    GoOn,
    Refused(Step, String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_keeps_its_step_and_words() {
        let (mut a, mut b) = tokio::io::duplex(4096);
        refuse(&mut a, Step::Policy, "denied by * → * (precedence 5)").await;
        let want = Answer::Refused(Step::Policy, "denied by * → * (precedence 5)".to_owned());
        assert_eq!(read(&mut b).await.unwrap(), want);

        let (mut a, mut b) = tokio::io::duplex(4096);
        refuse(&mut a, Step::Program, &"é".repeat(2000)).await;
        let Answer::Refused(step, detail) = read(&mut b).await.unwrap() else { panic!() };
        assert!(step == Step::Program && detail.chars().all(|c| c == 'é') && detail.len() < 512);
    }

    #[tokio::test]
    async fn whatever_else_is_an_error() {
        for bytes in [&b""[..], b"\x02", b"\x01\xff\xff", b"\x01\x00\x05ab"] {
            assert!(read(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
    }
}
