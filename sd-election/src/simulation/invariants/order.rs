//! I2, I8 and I9: tokens, what observers see of them, and the order of the queue.

use std::collections::{BTreeMap, BTreeSet};

use sd_core::port::CandidateId;

use super::story::Story;
use super::violation::Found;
use crate::simulation::history::What;

pub(super) fn check(story: &Story<'_>, found: &mut Found) {
    tokens_grow(story, found);
    terms_come_in_the_order_of_joining(story, found);
    entries_are_there_when_their_turn_comes(story, found);
    observers_see_tokens_grow(story, found);
}

fn tokens_grow(story: &Story<'_>, found: &mut Found) {
    let mut given = BTreeSet::new();
    for term in &story.terms {
        if !given.insert(term.token) {
            found.add(
                "I2",
                term.elected,
                format!("the token of {term} was given before"),
            );
        }
    }
    if !story.schedule.class.separates_beliefs() {
        return;
    }
    let mut highest = 0;
    for term in story.terms.iter().filter(|term| term.was_in_time()) {
        if term.token < highest {
            found.add(
                "I2",
                term.elected,
                format!("{term} comes after one with a greater token"),
            );
        }
        highest = highest.max(term.token);
    }
}

fn terms_come_in_the_order_of_joining(story: &Story<'_>, found: &mut Found) {
    if !story.schedule.class.separates_beliefs() {
        return;
    }
    let mut last = None;
    for term in story.terms.iter().filter(|term| term.was_in_time()) {
        let position = term.position;
        if position.is_none() || position < last {
            found.add("I9", term.elected, format!("{term} comes before its turn"));
        }
        last = last.max(position);
    }
}

/// Where each entry's life lies in the history.
#[derive(Clone, Copy)]
struct Life {
    from: usize,
    until: Option<usize>,
}

/// A candidate that is elected was still in the queue when the last one before it went.
fn entries_are_there_when_their_turn_comes(story: &Story<'_>, found: &mut Found) {
    let mut lives: BTreeMap<CandidateId, Life> = BTreeMap::new();
    // Entries that a late message made once more, and those that the embedded registry ended by itself, tell nothing.
    let mut unclear = BTreeSet::new();
    for (at, record) in story.records.iter().enumerate() {
        match record.what {
            What::Joined { id } => {
                let life = Life {
                    from: at,
                    until: None,
                };
                if lives.insert(id, life).is_some() {
                    unclear.insert(id);
                }
            }
            What::Left { id }
            | What::Expired { id }
            | What::EntryRemoved { id }
            | What::LeaseEnded { id } => {
                if let Some(life) = lives.get_mut(&id) {
                    life.until.get_or_insert(at);
                }
            }
            What::Elected { id, .. } => {
                let Some(own) = lives.get(&id).filter(|_| !unclear.contains(&id)) else {
                    continue;
                };
                let before = lives.values().filter(|other| {
                    other.from < own.from && other.until.is_none_or(|until| until > own.from)
                });
                // `None` if one of them went unseen.
                let turn: Option<Option<usize>> = before.map(|other| other.until).try_fold(
                    None,
                    |latest: Option<usize>, until| {
                        until.map(|until| Some(latest.map_or(until, |latest| latest.max(until))))
                    },
                );
                let was_gone =
                    matches!((own.until, turn), (Some(gone), Some(Some(turn))) if gone < turn);
                if was_gone {
                    let text =
                        format!("{id} is elected, and its entry was gone before its turn came");
                    found.add("I9", record.at, text);
                }
            }
            _ => {}
        }
    }
}

fn observers_see_tokens_grow(story: &Story<'_>, found: &mut Found) {
    // By observer: the greatest token, and what was seen last.
    let mut seen = BTreeMap::new();
    for record in story.records {
        if let What::Saw {
            token,
            lineage,
            live,
        } = record.what
        {
            let (greatest, last) = seen.entry(record.node).or_insert((None, None));
            *last = Some((token, live));
            if token.is_some() && token < *greatest || lineage > 0 {
                let text = format!("observer {} sees an older term again", record.node.0);
                found.add("I8", record.at, text);
            }
            *greatest = (*greatest).max(token);
        }
    }
    for (node, (_, last)) in seen {
        if last != Some((None, true)) {
            let text = format!(
                "there is no leader in the end, and observer {} sees {last:?}",
                node.0
            );
            found.add("I8", story.end, text);
        }
    }
}
