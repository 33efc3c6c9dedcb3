//! What must be true of every history, whatever went wrong. The numbers are those of the list that this crate is built to:
//!
//! | | |
//! |---|---|
//! | I1 | no two beliefs overlap, nor does one reach beyond another's hand-over; none comes back; each begins on a fresh confirmation |
//! | I2 | tokens grow from term to term, and none is given twice |
//! | I3 | what a fence admits is in the order of the terms |
//! | I4 | what is written within the stop margin, without a fence, is written before the next term |
//! | I5 | once all is well, every candidate leads in turn |
//! | I6 | nothing is left at the server, and no task, of those who are gone |
//! | I7 | every term that was told ends once, at once when its entry is known to be gone, and nothing comes after a resignation |
//! | I8 | what observers see grows, and is true in the end |
//! | I9 | terms come in the order in which their candidates joined, and none to an entry that was gone before its turn |

mod beliefs;
mod effects;
mod endings;
pub(super) mod facts;
mod order;
pub(super) mod remains;
mod story;
pub(super) mod violation;

use self::facts::Facts;
use self::story::Story;
use self::violation::{Found, Violation};
use super::history::Record;
use super::schedule::Schedule;

pub(super) fn check(schedule: &Schedule, records: &[Record]) -> (Vec<Violation>, Facts) {
    let story = Story::new(schedule, records);
    let mut found = Found::default();
    let gap = beliefs::check(&story, &mut found);
    order::check(&story, &mut found);
    effects::check(&story, &mut found);
    endings::check(&story, &mut found);
    remains::check(&story, &mut found);
    let facts = Facts {
        terms: u64::try_from(story.terms.len()).unwrap_or(u64::MAX),
        gap,
        counts: facts::count(schedule, records),
    };
    (found.into_violations(), facts)
}
