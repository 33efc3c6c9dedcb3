//! I7: how terms end.

use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::port::CandidateId;

use super::story::Story;
use super::violation::Found;
use crate::campaign::machine::Call;
use crate::config::StepDown;
use crate::simulation::history::{Answer, What};
use crate::simulation::node::Node;

/// What a node needs to act on what it was told.
const AT_ONCE: Duration = Duration::from_millis(1);

/// What went wrong before has no part in what happens this long after it.
const SETTLED: Duration = Duration::from_secs(60);

pub(super) fn check(story: &Story<'_>, found: &mut Found) {
    each_ends_once(story, found);
    belief_is_over_when_the_end_is_told(story, found);
    nothing_comes_after_a_resignation(story, found);
    each_ends_when_it_is_known_to_be_lost(story, found);
    work_is_over_by_the_hand_over(story, found);
}

fn each_ends_once(story: &Story<'_>, found: &mut Found) {
    for term in &story.terms {
        let told = term.ended.len();
        let was_killed = story.killed.contains_key(&term.node);
        if told > 1 || told == 0 && !was_killed {
            found.add(
                "I7",
                term.elected,
                format!("the end of {term} is told {told} times"),
            );
        }
    }
    for record in story.records {
        if let What::Ended { id, token, .. } = record.what
            && id
                .and_then(|id| story.term(id))
                .is_none_or(|term| term.token != token)
        {
            found.add(
                "I7",
                record.at,
                format!("a term with token {token} ends that never began"),
            );
        }
    }
}

fn belief_is_over_when_the_end_is_told(story: &Story<'_>, found: &mut Found) {
    for term in &story.terms {
        let ended = term.ended.first();
        let believed = term.beliefs.last().map(|(_, until)| until);
        match (ended, believed) {
            (Some(ended), Some(believed)) if believed > ended => {
                let text = format!("the end of {term} is told while it is believed in");
                found.add("I7", *ended, text);
            }
            _ => {}
        }
    }
}

fn nothing_comes_after_a_resignation(story: &Story<'_>, found: &mut Found) {
    for record in story.records {
        if let What::Resigned {
            id,
            error,
            still_there,
        } = record.what
        {
            let ended = story.term(id).and_then(|term| term.ended.first());
            if ended.is_none_or(|ended| *ended > record.at) {
                found.add(
                    "I7",
                    record.at,
                    format!("{id} has resigned, and its term is not over"),
                );
            }
            if error.is_none() && still_there {
                found.add(
                    "I7",
                    record.at,
                    format!("{id} has resigned, and its entry is there"),
                );
            }
            let was_well = ended.is_some_and(|ended| *ended > story.calm_at + SETTLED);
            if let Some(error) = error.filter(|_| was_well) {
                found.add(
                    "I7",
                    record.at,
                    format!("{id} cannot resign though all is well: {error}"),
                );
            }
        }
    }
}

fn each_ends_when_it_is_known_to_be_lost(story: &Story<'_>, found: &mut Found) {
    let steps_down = story.schedule.config.step_down == StepDown::OnFirstError;
    for record in story.records {
        let What::Answered { id, call, answer } = record.what else {
            continue;
        };
        let is_over = match answer {
            Answer::Gone => true,
            Answer::Failed => steps_down && call == Call::Confirm && leads(story, id, record.at),
            Answer::Fine => false,
        };
        if is_over && !ends_by(story, record.node, id, record.at) {
            let text = format!("{id} is told that its entry is gone, or steps down, and goes on");
            found.add("I7", record.at, text);
        }
    }
}

fn leads(story: &Story<'_>, id: CandidateId, at: Moment) -> bool {
    let term = story.term(id);
    term.is_some_and(|term| term.elected < at && term.ended.first().is_none_or(|end| *end > at))
}

/// Whether the term is over soon after, or never begins.
fn ends_by(story: &Story<'_>, node: Node, id: CandidateId, told: Moment) -> bool {
    let Some(term) = story.term(id) else {
        return true;
    };
    let by = story.later(node, told, AT_ONCE);
    let is_killed = story.killed.get(&node).is_some_and(|killed| *killed <= by);
    term.elected <= told && term.ended.first().is_some_and(|end| *end <= by) || is_killed
}

fn work_is_over_by_the_hand_over(story: &Story<'_>, found: &mut Found) {
    for term in &story.terms {
        let handed_over = story
            .records
            .iter()
            .rev()
            .find_map(|record| match record.what {
                What::Belief { id, hand_over, .. } if id == term.id => Some(hand_over),
                _ => None,
            });
        let over = story.records.iter().find_map(|record| match record.what {
            What::WorkOver { id } if id == term.id => Some(record.at),
            _ => None,
        });
        let (Some(handed_over), Some(over)) = (handed_over, over) else {
            continue;
        };
        let by = story.later(term.node, handed_over, story.schedule.lateness + AT_ONCE);
        if over > by {
            let text = format!(
                "the work of {term} goes on for {:?} after the hand-over",
                over.since(handed_over)
            );
            found.add("I7", over, text);
        }
    }
}
