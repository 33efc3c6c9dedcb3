//! What happens to a candidate, as `elect` tells it.

use sd_core::clock::{BootClock, Clock, Moment};
use sd_core::port::CandidateId;
use sd_core::{ElectionName, FencingToken};
use sd_election::{ElectionEvent, EndReason};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::time::time_of;
use crate::output::{Output, Style};

/// What was told so far.
#[derive(Debug)]
pub(crate) struct ElectionStory {
    name: ElectionName,
    /// The participation of the last term.
    id: Option<CandidateId>,
    /// What it waits for, as told last.
    waiting: Option<(Option<usize>, Option<String>)>,
}

impl ElectionStory {
    pub(crate) fn new(name: ElectionName) -> Self {
        Self {
            name,
            id: None,
            waiting: None,
        }
    }

    pub(crate) fn tell(&mut self, output: Output, event: &ElectionEvent) -> Result<(), Failure> {
        let Some(line) = self.line(event) else {
            return Ok(());
        };
        if output.is_json() {
            output.json(&line)
        } else {
            output.styled(line.style(), &line.sentence())
        }
    }

    /// The line for an event; none if it was told before or says nothing new.
    fn line(&mut self, event: &ElectionEvent) -> Option<Line> {
        let line = Line::new(event.as_str(), &self.name);
        match event {
            ElectionEvent::Waiting { ahead, error } => {
                let error = error.as_ref().map(|error| error.report().to_string());
                let waiting = Some((*ahead, error.clone()));
                let told = std::mem::replace(&mut self.waiting, waiting.clone());
                (waiting != told).then_some(Line {
                    ahead: *ahead,
                    error,
                    ..line
                })
            }
            // It joins again.
            ElectionEvent::Lost {
                reason: reason @ (EndReason::EntryGone(_) | EndReason::SessionLost(_)),
            } => Some(Line::new("waiting", &self.name).because(reason)),
            ElectionEvent::Elected { id, token, at, .. } => {
                self.id = Some(*id);
                self.waiting = None;
                Some(line.of_term(self.id, token).at(*at))
            }
            ElectionEvent::AtRisk { token, error } => Some(Line {
                error: Some(error.report().to_string()),
                ..line.of_term(self.id, token)
            }),
            ElectionEvent::Recovered { token } => Some(line.of_term(self.id, token)),
            ElectionEvent::Ended { token, reason, at } => {
                Some(line.of_term(self.id, token).because(reason).at(*at))
            }
            _ => None,
        }
    }
}

/// One step, in its JSON form.
#[derive(Debug, Serialize)]
struct Line {
    time: String,
    event: &'static str,
    name: ElectionName,
    /// The participation; none while waiting.
    id: Option<CandidateId>,
    token: Option<u64>,
    token_domain: Option<String>,
    /// How many are before it, where the registry says so.
    ahead: Option<usize>,
    reason: Option<&'static str>,
    error: Option<String>,
    t_boottime_ns: u64,
}

impl Line {
    fn new(event: &'static str, name: &ElectionName) -> Self {
        Self {
            time: String::new(),
            event,
            name: name.clone(),
            id: None,
            token: None,
            token_domain: None,
            ahead: None,
            reason: None,
            error: None,
            t_boottime_ns: 0,
        }
        .at(BootClock.now())
    }

    /// When it happened, which may be long before it is told: our reader may be slow.
    fn at(self, at: Moment) -> Self {
        let boot_time = at.since_start().as_nanos();
        Self {
            time: time_of(at, &BootClock),
            t_boottime_ns: u64::try_from(boot_time).unwrap_or(u64::MAX),
            ..self
        }
    }

    fn of_term(self, id: Option<CandidateId>, token: &FencingToken) -> Self {
        Self {
            id,
            token: Some(token.value()),
            token_domain: Some(token.domain().to_owned()),
            ..self
        }
    }

    fn because(self, reason: &EndReason) -> Self {
        Self {
            reason: Some(reason.as_str()),
            error: reason.error().map(|error| error.report().to_string()),
            ..self
        }
    }

    fn style(&self) -> Style {
        match self.event {
            "elected" | "recovered" => Style::Good,
            "at_risk" => Style::Doubtful,
            "ended" => Style::Bad,
            _ => Style::Plain,
        }
    }

    /// The form for people.
    fn sentence(&self) -> String {
        let what = format!("{}  {:<9}  {}", self.time, self.event, self.name);
        let token = self.token.map(|token| format!(", token {token}"));
        let ahead = self.ahead.map(|ahead| format!(", {ahead} ahead"));
        let reason = self.reason.map(|reason| format!(": {reason}"));
        let error = self.error.as_ref();
        let error = error.map(|error| format!(": {error}"));
        let parts = [Some(what), token, ahead, reason, error];
        parts.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::{Error, ErrorKind};

    use super::*;

    fn story() -> ElectionStory {
        ElectionStory::new(ElectionName::new("reports/nightly").unwrap())
    }

    fn waiting(ahead: Option<usize>, why: Option<&str>) -> ElectionEvent {
        let error = |why: &str| Error::new(ErrorKind::Unavailable, "etcd: join").because(why);
        ElectionEvent::Waiting {
            ahead,
            error: why.map(error),
        }
    }

    #[test]
    fn a_wait_is_told_again_only_when_its_reason_changes() {
        let mut story = story();
        let events = [
            (waiting(None, Some("refused")), true),
            (waiting(None, Some("refused")), false),
            (waiting(None, Some("reset")), true),
            (waiting(Some(2), None), true),
            (waiting(Some(2), None), false),
            (waiting(Some(1), None), true),
        ];
        for (event, is_told) in events {
            assert_eq!(story.line(&event).is_some(), is_told, "{event:?}");
        }
    }

    #[test]
    fn each_step_of_a_term_has_its_id_token_and_reason() {
        let mut story = story();
        let token = || FencingToken::new("d", 7);
        let elected = ElectionEvent::Elected {
            id: CandidateId::from_u64(0xab).unwrap(),
            token: token(),
            deadline: Moment::ZERO,
            at: Moment::ZERO,
        };
        story.line(&elected).unwrap();
        let cut = Error::new(ErrorKind::Timeout, "etcd: confirm");
        let ended_at = BootClock.now() - Duration::from_secs(60);
        let ended = ElectionEvent::Ended {
            token: token(),
            reason: EndReason::LeaseExpired(Some(cut)),
            at: ended_at,
        };
        let line = story.line(&ended).unwrap();
        let sentence = line.sentence();
        assert!(
            sentence.ends_with(
                "ended      reports/nightly, token 7: lease_expired: etcd: confirm: timed out"
            ),
            "{sentence}"
        );
        let mut json = serde_json::to_value(&line).unwrap();
        let told_at = Duration::from_nanos(json["t_boottime_ns"].take().as_u64().unwrap());
        assert_eq!(told_at, ended_at.since_start());
        assert!(json["time"].take().is_string());
        assert_eq!(
            json,
            serde_json::json!({
                "time": null, "event": "ended", "name": "reports/nightly", "id": "00000000000000ab",
                "token": 7, "token_domain": "d", "ahead": null, "reason": "lease_expired",
                "error": "etcd: confirm: timed out", "t_boottime_ns": null,
            })
        );
    }

    #[test]
    fn an_entry_that_was_lost_while_it_waited_is_a_reason_to_wait() {
        let mut story = story();
        let gone = Error::new(ErrorKind::NotFound, "etcd: stand");
        let lost = ElectionEvent::Lost {
            reason: EndReason::EntryGone(gone),
        };
        let line = story.line(&lost).unwrap();
        assert_eq!((line.event, line.reason), ("waiting", Some("entry_gone")));
        let dropped = ElectionEvent::Lost {
            reason: EndReason::Cancelled,
        };
        assert!(story.line(&dropped).is_none());
    }
}
