//! I5 and I6: that it goes on when all is well, and that nothing stays behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sd_core::ErrorKind;
use sd_core::clock::Moment;

use super::story::Story;
use super::violation::Found;
use crate::simulation::history::What;
use crate::simulation::node::Node;
use crate::simulation::schedule::Schedule;

/// How long a candidate may take to get on once all is well: an attempt without an answer, pauses, and silence.
const GETS_ON_WITHIN: Duration = Duration::from_secs(30);

/// How soon an unwanted entry is gone once all is well.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);

/// How soon there is a leader once all is well.
fn one_leads_within(schedule: &Schedule) -> Duration {
    // The lease of a candidate that has gone, one that a late message made again, and the delay.
    let leases = schedule.granted * 2 + schedule.network.longest * 3;
    let delay = schedule.config.takeover_delay;
    (leases + delay + GETS_ON_WITHIN).div_f64(schedule.slowest)
}

/// How soon every candidate has led once more.
pub(in crate::simulation) fn all_led_within(schedule: &Schedule) -> Duration {
    // What each holds its term for, and may spend on what it was at before.
    let each = schedule.ttl * 8 + schedule.config.takeover_delay + Duration::from_secs(5);
    let candidates = u32::try_from(schedule.candidates).unwrap_or(u32::MAX);
    one_leads_within(schedule) + each.div_f64(schedule.slowest) * candidates * 2
}

pub(super) fn check(story: &Story<'_>, found: &mut Found) {
    no_campaign_fails(story, found);
    a_leader_comes_soon(story, found);
    everybody_leads_in_turn(story, found);
    nothing_is_left(story, found);
}

fn no_campaign_fails(story: &Story<'_>, found: &mut Found) {
    let mut closed = BTreeSet::new();
    for record in story.records {
        match record.what {
            What::Closes => {
                closed.insert(record.node);
            }
            What::CampaignFailed(kind)
                if kind != ErrorKind::Closed || !closed.contains(&record.node) =>
            {
                let text = format!("node {} cannot campaign: {kind}", record.node.0);
                found.add("I5", record.at, text);
            }
            _ => {}
        }
    }
}

/// Those who take part at that moment.
fn campaigning(story: &Story<'_>, at: Moment) -> BTreeSet<Node> {
    let mut campaigning = BTreeSet::new();
    for record in story.records.iter().filter(|record| record.at <= at) {
        match record.what {
            What::Campaigns => {
                campaigning.insert(record.node);
            }
            What::Finished | What::Killed => {
                campaigning.remove(&record.node);
            }
            _ => {}
        }
    }
    campaigning
}

fn a_leader_comes_soon(story: &Story<'_>, found: &mut Found) {
    let by = story.calm_at + one_leads_within(story.schedule);
    let mut beliefs = story.terms.iter().flat_map(|term| &term.beliefs);
    let is_led = beliefs.any(|(from, until)| *from < by && *until > story.calm_at);
    if !is_led && story.end > by && !campaigning(story, by).is_empty() {
        found.add("I5", by, "all is well, and there is no leader");
    }
}

fn everybody_leads_in_turn(story: &Story<'_>, found: &mut Found) {
    for node in campaigning(story, story.end) {
        let text = format!("all is well, and node {} has not led and left", node.0);
        found.add("I5", story.end, text);
    }
}

fn nothing_is_left(story: &Story<'_>, found: &mut Found) {
    let mut owners = BTreeMap::new();
    // By node: the participation that it is at, until it has finished, and when it gave up another.
    let mut wanted = BTreeMap::new();
    let mut given_up = BTreeMap::new();
    let mut last = None;
    for record in story.records {
        match &record.what {
            What::Joins { id } => {
                owners.insert(*id, record.node);
                wanted.insert(record.node, *id);
            }
            What::CampaignDropped | What::GivenUp { .. } | What::WorkOver { .. } => {
                given_up.insert(record.node, record.at);
            }
            What::Finished => {
                wanted.remove(&record.node);
            }
            What::Remains { entries, tasks } => {
                for id in entries {
                    let owner = owners.get(id).copied();
                    let is_killed = owner.is_some_and(|node| story.killed.contains_key(&node));
                    let is_wanted = owner.is_some_and(|node| wanted.get(&node) == Some(id));
                    let just_now = owner.and_then(|node| given_up.get(&node));
                    let just_now = just_now.is_some_and(|at| *at + LEAVES_WITHIN > record.at);
                    if !is_killed && !is_wanted && !just_now {
                        let text = format!("the entry of {id} is there, and no candidate wants it");
                        found.add("I6", record.at, text);
                    }
                }
                last = Some((record.at, entries.len(), *tasks));
            }
            _ => {}
        }
    }
    if let Some((at, entries, tasks)) = last.filter(|last| (last.1, last.2) != (0, 0)) {
        let text = format!("all are gone, and {entries} entries and {tasks} tasks are left");
        found.add("I6", at, text);
    }
}
