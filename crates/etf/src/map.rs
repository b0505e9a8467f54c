//! Maps.

use std::cmp::Ordering;
use std::sync::OnceLock;

use crate::wire::size;
use crate::{Term, order};

/// A map: every key once, by `=:=`.
///
/// The pairs keep the order in which they came, so that what was decoded encodes to the same
/// bytes; equality does not look at it. Up to 32 pairs are searched one by one, more through an
/// index that is sorted by a hash of the key (collisions cost comparisons, never more). A map is
/// sorted at most once, so that comparing maps whose keys are maps takes time in proportion.
#[derive(Debug, Clone, Default)]
pub struct Map(Repr);

/// A key occurs twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a map has the same key twice")]
pub struct DuplicateKey;

type Pairs = Vec<(Term, Term)>;

#[derive(Debug, Clone)]
enum Repr {
    /// At most [`Map::SMALL`] pairs, in the order of their keys: as a VM writes them.
    Sorted(Pairs),
    Other(Box<Other>),
}

#[derive(Debug, Clone)]
struct Other {
    pairs: Pairs,
    /// Of more than [`Map::SMALL`] pairs: hash of the key and number, by hash and then by key.
    index: Vec<(u64, u32)>,
    /// Numbers of the pairs by the order of their keys, once that was asked for.
    sorted: OnceLock<Box<[u32]>>,
}

impl Map {
    /// Up to so many pairs a map has no index; and in a VM, it is sorted.
    pub(crate) const SMALL: usize = 32;

    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// A map of these pairs, in this order.
    pub fn from_pairs(pairs: Vec<(Term, Term)>) -> Result<Self, DuplicateKey> {
        if is_sorted(&pairs) {
            return Ok(Self(Repr::Sorted(pairs)));
        }
        let other = Other::new(pairs);
        if other.has_duplicates() {
            return Err(DuplicateKey);
        }
        Ok(Self(Repr::Other(Box::new(other))))
    }

    /// The value of a key.
    pub fn get(&self, key: &Term) -> Option<&Term> {
        self.pairs().get(self.position(key)?).map(|(_, value)| value)
    }

    /// The value of an atom as key.
    pub fn get_atom(&self, key: &str) -> Option<&Term> {
        self.get(&Term::atom(key))
    }

    /// Sets the value of a key; gives back the one that it had.
    pub fn insert(&mut self, key: Term, value: Term) -> Option<Term> {
        let position = self.position(&key);
        let pairs = match &mut self.0 {
            Repr::Sorted(pairs) => pairs,
            Repr::Other(other) => &mut other.pairs,
        };
        if let Some(pair) = position.and_then(|at| pairs.get_mut(at)) {
            return Some(std::mem::replace(&mut pair.1, value));
        }
        match &mut self.0 {
            Repr::Sorted(pairs) => {
                let last = pairs.last().is_none_or(|(last, _)| *last < key);
                pairs.push((key, value));
                if !last || pairs.len() > Self::SMALL {
                    self.0 = Repr::Other(Box::new(Other::new(std::mem::take(pairs))));
                }
            }
            Repr::Other(other) => other.push(key, value),
        }
        None
    }

    /// Removes a key; gives back its value.
    pub fn remove(&mut self, key: &Term) -> Option<Term> {
        let at = self.position(key)?;
        let mut pairs = std::mem::take(self).into_pairs();
        let (_, value) = pairs.remove(at);
        self.0 = if is_sorted(&pairs) {
            Repr::Sorted(pairs)
        } else {
            Repr::Other(Box::new(Other::new(pairs)))
        };
        Some(value)
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs().is_empty()
    }

    /// The pairs in the order in which they came.
    pub fn iter(&self) -> std::slice::Iter<'_, (Term, Term)> {
        self.pairs().iter()
    }

    /// The pairs by the order of their keys: integers before floats, then as `<` says.
    pub fn sorted(&self) -> Vec<&(Term, Term)> {
        match &self.0 {
            Repr::Sorted(pairs) => pairs.iter().collect(),
            Repr::Other(other) => {
                let pair = |&number: &u32| other.pairs.get(size(number));
                other.sorted().iter().filter_map(pair).collect()
            }
        }
    }

    /// The same map; its pairs in the order of their keys if they are at most 32.
    pub(crate) fn settled(self) -> Self {
        match self.0 {
            Repr::Other(mut other) if other.index.is_empty() => {
                other.pairs.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                Self(Repr::Sorted(other.pairs))
            }
            repr => Self(repr),
        }
    }

    fn pairs(&self) -> &[(Term, Term)] {
        match &self.0 {
            Repr::Sorted(pairs) => pairs,
            Repr::Other(other) => &other.pairs,
        }
    }

    fn into_pairs(self) -> Pairs {
        match self.0 {
            Repr::Sorted(pairs) => pairs,
            Repr::Other(other) => other.pairs,
        }
    }

    fn position(&self, key: &Term) -> Option<usize> {
        match &self.0 {
            Repr::Other(other) if !other.index.is_empty() => {
                let hash = order::fingerprint(key);
                let found = other.index.binary_search_by(|entry| other.compare(entry, hash, key));
                found.ok().and_then(|at| other.index.get(at)).map(|&(_, number)| size(number))
            }
            _ => self.iter().position(|(other, _)| other == key),
        }
    }
}

fn is_sorted(pairs: &[(Term, Term)]) -> bool {
    pairs.len() <= Map::SMALL && pairs.array_windows().all(|[(a, _), (b, _)]| a < b)
}

impl Other {
    fn new(pairs: Pairs) -> Self {
        let mut other = Self { pairs, index: Vec::new(), sorted: OnceLock::new() };
        if other.pairs.len() > Map::SMALL {
            let hashes = other.pairs.iter().map(|(key, _)| order::fingerprint(key));
            let mut index: Vec<(u64, u32)> = hashes.zip(0..).collect();
            index.sort_unstable_by(|a, b| {
                a.0.cmp(&b.0).then_with(|| other.key(a.1).cmp(&other.key(b.1)))
            });
            other.index = index;
        }
        other
    }

    fn has_duplicates(&self) -> bool {
        if self.index.is_empty() {
            return self.sorted().array_windows().any(|[a, b]| self.key(*a) == self.key(*b));
        }
        let twice = |[a, b]: &[(u64, u32); 2]| a.0 == b.0 && self.key(a.1) == self.key(b.1);
        self.index.array_windows().any(twice)
    }

    fn sorted(&self) -> &[u32] {
        self.sorted.get_or_init(|| {
            let mut numbers: Vec<u32> = self.pairs.iter().zip(0..).map(|(_, n)| n).collect();
            numbers.sort_unstable_by(|a, b| self.key(*a).cmp(&self.key(*b)));
            numbers.into()
        })
    }

    fn key(&self, number: u32) -> Option<&Term> {
        self.pairs.get(size(number)).map(|(key, _)| key)
    }

    fn compare(&self, entry: &(u64, u32), hash: u64, key: &Term) -> Ordering {
        entry.0.cmp(&hash).then_with(|| self.key(entry.1).cmp(&Some(key)))
    }

    /// A pair whose key is not there yet.
    fn push(&mut self, key: Term, value: Term) {
        self.sorted.take();
        if self.index.is_empty() {
            self.pairs.push((key, value));
            if self.pairs.len() > Map::SMALL {
                *self = Self::new(std::mem::take(&mut self.pairs));
            }
            return;
        }
        let hash = order::fingerprint(&key);
        let number = u32::try_from(self.pairs.len()).unwrap_or(u32::MAX);
        let at = self.index.partition_point(|entry| self.compare(entry, hash, &key).is_lt());
        self.index.insert(at, (hash, number));
        self.pairs.push((key, value));
    }
}

impl Default for Repr {
    fn default() -> Self {
        Self::Sorted(Vec::new())
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().all(|(key, value)| other.get(key).is_some_and(|found| found == value))
    }
}

impl Eq for Map {}

impl<'a> IntoIterator for &'a Map {
    type Item = &'a (Term, Term);
    type IntoIter = std::slice::Iter<'a, (Term, Term)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Map {
    type Item = (Term, Term);
    type IntoIter = std::vec::IntoIter<(Term, Term)>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_pairs().into_iter()
    }
}

/// The last of equal keys wins.
impl FromIterator<(Term, Term)> for Map {
    fn from_iter<I: IntoIterator<Item = (Term, Term)>>(pairs: I) -> Self {
        let mut map = Self::new();
        for (key, value) in pairs {
            map.insert(key, value);
        }
        map
    }
}
