//! The readers of what comes from a resolver, for `cargo xtask fuzz`.

use std::collections::HashMap;
use std::time::Duration;

use hickory_resolver::proto::op::{DnsResponse, Query};
use hickory_resolver::proto::rr::RecordType;
use sd_core::clock::Moment;
use sd_core::{Revision, ServiceName, Snapshot};
use tokio::time::Instant;

use crate::client::answer::{self, Answer, Step};
use crate::client::datagrams;
use crate::client::error::Failure;
use crate::reading::answers::{Reading, by_target};
use crate::reading::service_set::ServiceSet;
use crate::reading::targets::came_along;

const OP: &str = "fuzz";
const PORT: u16 = 80;

/// The set of a service whose only answer is this message, read as `records` of the name that it answers for.
///
/// # Errors
/// Why the message is no answer.
pub fn read_message(service: &ServiceName, message: &[u8], srv: bool) -> Result<Snapshot, String> {
    let message = DnsResponse::from_buffer(message.to_vec()).map_err(|error| error.to_string())?;
    let name = message.queries.first().map(Query::name);
    let name = name.ok_or("no question")?;
    let read = |wanted| match answer::read(&message, name, wanted) {
        Ok(Step::Answer(answer)) => Ok(answer),
        Ok(Step::Alias { .. }) => Err(Failure::new(sd_core::ErrorKind::NotFound, "an alias")),
        Err(failure) => Err(failure),
    };
    let reading = if srv {
        of_srv(read(RecordType::SRV).map_err(|failure| failure.why)?)?
    } else {
        let types = [RecordType::A, RecordType::AAAA];
        let answers = types.map(|wanted| (wanted, read(wanted)));
        Reading::of_addresses(OP, name, PORT, answers.into_iter())
    };
    let mut set = ServiceSet::new(service.clone(), 1);
    set.take(&reading, Duration::ZERO, Moment::ZERO);
    let once = set.snapshot(Revision::new("fuzz", 1));
    set.take(&reading, Duration::ZERO, Moment::ZERO);
    let twice = set.snapshot(Revision::new("fuzz", 2));
    assert!(once.is_same_set(&twice), "{once:?} {twice:?}");
    Ok(once)
}

/// Of its hosts nothing is known but what came along.
fn of_srv(answer: Answer) -> Result<Reading, String> {
    let Answer::Found {
        records,
        addresses,
        ttl,
    } = answer
    else {
        return Ok(Reading::default());
    };
    let by_target = by_target(&records);
    let mut told: HashMap<_, Vec<_>> = HashMap::new();
    let along = came_along(addresses, Instant::now());
    for ((host, wanted), along) in &along {
        let of_host = told.entry(host).or_default();
        of_host.push((*wanted, Ok(along.clone())));
    }
    Reading::of_srv(OP, ttl, &by_target, &told).map_err(|error| error.to_string())
}

/// What the client crate sees of a datagram that answers the question `asked`.
pub fn read_datagram(asked: &[u8], datagram: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let length = datagram.len().min(buffer.len());
    buffer[..length].copy_from_slice(&datagram[..length]);
    let length = datagrams::with_question(&mut buffer, length, asked).unwrap_or(length);
    buffer.truncate(length);
    buffer
}
