//! All questions about one service, and what the answers tell together.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use futures_util::future::join_all;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use sd_core::{Error, ErrorKind, Result, Skipped};
use tokio::time::Instant;

use crate::client::Client;
use crate::client::answer::Answer;
use crate::client::error::Failure;
use crate::config::validation::Kind;
use crate::reading::interval::holds;

/// What a name told.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) found: Vec<Found>,
    pub(crate) skipped: Vec<Skipped>,
    /// What could not be found out, and why.
    pub(crate) unknown: Vec<(Part, Error)>,
    /// For how many seconds what was found holds; if nothing was, for how many that does.
    pub(crate) ttl: u32,
    /// Whether the name exists.
    pub(crate) exists: bool,
}

/// One address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) address: SocketAddr,
    pub(crate) part: Part,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
}

/// What is found out by one question, or by one for each kind of address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Ipv4,
    Ipv6,
    /// The host that SRV records name.
    Target(String),
}

/// The addresses of the hosts that SRV records name, until they are to be asked for again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets(HashMap<Name, Target>);

#[derive(Clone, Debug)]
struct Target {
    addresses: Vec<IpAddr>,
    ttl: u32,
    ask_at: Instant,
}

/// Asks everything about `name`. Nothing but what `targets` holds is taken from an earlier read. Cancel-safe.
///
/// # Errors
/// Why nothing could be found out.
pub(crate) async fn read(
    client: &Client,
    op: &'static str,
    name: &Name,
    targets: &mut Targets,
) -> Result<Reading> {
    let reading = async {
        match client.settings().kind {
            Kind::Address { port } => read_addresses(client, op, name, port).await,
            Kind::Srv => read_srv(client, op, name, targets).await,
        }
    };
    let reading = client.within_limit(op, reading).await?;
    match reading.unknown.first() {
        Some((_, error)) if reading.found.is_empty() => Err(error.clone()),
        _ => Ok(reading),
    }
}

async fn read_addresses(
    client: &Client,
    op: &'static str,
    name: &Name,
    serves_at: u16,
) -> Result<Reading> {
    let types = client.settings().family.types();
    let answers = client.lookup(name, types).await;
    let mut reading = Reading::default();
    let (mut positive, mut negative) = (None, None);
    for (wanted, answer) in types.iter().zip(answers) {
        let part = match wanted {
            RecordType::A => Part::Ipv4,
            _ => Part::Ipv6,
        };
        match answer {
            Ok(Answer::Found { records, ttl, .. }) => {
                positive = Some(least(positive, ttl));
                for address in records.iter().filter_map(RData::ip_addr) {
                    reading.add(name, SocketAddr::new(address, serves_at), &part, (0, 1));
                }
            }
            Ok(Answer::None { exists, ttl }) => {
                reading.exists |= exists;
                negative = Some(least(negative, ttl.unwrap_or(0)));
            }
            Err(failure) => reading.unknown.push((part, failure.of(op))),
        }
    }
    reading.exists |= positive.is_some();
    reading.ttl = positive.or(negative).unwrap_or(0);
    Ok(reading)
}

async fn read_srv(
    client: &Client,
    op: &'static str,
    name: &Name,
    targets: &mut Targets,
) -> Result<Reading> {
    let mut answers = client.lookup(name, &[RecordType::SRV]).await;
    let (records, along, ttl) = match answers.pop() {
        Some(Ok(Answer::Found {
            records,
            addresses,
            ttl,
        })) => (records, addresses, ttl),
        Some(Ok(Answer::None { exists, ttl })) => {
            return Ok(Reading {
                exists,
                ttl: ttl.unwrap_or(0),
                ..Reading::default()
            });
        }
        Some(Err(failure)) => return Err(failure.of(op)),
        None => return Err(Error::new(ErrorKind::Unavailable, op)),
    };
    let mut reading = Reading {
        ttl,
        exists: true,
        ..Reading::default()
    };
    let by_target = by_target(&records);
    let asked = targets.ask(client, &by_target, along).await;
    for (target, records) in by_target {
        let part = Part::Target(target.to_lowercase().to_ascii());
        let told = match asked.get(target) {
            Some(Ok(told)) => told,
            Some(Err(failure)) => {
                reading.unknown.push((part, failure.clone().of(op)));
                continue;
            }
            None => continue,
        };
        reading.ttl = reading.ttl.min(told.ttl);
        if told.addresses.is_empty() {
            reading.skip(&target.to_ascii(), "the host has no address");
        }
        for srv in records {
            // Weight 0 gets a small share (RFC 2782), as the least weight that is not 0 does here.
            let rank = (srv.priority, srv.weight.max(1));
            for address in &told.addresses {
                reading.add(target, SocketAddr::new(*address, srv.port), &part, rank);
            }
        }
    }
    Ok(reading)
}

/// The records of each host. One that names the root says that there is no such service (RFC 2782).
fn by_target(records: &[RData]) -> BTreeMap<&Name, Vec<&SRV>> {
    let mut by_target: BTreeMap<&Name, Vec<&SRV>> = BTreeMap::new();
    for record in records {
        if let RData::SRV(srv) = record
            && !srv.target.is_root()
        {
            by_target.entry(&srv.target).or_default().push(srv);
        }
    }
    by_target
}

impl Targets {
    /// The addresses of each host: those that came along with the SRV records, those that still hold, or what is asked now.
    async fn ask<'a>(
        &mut self,
        client: &Client,
        wanted: &BTreeMap<&'a Name, Vec<&SRV>>,
        along: Vec<(Name, IpAddr, u32)>,
    ) -> HashMap<&'a Name, Result<Target, Failure>> {
        let now = Instant::now();
        let family = client.settings().family;
        let mut known: HashMap<Name, Target> = HashMap::new();
        for (name, address, ttl) in along {
            if wanted.contains_key(&name) && family.includes(address) {
                let target = known.entry(name).or_insert_with(|| Target {
                    addresses: Vec::new(),
                    ttl,
                    ask_at: now,
                });
                target.addresses.push(address);
                target.ttl = target.ttl.min(ttl);
            }
        }
        for (name, target) in &self.0 {
            if let Some(target) = target.at(now)
                && !known.contains_key(name)
            {
                known.insert(name.clone(), target);
            }
        }
        let asked = wanted.keys().map(|name| {
            let known = known.remove(*name);
            async move {
                match known {
                    Some(target) => (*name, Ok(target)),
                    None => (*name, ask(client, name).await),
                }
            }
        });
        let asked: HashMap<_, _> = join_all(asked).await.into_iter().collect();
        let held = asked.iter().filter_map(|(name, target)| {
            let target = target.as_ref().ok()?;
            (target.ask_at > now).then(|| ((*name).clone(), target.clone()))
        });
        self.0 = held.collect();
        asked
    }
}

impl Target {
    /// The same, with what is left of its time-to-live. `None` if it is to be asked for again.
    fn at(&self, now: Instant) -> Option<Self> {
        let left = self.ask_at.saturating_duration_since(now);
        // Rounded up, so that it is asked for at the next read.
        let ttl = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        (!left.is_zero()).then(|| Self {
            ttl,
            ..self.clone()
        })
    }
}

/// Asks for the addresses of one host.
async fn ask(client: &Client, name: &Name) -> Result<Target, Failure> {
    let types = client.settings().family.types();
    let (mut addresses, mut positive, mut negative) = (Vec::new(), None, None);
    for answer in client.lookup(name, types).await {
        match answer? {
            Answer::Found { records, ttl, .. } => {
                positive = Some(least(positive, ttl));
                addresses.extend(records.iter().filter_map(RData::ip_addr));
            }
            Answer::None { ttl, .. } => negative = Some(least(negative, ttl.unwrap_or(0))),
        }
    }
    let ttl = positive.or(negative).unwrap_or(0);
    Ok(Target {
        addresses,
        ttl,
        ask_at: Instant::now() + holds(ttl, client.settings()),
    })
}

fn least(one: Option<u32>, other: u32) -> u32 {
    one.map_or(other, |one| one.min(other))
}

impl Reading {
    /// Adds an address, unless it cannot be dialled.
    fn add(
        &mut self,
        host: &Name,
        address: SocketAddr,
        part: &Part,
        (priority, weight): (u16, u16),
    ) {
        if address.ip().is_unspecified() || address.port() == 0 {
            let reason = format!("{address} cannot be dialled");
            self.skip(&host.to_ascii(), &reason);
            return;
        }
        self.found.push(Found {
            address,
            part: part.clone(),
            priority,
            weight,
        });
    }

    fn skip(&mut self, key: &str, reason: &str) {
        self.skipped.push(Skipped::new(key, reason));
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
        let target = Target {
            addresses: Vec::new(),
            ttl: 60,
            ask_at: now + Duration::from_secs(60),
        };
        let left = |later| {
            target
                .at(now + Duration::from_millis(later))
                .map(|it| it.ttl)
        };
        assert_eq!(left(0), Some(60));
        assert_eq!(left(49_500), Some(11));
        assert_eq!(left(59_999), Some(1));
        assert_eq!(left(60_000), None);
        assert_eq!(left(61_000), None);
    }
}
