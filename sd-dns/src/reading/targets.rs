//! The hosts that SRV records name, and what is known of their addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use futures_util::future::join_all;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use crate::client::Client;
use crate::client::answer::Answer;
use crate::client::error::Failure;
use crate::config::validation::Settings;
use crate::reading::interval::holds;

/// The addresses of hosts that SRV records name, until they are to be asked for again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets(HashMap<(Name, RecordType), Told>);

/// The addresses of one kind that one host has.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ttl: u32,
    ask_at: Instant,
}

/// What is known of one host: of each kind of address, or why not.
pub(crate) type OfHost = Vec<(RecordType, Result<Told, Failure>)>;

impl Targets {
    /// What is known of each host: of each kind of address, what came along with the SRV records, what still holds, or what is asked now.
    pub(crate) async fn ask<'a>(
        &mut self,
        client: &Client,
        hosts: impl Iterator<Item = &'a Name>,
        along: Vec<(Name, IpAddr, u32)>,
    ) -> HashMap<&'a Name, OfHost> {
        let now = Instant::now();
        let mut known: HashMap<_, _> = self.0.drain().collect();
        known.retain(|_, told| told.is_left(now));
        known.extend(came_along(along, now));
        let asked = hosts.map(|host| ask(client, host, &known));
        let asked: HashMap<_, _> = join_all(asked).await.into_iter().collect();
        for (host, told) in &asked {
            for (wanted, told) in told {
                if let Ok(told) = told
                    && told.ask_at > now
                {
                    self.0.insert(((*host).clone(), *wanted), told.clone());
                }
            }
        }
        asked
    }
}

/// The addresses that came with SRV records. They are not kept: they come again with the next.
pub(crate) fn came_along(
    along: Vec<(Name, IpAddr, u32)>,
    now: Instant,
) -> HashMap<(Name, RecordType), Told> {
    let mut all: HashMap<_, Told> = HashMap::new();
    for (name, address, ttl) in along {
        let told = all.entry((name, type_of(address))).or_insert_with(|| Told {
            addresses: Vec::new(),
            ttl,
            ask_at: now,
        });
        told.addresses.push(address);
        told.ttl = told.ttl.min(ttl);
    }
    all
}

/// What is known of one host, after the kinds of addresses were asked for that are not in `known`.
async fn ask<'a>(
    client: &Client,
    host: &'a Name,
    known: &HashMap<(Name, RecordType), Told>,
) -> (&'a Name, OfHost) {
    let (mut told, mut missing) = (OfHost::new(), Vec::new());
    for wanted in client.settings().family.types() {
        match known.get(&(host.clone(), *wanted)) {
            Some(known) => told.push((*wanted, Ok(known.clone()))),
            None => missing.push(*wanted),
        }
    }
    if !missing.is_empty() {
        let answers = client.lookup(host, &missing).await;
        let answers = answers.into_iter().map(|answer| {
            let answer = answer?;
            Ok(Told::of(answer, client.settings()))
        });
        told.extend(missing.into_iter().zip(answers));
    }
    (host, told)
}

/// The type of the records that hold such addresses.
pub(crate) fn type_of(address: IpAddr) -> RecordType {
    match address {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    }
}

impl Told {
    fn of(answer: Answer, settings: &Settings) -> Self {
        let (addresses, ttl) = match answer {
            Answer::Found { records, ttl, .. } => {
                (records.iter().filter_map(RData::ip_addr).collect(), ttl)
            }
            Answer::None { ttl, .. } => (Vec::new(), ttl.unwrap_or(0)),
        };
        Self {
            addresses,
            ttl,
            ask_at: Instant::now() + holds(ttl, settings),
        }
    }

    /// Reduces it to what is left of its time-to-live. False if it is to be asked for again.
    fn is_left(&mut self, now: Instant) -> bool {
        let left = self.ask_at.saturating_duration_since(now);
        // Rounded up, so that it is asked for at the next read.
        self.ttl = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        !left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Records of one name may expire at any moment between two reads of the other.
    #[test]
    fn a_host_that_still_holds_is_asked_for_again_no_later_than_its_time_to_live() {
        let now = Instant::now();
        let left = |later| {
            let mut told = Told {
                addresses: Vec::new(),
                ttl: 60,
                ask_at: now + Duration::from_secs(60),
            };
            let is_left = told.is_left(now + Duration::from_millis(later));
            is_left.then_some(told.ttl)
        };
        assert_eq!(left(0), Some(60));
        assert_eq!(left(49_500), Some(11));
        assert_eq!(left(59_999), Some(1));
        assert_eq!(left(60_000), None);
        assert_eq!(left(61_000), None);
    }
}
