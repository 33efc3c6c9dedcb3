//! How a machine with a mistake in it takes what happens.

use sd_core::FencingToken;
use sd_core::clock::Moment;
use sd_core::port::{Confirmation, CountsFrom, Standing};

use super::{Event, Machine, Phase, is_lost};
use crate::campaign::term_rules::Confirmed;
use crate::flaw::{Flaw, flawed};

impl Machine {
    /// What is heard in place of what happened.
    pub(super) fn misheard(&self, event: Event) -> Event {
        let is_waiting = matches!(self.phase, Phase::Waiting);
        let is_leading = matches!(self.phase, Phase::Leading { .. });
        let ignores_loss = flawed(Flaw::LossIgnoredWhileWaiting) && is_waiting
            || flawed(Flaw::LossIgnoredWhileLeading) && is_leading;
        let ignores_cancel =
            flawed(Flaw::CancelIgnored) && !is_leading || flawed(Flaw::DropIgnored) && is_leading;
        match event {
            Event::Standing(Ok(Standing::Gone(_))) if ignores_loss => Event::Tick,
            Event::Standing(Err(error)) | Event::Confirmed(Err(error))
                if ignores_loss && is_lost(&error) =>
            {
                Event::Tick
            }
            Event::Standing(Ok(Standing::First { token, before }))
                if flawed(Flaw::EarlierToken) =>
            {
                let value = token.value() / 2;
                let token = FencingToken::new(token.domain(), value);
                Event::Standing(Ok(Standing::First { token, before }))
            }
            Event::Confirmed(Err(error))
                if flawed(Flaw::FailureTakenForSuccess) && !is_lost(&error) =>
            {
                Event::Confirmed(Ok(Confirmation::new(self.rules.ttl, CountsFrom::ThisSend)))
            }
            Event::Left(Err(_)) if flawed(Flaw::LeaveNotRepeated) => Event::Left(Ok(())),
            Event::Cancel if ignores_cancel => Event::Tick,
            event => event,
        }
    }

    /// Takes it that our entry is there, because it once was.
    pub(super) fn assume_confirmed(&mut self, now: Moment) {
        if flawed(Flaw::TermUnconfirmed) {
            self.confirmed = self.confirmed.map(|confirmed| Confirmed {
                hand_over: Some(now + confirmed.ttl),
                ..confirmed
            });
        }
    }
}
