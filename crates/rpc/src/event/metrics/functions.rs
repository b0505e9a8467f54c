//! Counts by function, without a lock.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::counts::Counts;

/// What those are counted as that have no count of their own.
pub(super) const OTHER: &str = "other";

/// Threads count each in a copy of their own, as counters that many threads write to at once are slow.
/// Beyond this many they share.
const COPIES: usize = 8;

/// A hash table that only grows: a name, once in its slot, stays there. So it is read without a lock,
/// and a slot is written by whoever comes first.
pub(super) struct Functions {
    /// At least twice as many as may be taken, and a power of two.
    slots: Box<[OnceLock<Box<Function>>]>,
    taken: AtomicUsize,
    most: usize,
    hasher: RandomState,
    other: Function,
}

struct Function {
    name: Box<str>,
    copies: [OnceLock<Box<Counts>>; COPIES],
}

impl Functions {
    pub(super) fn new(most: usize) -> Self {
        let most = most.min(1 << 16);
        let slots = (most + 1).saturating_mul(2).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| OnceLock::new()).collect(),
            taken: AtomicUsize::new(0),
            most,
            hasher: RandomState::new(),
            other: Function::new(OTHER),
        }
    }

    /// Counts something of a function; as that of another if it has no count yet and may not, or can
    /// not, get one.
    pub(super) fn count(&self, name: &str, add: bool, count: impl FnOnce(&Counts)) {
        let function = self.find(name, add).unwrap_or(&self.other);
        if let Some(copy) = function.copies.get(copy()) {
            count(copy.get_or_init(Box::default));
        }
    }

    /// All that have been counted, in order, with what all threads have counted together.
    pub(super) fn collect(&self) -> Vec<(&str, Counts)> {
        let mut functions: Vec<_> =
            self.slots.iter().filter_map(OnceLock::get).map(|it| &**it).collect();
        functions.sort_unstable_by_key(|function| &*function.name);
        functions.push(&self.other);
        let total = |function: &Function| {
            let total = Counts::default();
            function.copies.iter().filter_map(OnceLock::get).for_each(|copy| total.absorb(copy));
            total
        };
        functions.into_iter().map(|function| (&*function.name, total(function))).collect()
    }

    fn find(&self, name: &str, add: bool) -> Option<&Function> {
        if name == OTHER {
            return None;
        }
        let mask = self.slots.len().checked_sub(1)?;
        let hash = self.hasher.hash_one(name) & u64::try_from(mask).ok()?;
        let first = usize::try_from(hash).ok()?;
        // Half of the slots stay empty, so this ends soon.
        for step in 0..self.slots.len() {
            let slot = self.slots.get(first.wrapping_add(step) & mask)?;
            let function = match slot.get() {
                Some(function) => function,
                None if add => self.take(slot, name)?,
                None => return None,
            };
            if *function.name == *name {
                return Some(function);
            }
        }
        None
    }

    /// Puts a name into an empty slot, unless there is no room, or another one came first.
    fn take<'a>(&self, slot: &'a OnceLock<Box<Function>>, name: &str) -> Option<&'a Function> {
        let room = |taken: usize| (taken < self.most).then_some(taken.saturating_add(1));
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let mut is_ours = false;
        let function = slot.get_or_init(|| {
            is_ours = true;
            Box::new(Function::new(name))
        });
        if !is_ours {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
        Some(function)
    }
}

impl Function {
    fn new(name: &str) -> Self {
        Self { name: name.into(), copies: Default::default() }
    }
}

/// Which copy this thread counts in.
fn copy() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static COPY: usize = NEXT.fetch_add(1, Ordering::Relaxed) % COPIES;
    }
    COPY.try_with(|copy| *copy).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::thread;

    use super::*;

    fn names(functions: &Functions) -> Vec<(&str, u64)> {
        let count = |counts: &Counts| counts.lost.counts().map(|(_, count)| count).sum();
        functions.collect().iter().map(|(name, counts)| (*name, count(counts))).collect()
    }

    #[test]
    fn what_has_no_room_is_counted_as_other() {
        let functions = Functions::new(2);
        for name in ["b", "a", "c", "b", "other", "c"] {
            functions.count(name, true, |counts| counts.lost.add(Ok(())));
        }
        assert_eq!(names(&functions), [("a", 1), ("b", 2), ("other", 3)]);
        let none = Functions::new(0);
        none.count("a", true, |counts| counts.lost.add(Ok(())));
        assert_eq!(names(&none), [("other", 1)]);
    }

    #[test]
    fn what_may_not_be_added_is_counted_once_it_is_there() {
        let functions = Functions::new(2);
        for (name, add) in [("a", false), ("a", true), ("a", false), ("b", false)] {
            functions.count(name, add, |counts| counts.lost.add(Ok(())));
        }
        assert_eq!(names(&functions), [("a", 2), ("other", 2)]);
    }

    #[test]
    fn threads_do_not_lose_a_count_nor_take_two_slots() {
        const NAMES: u64 = 50;
        const ROUNDS: u64 = 200;
        const THREADS: u64 = 12;
        // Each thread may hold a place for a moment that it does not need.
        let functions = Functions::new(64);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let functions = &functions;
                scope.spawn(move || {
                    for step in 0..NAMES * ROUNDS {
                        let name = format!("f{:02}", (step + thread) % NAMES);
                        functions.count(&name, true, |counts| counts.lost.add(Ok(())));
                    }
                });
            }
        });
        let wanted = (0..NAMES).map(|name| (format!("f{name:02}"), ROUNDS * THREADS));
        let wanted: Vec<_> = wanted.chain([(OTHER.to_owned(), 0)]).collect();
        let names: Vec<_> =
            names(&functions).into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(names, wanted);
    }
}
