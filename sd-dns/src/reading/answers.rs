//! What the answers about one service tell together.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use sd_core::{Error, ErrorKind, Result, Skipped};

use crate::client::answer::Answer;
use crate::client::error::Failure;
use crate::reading::targets::{OfHost, type_of};

/// More than this is no service: many records of one host with many addresses make an instance for each pair.
pub(crate) const MOST_INSTANCES: usize = 16_384;

/// What a name told.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) found: Vec<Found>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) unknown: Vec<Unknown>,
    /// For how many seconds what was found holds; if nothing was, for how many that does.
    pub(crate) ttl: u32,
    /// Whether the name exists.
    pub(crate) exists: bool,
}

/// One address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) address: SocketAddr,
    /// The host that an SRV record names.
    pub(crate) target: Option<Arc<str>>,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
}

/// Addresses that could not be found out.
#[derive(Clone, Debug)]
pub(crate) struct Unknown {
    /// As in [`Found`].
    pub(crate) target: Option<Arc<str>>,
    /// A or AAAA.
    pub(crate) wanted: RecordType,
    pub(crate) error: Error,
}

impl Unknown {
    /// Whether this address of this host may still be there.
    pub(crate) fn includes(&self, address: IpAddr, target: Option<&str>) -> bool {
        type_of(address) == self.wanted && self.target.as_deref() == target
    }
}

/// For how many seconds answers hold together: those that found something, or else the others.
#[derive(Clone, Copy, Debug, Default)]
struct Ttl {
    found: Option<u32>,
    none: Option<u32>,
}

/// The records of each host. One that names the root says that there is no such service (RFC 2782).
pub(crate) fn by_target(records: &[RData]) -> BTreeMap<&Name, Vec<&SRV>> {
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

impl Reading {
    /// What the answers to questions for these types tell, of services at this port.
    pub(crate) fn of_addresses(
        op: &'static str,
        name: &Name,
        port: u16,
        answers: impl Iterator<Item = (RecordType, Result<Answer, Failure>)>,
    ) -> Self {
        let mut reading = Self::default();
        let mut holds = Ttl::default();
        for (wanted, answer) in answers {
            match answer {
                Ok(Answer::Found { records, ttl, .. }) => {
                    holds.found(ttl);
                    reading.exists = true;
                    for address in records.iter().filter_map(RData::ip_addr) {
                        reading.add(name, SocketAddr::new(address, port), None, (0, 1));
                    }
                }
                Ok(Answer::None { exists, ttl }) => {
                    reading.exists |= exists;
                    holds.none(ttl.unwrap_or(0));
                }
                Err(failure) => reading.unknown.push(Unknown {
                    target: None,
                    wanted,
                    error: failure.of(op),
                }),
            }
        }
        reading.ttl = holds.least().unwrap_or(0);
        reading
    }

    /// What SRV records, which hold for `ttl` seconds, tell with what is known of their hosts.
    ///
    /// # Errors
    /// `InvalidData` if that are too many instances.
    pub(crate) fn of_srv(
        op: &'static str,
        ttl: u32,
        by_target: &BTreeMap<&Name, Vec<&SRV>>,
        told: &HashMap<&Name, OfHost>,
    ) -> Result<Self> {
        let mut reading = Self {
            ttl,
            exists: true,
            ..Self::default()
        };
        for (host, records) in by_target {
            let target: Arc<str> = host.to_lowercase().to_ascii().into();
            let mut holds = Ttl::default();
            let mut addresses = Vec::new();
            let mut is_known = true;
            for (wanted, told) in told.get(host).into_iter().flatten() {
                match told {
                    Ok(told) if told.addresses.is_empty() => holds.none(told.ttl),
                    Ok(told) => {
                        holds.found(told.ttl);
                        addresses.extend(&told.addresses);
                    }
                    Err(failure) => {
                        is_known = false;
                        reading.unknown.push(Unknown {
                            target: Some(Arc::clone(&target)),
                            wanted: *wanted,
                            error: failure.clone().of(op),
                        });
                    }
                }
            }
            reading.ttl = holds
                .least()
                .map_or(reading.ttl, |ttl| reading.ttl.min(ttl));
            if addresses.is_empty() && is_known {
                reading.skip(&host.to_ascii(), "the host has no address");
            }
            let made = reading.found.len() + reading.skipped.len();
            if made + records.len() * addresses.len() > MOST_INSTANCES {
                let why = format!(
                    "its records and their hosts make more than {MOST_INSTANCES} instances"
                );
                return Err(Failure::new(ErrorKind::InvalidData, why).of(op));
            }
            for srv in records {
                // Weight 0 gets a small share (RFC 2782), as the least weight that is not 0 does here.
                let rank = (srv.priority, srv.weight.max(1));
                for address in &addresses {
                    let address = SocketAddr::new(*address, srv.port);
                    reading.add(host, address, Some(&target), rank);
                }
            }
        }
        Ok(reading)
    }

    /// Adds an address, unless it cannot be dialled.
    fn add(
        &mut self,
        host: &Name,
        address: SocketAddr,
        target: Option<&Arc<str>>,
        (priority, weight): (u16, u16),
    ) {
        if address.ip().is_unspecified() || address.port() == 0 {
            let reason = format!("{address} cannot be dialled");
            self.skip(&host.to_ascii(), &reason);
            return;
        }
        self.found.push(Found {
            address,
            target: target.cloned(),
            priority,
            weight,
        });
    }

    fn skip(&mut self, key: &str, reason: &str) {
        self.skipped.push(Skipped::new(key, reason));
    }
}

impl Ttl {
    fn found(&mut self, ttl: u32) {
        self.found = Some(self.found.map_or(ttl, |least| least.min(ttl)));
    }

    fn none(&mut self, ttl: u32) {
        self.none = Some(self.none.map_or(ttl, |least| least.min(ttl)));
    }

    fn least(self) -> Option<u32> {
        self.found.or(self.none)
    }
}
