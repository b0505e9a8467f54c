//! Three Rust nodes and a stock VM, to which everything happens in an order that a seed gives:
//! processes start, link, unlink, monitor, shoot each other and end; connections are cut and frozen;
//! nodes are killed and come back as another creation. A history of what each process saw is checked
//! against what the Erlang reference manual promises: each link and each monitor ends exactly once,
//! for a reason that was there, and no exit signal is lost or doubled.
//!
//! `MESHX_TEST_SEED` repeats a run, as far as the machine does; `MESHX_TEST_CHAOS` is for how many
//! seconds it goes on (15 if not said).

mod actor;
mod checker;
mod gate;
mod world;

use std::time::Duration;

use meshx_e2e::{Release, skips};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Numbers of a seed (splitmix64).
pub(crate) struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_and_monitors_end_exactly_once() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = variable("MESHX_TEST_SEED")
        .unwrap_or(now.as_secs() * 1000 + u64::from(now.subsec_millis()));
    let time = Duration::from_secs(variable("MESHX_TEST_CHAOS").unwrap_or(15));
    eprintln!("MESHX_TEST_SEED={seed}");
    let mut world = world::World::new(seed).await;
    world.run(time).await;
    let history = world.end().await;
    let done = checker::check(&history);
    eprintln!("{done:?}");
    assert!(done.wrong.is_empty(), "MESHX_TEST_SEED={seed}: {:#?}", done.wrong);
    assert!(done.links > 20 && done.monitors > 50 && done.shots > 20, "too little: {done:?}");
    the_checker_notices(&history);
}

/// What the same history would be with one fault.
fn the_checker_notices(history: &checker::History) {
    let with = |change: fn(&mut Vec<actor::Line>)| {
        let mut wrong = history.clone();
        change(&mut wrong.lines);
        checker::check(&wrong).wrong
    };
    let down = with(|lines| doubled(lines, |event| matches!(event, actor::Event::Down(..))));
    assert!(down.iter().any(|it| it.starts_with("fired again")), "{down:?}");
    let shot = with(|lines| doubled(lines, actor::Event::is_shot));
    assert!(shot.iter().any(|it| it.starts_with("an exit signal was doubled")), "{shot:?}");
    let lost = with(|lines| lines.retain(|line| !matches!(line.event, actor::Event::Down(..))));
    assert!(lost.iter().any(|it| it.starts_with("a monitor did not fire")), "{lost:?}");
    let exits = with(|lines| lines.retain(|line| !matches!(line.event, actor::Event::Exit(..))));
    assert!(exits.iter().any(|it| it.starts_with("a link did not end")), "{exits:?}");
    assert!(exits.iter().any(|it| it.starts_with("an exit signal was lost")), "{exits:?}");
}

fn doubled(lines: &mut Vec<actor::Line>, of: fn(&actor::Event) -> bool) {
    let line = lines.iter().find(|line| of(&line.event)).cloned();
    lines.extend(line);
}
