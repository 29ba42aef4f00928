//! The book-keeping of the recycling pool: which pages lie where, whose they were, and how many
//! bytes that is. Pure; the pages themselves are the pool's business.

/// One place on the shelf with pages in it.
#[derive(Debug)]
struct Filled<D, S> {
    domain: D,
    bytes: usize,
    slot: S,
}

/// Pages that wait for their next use, oldest first, bounded in bytes and number.
///
/// `D` names a trust domain, `S` is the place that holds the pages.
#[derive(Debug)]
pub struct Shelf<D, S> {
    filled: Vec<Filled<D, S>>,
    bytes: usize,
    max_bytes: usize,
    max_entries: usize,
}

/// What [`Shelf::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken<S> {
    /// The place that holds the pages.
    pub slot: S,
    /// How many bytes of pages it holds, at least what was asked for.
    pub bytes: usize,
    /// Whether they were last used in the trust domain that takes them now.
    pub same_domain: bool,
}

impl<D: PartialEq, S> Shelf<D, S> {
    /// An empty shelf that holds at most `max_bytes` in at most `max_entries` places.
    #[must_use]
    pub fn new(max_bytes: usize, max_entries: usize) -> Self {
        Self { filled: Vec::new(), bytes: 0, max_bytes, max_entries }
    }

    /// Bytes of pages on the shelf.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes pages for `bytes` bytes: the newest of the same domain, else the newest of another.
    /// Places that hold over an eighth more are passed over, so that little is wasted.
    pub fn take(&mut self, domain: &D, bytes: usize) -> Option<Taken<S>> {
        let fits = |have: usize| have >= bytes && have - bytes <= bytes / 8;
        let newest = |wanted: &dyn Fn(&Filled<D, S>) -> bool| {
            self.filled.iter().rposition(|entry| fits(entry.bytes) && wanted(entry))
        };
        let at = newest(&|entry| entry.domain == *domain).or_else(|| newest(&|_| true))?;
        let entry = self.filled.remove(at);
        self.bytes -= entry.bytes;
        let same_domain = entry.domain == *domain;
        Some(Taken { slot: entry.slot, bytes: entry.bytes, same_domain })
    }

    /// Puts pages on the shelf and gives back the places that had to leave for them, oldest
    /// first; pages that alone are over the bound come straight back.
    #[must_use = "the places that left still hold their pages"]
    pub fn put(&mut self, domain: D, bytes: usize, slot: S) -> Vec<S> {
        if bytes > self.max_bytes || self.max_entries == 0 {
            return vec![slot];
        }
        let mut leaving = 0;
        let mut freed = 0;
        while self.bytes - freed + bytes > self.max_bytes
            || self.filled.len() - leaving >= self.max_entries
        {
            freed += self.filled[leaving].bytes;
            leaving += 1;
        }
        self.bytes = self.bytes - freed + bytes;
        let left = self.filled.drain(..leaving).map(|entry| entry.slot).collect();
        self.filled.push(Filled { domain, bytes, slot });
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_same_domain_come_first() {
        let mut shelf = Shelf::new(1000, 10);
        assert!(shelf.put('a', 100, 1).is_empty());
        assert!(shelf.put('b', 100, 2).is_empty());
        let taken = shelf.take(&'a', 100).unwrap();
        assert_eq!((taken.slot, taken.same_domain), (1, true));
        let taken = shelf.take(&'a', 100).unwrap();
        assert_eq!((taken.slot, taken.same_domain), (2, false));
        assert_eq!(shelf.take(&'a', 100), None);
        assert_eq!(shelf.bytes(), 0);
    }

    #[test]
    fn much_larger_pages_are_left_alone() {
        let mut shelf = Shelf::new(10_000, 10);
        assert!(shelf.put('a', 900, 1).is_empty());
        assert_eq!(shelf.take(&'a', 799), None);
        assert_eq!(shelf.take(&'a', 901), None);
        assert_eq!(shelf.take(&'a', 800).unwrap().bytes, 900);
    }

    #[test]
    fn the_oldest_leave_when_a_bound_is_reached() {
        let mut shelf = Shelf::new(300, 3);
        for slot in 1..=3 {
            assert!(shelf.put('a', 50, slot).is_empty());
        }
        assert_eq!(shelf.put('a', 50, 4), [1], "the number is bounded");
        assert_eq!(shelf.put('a', 250, 5), [2, 3], "the bytes are bounded");
        assert_eq!(shelf.bytes(), 300);
        assert_eq!(shelf.put('a', 301, 6), [6], "too large for the whole shelf");
        assert_eq!(shelf.take(&'a', 50).unwrap().slot, 4);
        assert_eq!(shelf.take(&'a', 250).unwrap().slot, 5);
        assert_eq!(shelf.bytes(), 0);
    }
}
