//! One index per result set, and who waits for it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::limits;

/// A set of results that a blocking query can wait for. Names are folded to lower case, as Consul
/// looks services up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// The list of nodes.
    Nodes,
    /// A node and its services.
    Node(String),
    /// The list of service names and tags.
    Services,
    /// The instances of a service and their checks.
    Service(String),
    /// The sidecars of a service and their checks.
    Connect(String),
    /// All checks.
    Checks,
    /// The checks of a node.
    NodeChecks(String),
    /// One service of the local agent, by id.
    AgentService(String),
    /// The intentions.
    Intentions,
    /// The trusted roots.
    Roots,
    /// The leaf certificate of a service.
    Leaf(String),
}

/// The indexes of all topics.
///
/// An index only rises as long as this value lives. A topic that is gone, or never was, has the index
/// of the last removal of any topic, so that its index does not fall either.
///
/// Across restarts it rises because the first index is the time of day in milliseconds, or above the
/// last one that was saved. Without a data directory nothing is saved: an agent that starts after the
/// wall clock went back may begin below the indexes of the one before. A client that still waits with
/// such an index is answered when its wait is over, as after a restore of Consul; clients must start
/// anew when an index falls (Consul, "Blocking Queries").
#[derive(Debug)]
pub(crate) struct Topics {
    last: u64,
    floor: u64,
    index: HashMap<Topic, u64>,
    waiters: HashMap<Topic, Arc<Notify>>,
}

impl Topics {
    /// Indexes that begin at `first`.
    pub(crate) fn new(first: u64) -> Self {
        let first = first.max(1);
        Self { last: first, floor: first, index: HashMap::new(), waiters: HashMap::new() }
    }

    /// The index of the next write.
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The index of the last write.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The result set changed: raises its index to that of the write and wakes who waits.
    pub(crate) fn touch(&mut self, topic: Topic, index: u64) {
        self.wake(&topic);
        self.index.insert(topic, index);
    }

    /// The result set became empty.
    pub(crate) fn remove(&mut self, topic: &Topic, index: u64) {
        self.wake(topic);
        self.index.remove(topic);
        self.floor = index;
    }

    /// The index of a result set.
    pub(crate) fn index(&self, topic: &Topic) -> u64 {
        self.index.get(topic).copied().unwrap_or(self.floor)
    }

    /// True when somebody waits for the result set, as far as is known.
    pub(crate) fn is_awaited(&self, topic: &Topic) -> bool {
        self.waiters.get(topic).is_some_and(|notify| Arc::strong_count(notify) > 1)
    }

    /// What is notified when the result set changes.
    pub(crate) fn waiter(&mut self, topic: &Topic) -> Arc<Notify> {
        if self.waiters.len() >= 2 * limits::BLOCKING_QUERIES {
            self.waiters.retain(|_, notify| Arc::strong_count(notify) > 1);
        }
        Arc::clone(self.waiters.entry(topic.clone()).or_default())
    }

    /// Topics that have an index of their own.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.index.len()
    }

    fn wake(&mut self, topic: &Topic) {
        if let Some(notify) = self.waiters.remove(topic) {
            notify.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_never_falls() {
        let mut topics = Topics::new(0);
        let web = Topic::Service("web".to_owned());
        assert_eq!(topics.index(&web), 1, "an empty result has an index too");
        let index = topics.next();
        topics.touch(web.clone(), index);
        let index = topics.next();
        topics.touch(Topic::Nodes, index);
        assert_eq!((topics.index(&web), topics.index(&Topic::Nodes)), (2, 3));
        let index = topics.next();
        topics.remove(&web, index);
        assert_eq!(topics.index(&web), 4);
        assert_eq!(topics.index(&Topic::Nodes), 3);
    }

    #[test]
    fn abandoned_waiters_are_forgotten() {
        let mut topics = Topics::new(0);
        for n in 0..10 * limits::BLOCKING_QUERIES {
            drop(topics.waiter(&Topic::Service(n.to_string())));
        }
        assert!(topics.waiters.len() <= 2 * limits::BLOCKING_QUERIES);
    }

    #[tokio::test]
    async fn only_the_topic_that_changed_wakes() {
        let mut topics = Topics::new(0);
        let (web, db) = (Topic::Service("web".to_owned()), Topic::Service("db".to_owned()));
        let (on_web, on_db) = (topics.waiter(&web), topics.waiter(&db));
        let (mut on_web, mut on_db) = (Box::pin(on_web.notified()), Box::pin(on_db.notified()));
        assert!(!on_web.as_mut().enable() && !on_db.as_mut().enable());
        topics.touch(web, 7);
        assert!(on_web.as_mut().enable());
        assert!(!on_db.as_mut().enable());
    }
}
