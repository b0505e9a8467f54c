//! The relay delivers exactly the bytes, both ways, whatever the streams do.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use meshx_rt::{Side, Tap, relay};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
    duplex,
};

use crate::fickle::Fickle;

/// Keeps what it saw, per side.
#[derive(Default)]
struct Record([Vec<u8>; 2]);

impl Tap for Record {
    fn seen(&mut self, from: Side, bytes: &[u8]) {
        self.0[usize::from(from == Side::B)].extend_from_slice(bytes);
    }
}

/// How one end of the relay writes and reads: sizes and pauses in milliseconds, walked round.
#[derive(Clone, Debug)]
struct Habit {
    sends: usize,
    pieces: Vec<usize>,
    pauses: Vec<u64>,
}

fn habit() -> impl Strategy<Value = Habit> {
    (0..150_000_usize, vec(1..40_000_usize, 1..6), vec(0..3_u64, 1..6))
        .prop_map(|(sends, pieces, pauses)| Habit { sends, pieces, pauses })
}

/// 0 waits, or moves a single byte now and then.
fn moods() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![2 => 0..3_usize, 3 => 1..5000_usize, 1 => Just(100_000)], 1..7)
}

/// Bytes in which a lost, doubled or swapped piece shows.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

async fn write(mut end: WriteHalf<DuplexStream>, bytes: Vec<u8>, habit: Habit) {
    let mut left = bytes.as_slice();
    let habits = habit.pieces.iter().cycle().zip(habit.pauses.iter().cycle());
    for (piece, pause) in habits {
        if left.is_empty() {
            break;
        }
        let (now, later) = left.split_at((*piece).min(left.len()));
        end.write_all(now).await.unwrap();
        left = later;
        tokio::time::sleep(Duration::from_millis(*pause)).await;
    }
    end.shutdown().await.unwrap();
}

async fn read(mut end: ReadHalf<DuplexStream>, habit: Habit) -> Vec<u8> {
    let mut all = Vec::new();
    let habits = habit.pieces.iter().cycle().zip(habit.pauses.iter().rev().cycle());
    for (piece, pause) in habits {
        let mut space = vec![0; *piece];
        let count = end.read(&mut space).await.unwrap();
        if count == 0 {
            break;
        }
        all.extend_from_slice(&space[..count]);
        tokio::time::sleep(Duration::from_millis(*pause)).await;
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn delivers_exactly_the_bytes(
        seed in any::<u64>(),
        (left, right) in (habit(), habit()),
        pipes in (1..9000_usize, 1..9000_usize),
        moods in (moods(), moods()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (client, a) = duplex(pipes.0);
            let (b, server) = duplex(pipes.1);
            let (mut a, mut b) = (Fickle::new(a, moods.0), Fickle::new(b, moods.1));
            let relay = tokio::spawn(async move {
                let mut record = Record::default();
                (relay(&mut a, &mut b, &mut record).await, record)
            });
            let forth = content(left.sends, seed);
            let back = content(right.sends, !seed);
            let (client_read, client_write) = tokio::io::split(client);
            let (server_read, server_write) = tokio::io::split(server);
            let writers = [
                tokio::spawn(write(client_write, forth.clone(), left.clone())),
                tokio::spawn(write(server_write, back.clone(), right.clone())),
            ];
            let (there, here) =
                (tokio::spawn(read(server_read, right)), tokio::spawn(read(client_read, left)));
            // Virtual time: an hour passes at once when nobody can go on any more.
            let all = async {
                for writer in writers {
                    writer.await.unwrap();
                }
                (there.await.unwrap(), here.await.unwrap())
            };
            let all = tokio::time::timeout(Duration::from_hours(1), all).await;
            let (there, here) = all.expect("bytes are stuck in the relay");
            // No `assert_eq`: it would print everything.
            assert!(there == forth, "forth differs");
            assert!(here == back, "back differs");
            let (ended, record) = relay.await.unwrap();
            assert!(ended.error.is_none(), "{:?}", ended.error);
            assert!(record.0 == [forth, back], "the tap saw something else");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_is_not_kept_back_until_more_follows() {
    let (mut client, a) = duplex(256);
    let (b, mut server) = duplex(256);
    let (mut a, mut b) = (Fickle::new(a, vec![3, 0, 500]), Fickle::new(b, vec![0, 7, 100]));
    tokio::spawn(async move { relay(&mut a, &mut b, &mut ()).await });
    tokio::spawn(async move {
        let mut word = [0; 5];
        while server.read_exact(&mut word).await.is_ok() {
            word.reverse();
            server.write_all(&word).await.unwrap();
        }
    });
    let talk = async {
        for _ in 0..50 {
            client.write_all(b"hello").await.unwrap();
            let mut word = [0; 5];
            client.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"olleh");
        }
    };
    tokio::time::timeout(Duration::from_hours(1), talk).await.expect("an answer is stuck");
}

/// Gives bytes as fast as it is asked; takes every write, or none.
struct Endless {
    reads: usize,
    accepts: bool,
}

impl Endless {
    fn accepting() -> Self {
        Self { reads: 0, accepts: true }
    }

    fn refusing() -> Self {
        Self { reads: 0, accepts: false }
    }
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads += 1;
        assert!(self.reads <= 100 * 64, "the relay keeps its thread for itself");
        let count = space.remaining();
        space.put_slice(&vec![7; count]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(if self.accepts {
            Ok(bytes.len())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Counts what was taken, for others to see.
struct Counter(Arc<AtomicUsize>);

impl Tap for Counter {
    fn seen(&mut self, _from: Side, bytes: &[u8]) {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_stops_the_writer() {
    let (mut b, mut server) = duplex(64);
    let taken = Arc::new(AtomicUsize::new(0));
    let mut tap = Counter(Arc::clone(&taken));
    tokio::spawn(async move { relay(&mut Endless::refusing(), &mut b, &mut tap).await });
    for round in 1..=10 {
        let mut heard = vec![0; 100_003];
        server.read_exact(&mut heard).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        // What is between them: one buffer of 64 KiB, and the pipe.
        let kept = taken.load(Ordering::Relaxed) - round * 100_003;
        assert!(kept <= 64 * 1024 + 64, "{kept} bytes are kept");
    }
}

#[tokio::test]
async fn a_direction_that_never_waits_leaves_its_thread_to_others() {
    let (mut a, mut b, mut tap) = (Endless::accepting(), Endless::accepting(), ());
    let mut relaying = pin!(relay(&mut a, &mut b, &mut tap));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        assert!(relaying.as_mut().poll(&mut cx).is_pending());
    }
}

#[tokio::test]
async fn an_error_names_the_side_that_failed() {
    let (mut client, mut a) = duplex(64);
    client.write_all(b"x").await.unwrap();
    let ended = relay(&mut a, &mut Endless::refusing(), &mut ()).await;
    assert_eq!(ended.first, Side::B);
    assert_eq!(ended.error.unwrap().kind(), io::ErrorKind::BrokenPipe);
}

/// Sends a word, then ends as a TLS peer does that forgets `close_notify`.
struct Impolite(Option<&'static [u8]>);

impl AsyncRead for Impolite {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.take() {
            Some(bytes) => space.put_slice(bytes),
            None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Impolite {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is gone: there is nobody to be told.
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_end() {
    let (mut b, mut server) = duplex(64);
    let serving = tokio::spawn(async move {
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        got
    });
    let ended = relay(&mut Impolite(Some(b"word")), &mut b, &mut ()).await;
    assert_eq!((ended.first, ended.error.is_none()), (Side::A, true));
    assert_eq!(serving.await.unwrap(), "word");
}

/// Waits for the other side's end, then fails.
struct Sore {
    told: bool,
    waker: Option<Waker>,
}

impl AsyncRead for Sore {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.told {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Sore {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.told = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn the_side_that_closed_in_order_was_first_even_if_the_other_fails_then() {
    let (mut client, mut a) = duplex(64);
    client.shutdown().await.unwrap();
    let mut b = Sore { told: false, waker: None };
    let ended = relay(&mut a, &mut b, &mut ()).await;
    assert_eq!(ended.first, Side::A, "A hung up; B's reset is the answer to that");
    assert_eq!(ended.error.unwrap().kind(), io::ErrorKind::ConnectionReset);
}
