//! Who goes next.

use std::collections::VecDeque;

/// The places of what waits. Of those that keep the cores busy, one is under way at a time; as long as there are such, one is.
#[derive(Debug)]
pub(crate) struct Line {
    busy: VecDeque<usize>,
    others: VecDeque<usize>,
    free: usize,
    is_busy: Option<usize>,
}

impl Line {
    /// Says of each in turn whether it is busy.
    pub(crate) fn new(all: impl IntoIterator<Item = bool>, at_once: usize) -> Self {
        let mut line = Self {
            busy: VecDeque::new(),
            others: VecDeque::new(),
            free: at_once.max(1),
            is_busy: None,
        };
        for (place, is_busy) in all.into_iter().enumerate() {
            let queue = if is_busy {
                &mut line.busy
            } else {
                &mut line.others
            };
            queue.push_back(place);
        }
        line
    }

    /// The place of one that may start now.
    pub(crate) fn next(&mut self) -> Option<usize> {
        if self.free == 0 {
            return None;
        }
        let place = if self.is_busy.is_none() && !self.busy.is_empty() {
            self.is_busy = self.busy.pop_front();
            self.is_busy
        } else {
            self.others.pop_front()
        };
        self.free -= usize::from(place.is_some());
        place
    }

    /// One that was started has ended.
    pub(crate) fn ended(&mut self, place: usize) {
        self.free += 1;
        if self.is_busy == Some(place) {
            self.is_busy = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(line: &mut Line) -> Vec<usize> {
        std::iter::from_fn(|| line.next()).collect()
    }

    #[test]
    fn no_more_than_so_many_and_in_their_order() {
        let mut line = Line::new([false; 4], 2);
        assert_eq!(started(&mut line), [0, 1]);
        line.ended(1);
        assert_eq!(started(&mut line), [2]);
        line.ended(0);
        line.ended(2);
        assert_eq!(started(&mut line), [3]);
    }

    #[test]
    fn one_busy_one_at_a_time_and_always_one() {
        let mut line = Line::new([false, true, false, true, false], 3);
        assert_eq!(started(&mut line), [1, 0, 2]);
        line.ended(0);
        assert_eq!(started(&mut line), [4]);
        line.ended(1);
        assert_eq!(started(&mut line), [3]);
    }

    #[test]
    fn a_busy_one_waits_for_the_other_even_if_there_is_room() {
        let mut line = Line::new([true, true], 3);
        assert_eq!(started(&mut line), [0]);
        line.ended(0);
        assert_eq!(started(&mut line), [1]);
    }

    #[test]
    fn one_at_a_time_is_the_least() {
        assert_eq!(started(&mut Line::new([false, false], 0)), [0]);
    }
}
