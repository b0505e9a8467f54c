//! Which connections there are, and which of them goes when there are too many.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use tokio::task::AbortHandle;

use super::STRANGER_MAX;

/// A connection; later ones have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SeatId(u64);

/// The connections of a daemon.
#[derive(Debug)]
pub(super) struct Seats {
    places: usize,
    next: u64,
    /// All of them, those that were told to end included.
    open: usize,
    /// Those that have yet to ask, or are being answered.
    asking: BTreeMap<SeatId, Option<AbortHandle>>,
    /// Those that hold a name.
    leases: BTreeMap<SeatId, Option<AbortHandle>>,
    /// How many each address of another machine has.
    strangers: HashMap<IpAddr, usize>,
}

impl Seats {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places,
            next: 0,
            open: 0,
            asking: BTreeMap::new(),
            leases: BTreeMap::new(),
            strangers: HashMap::new(),
        }
    }

    /// A new connection, with its address if that is of another machine; `None` if that machine has
    /// too many.
    pub(super) fn enter(&mut self, stranger: Option<IpAddr>) -> Option<SeatId> {
        if let Some(ip) = stranger {
            let held = self.strangers.entry(ip).or_default();
            if *held >= STRANGER_MAX {
                return None;
            }
            *held += 1;
        }
        let id = SeatId(self.next);
        self.next += 1;
        self.open += 1;
        self.asking.insert(id, None);
        Some(id)
    }

    /// The task that serves it, unless it has ended already.
    pub(super) fn served_by(&mut self, id: SeatId, task: AbortHandle) {
        let seat = self.asking.get_mut(&id).or_else(|| self.leases.get_mut(&id));
        if let Some(seat) = seat {
            *seat = Some(task);
        }
    }

    /// Whether one more connection may hold a name. An eighth of the places is always for those
    /// that ask.
    pub(super) fn has_lease(&self) -> bool {
        self.leases.len() < self.places - self.places.div_ceil(8)
    }

    /// The connection holds a name from now on; it is not shed.
    pub(super) fn lease(&mut self, id: SeatId) {
        if let Some(task) = self.asking.remove(&id) {
            self.leases.insert(id, task);
        }
    }

    /// The connection is closed.
    pub(super) fn leave(&mut self, id: SeatId, stranger: Option<IpAddr>) {
        self.open -= 1;
        self.asking.remove(&id);
        self.leases.remove(&id);
        if let Some(ip) = stranger
            && let Some(held) = self.strangers.get_mut(&ip)
        {
            *held -= 1;
            if *held == 0 {
                self.strangers.remove(&ip);
            }
        }
    }

    /// The connection to end because there are more than places.
    pub(super) fn surplus(&mut self) -> Option<AbortHandle> {
        if self.open > self.places { self.oldest() } else { None }
    }

    /// The oldest connection that holds no name; each is given once.
    pub(super) fn oldest(&mut self) -> Option<AbortHandle> {
        let id = self.asking.iter().find(|(_, task)| task.is_some()).map(|(&id, _)| id)?;
        self.asking.remove(&id).flatten()
    }

    /// The task of a lease that is to end.
    pub(super) fn task_of(&self, id: SeatId) -> Option<AbortHandle> {
        self.leases.get(&id).cloned().flatten()
    }

    /// All that are there.
    pub(super) fn close(&mut self) -> Vec<AbortHandle> {
        self.places = 0;
        let asking = std::mem::take(&mut self.asking);
        asking
            .into_values()
            .chain(std::mem::take(&mut self.leases).into_values())
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_holds_no_name_goes() {
        let mut seats = Seats::new(2);
        let task = || tokio::spawn(std::future::pending::<()>()).abort_handle();
        let (first, second, third) = (task(), task(), task());
        let ids: Vec<SeatId> = (0..3).map(|_| seats.enter(None).unwrap()).collect();
        seats.served_by(ids[0], first.clone());
        seats.lease(ids[0]);
        seats.served_by(ids[1], second.clone());
        seats.served_by(ids[2], third.clone());
        assert_eq!(seats.surplus().unwrap().id(), second.id());
        seats.leave(ids[1], None);
        assert!(seats.surplus().is_none(), "two are left for two places");
        assert_eq!(seats.oldest().unwrap().id(), third.id());
        assert!(seats.oldest().is_none(), "a lease is never shed");
        assert_eq!(seats.task_of(ids[0]).unwrap().id(), first.id());
    }

    #[test]
    fn leases_leave_places_for_questions() {
        let mut seats = Seats::new(10);
        let mut held = 0;
        while seats.has_lease() {
            let id = seats.enter(None).unwrap();
            seats.lease(id);
            held += 1;
        }
        assert_eq!(held, 8);
    }

    #[test]
    fn a_stranger_has_so_many_and_gets_them_back() {
        let mut seats = Seats::new(1000);
        let stranger = Some(IpAddr::from([192, 0, 2, 1]));
        let ids: Vec<SeatId> = (0..STRANGER_MAX).map(|_| seats.enter(stranger).unwrap()).collect();
        assert!(seats.enter(stranger).is_none());
        assert!(seats.enter(None).is_some());
        seats.leave(ids[0], stranger);
        assert!(seats.enter(stranger).is_some());
    }
}
