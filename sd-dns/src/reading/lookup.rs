//! All questions about one service.

use hickory_resolver::proto::rr::{Name, RecordType};
use sd_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::client::answer::Answer;
use crate::config::validation::Kind;
use crate::reading::answers::{Reading, by_target};
use crate::reading::targets::Targets;

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
            Kind::Address { port } => {
                let types = client.settings().family.types();
                let answers = client.lookup(name, types).await;
                let answers = types.iter().copied().zip(answers);
                Ok(Reading::of_addresses(op, name, port, answers))
            }
            Kind::Srv => read_srv(client, op, name, targets).await,
        }
    };
    let reading = client.within_limit(op, reading).await?;
    match reading.unknown.first() {
        Some(unknown) if reading.found.is_empty() => Err(unknown.error.clone()),
        _ => Ok(reading),
    }
}

async fn read_srv(
    client: &Client,
    op: &'static str,
    name: &Name,
    targets: &mut Targets,
) -> Result<Reading> {
    let mut answers = client.lookup(name, &[RecordType::SRV]).await;
    match answers.pop() {
        Some(Ok(Answer::Found {
            records,
            addresses,
            ttl,
        })) => {
            let by_target = by_target(&records);
            let hosts = by_target.keys().copied();
            let told = targets.ask(client, hosts, addresses).await;
            Reading::of_srv(op, ttl, &by_target, &told)
        }
        Some(Ok(Answer::None { exists, ttl })) => Ok(Reading {
            exists,
            ttl: ttl.unwrap_or(0),
            ..Reading::default()
        }),
        Some(Err(failure)) => Err(failure.of(op)),
        None => Err(Error::new(ErrorKind::Unavailable, op)),
    }
}
