//! I3 and I4: what leaders have written, with a token and without.

use super::story::Story;
use super::violation::Found;
use crate::simulation::history::What;

pub(super) fn check(story: &Story<'_>, found: &mut Found) {
    the_fence_admits_in_order(story, found);
    if story.schedule.class.separates_beliefs() {
        writes_in_time_come_before_the_next_term(story, found);
    }
}

fn the_fence_admits_in_order(story: &Story<'_>, found: &mut Found) {
    let mut last = None;
    let mut highest = 0;
    for record in story.records {
        if let What::Wrote {
            id,
            token,
            admitted: true,
        } = record.what
        {
            // The order in which terms come at the server, whatever their tokens are.
            let position = story.term(id).and_then(|term| term.position);
            if position < last || token < highest {
                let text = format!("a write of {id} is admitted after one of a later term");
                found.add("I3", record.at, text);
            }
            last = last.max(position);
            highest = highest.max(token);
        }
    }
}

fn writes_in_time_come_before_the_next_term(story: &Story<'_>, found: &mut Found) {
    let mut current = None;
    for record in story.records {
        match record.what {
            What::Elected { id, deadline, .. } if record.at < deadline => current = Some(id),
            What::Probed { id } if current != Some(id) => {
                let text = format!("{id} writes in time, and another term has begun before");
                found.add("I4", record.at, text);
            }
            _ => {}
        }
    }
}
