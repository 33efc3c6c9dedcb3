//! Asks where a service is, and reads one as a whole.

use std::collections::HashSet;
use std::time::Duration;

use redis::{Cmd, Pipeline};
use sd_core::{ErrorKind, Result, ServiceName, Skipped, Snapshot};

use crate::client::Client;
use crate::client::answer::Answers;
use crate::client::script::Named;
use crate::codec::names::Keys;
use crate::reading::service_set::ServiceSet;
use crate::scripts::{LOOK, args_of, new_history};

/// Stands for the history of a service that cannot be read: no other is called so.
const UNREADABLE: &str = "unreadable";

/// Where a service was at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    /// The name of its history. Empty as long as there is none.
    pub(crate) history: String,
    /// How many changes that has.
    pub(crate) version: u64,
    /// The sum of these changes. Two servers of one history that have lost different changes have different ones.
    pub(crate) sum: String,
    /// How many entries the server has.
    pub(crate) entries: usize,
    /// In how long the next one ends, unless it is renewed.
    pub(crate) next_end: Option<Duration>,
    /// What has ended and is still there, because we may not remove it.
    pub(crate) ended: HashSet<Vec<u8>>,
}

impl Position {
    /// Whether no change lies between the two.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (&self.history, self.version, &self.sum) == (&other.history, other.version, &other.sum)
    }

    /// Whether the server that was there `before` had changes which the one that is here now has lost.
    pub(crate) fn has_lost(&self, before: &Self) -> bool {
        self.history == before.history && self.version <= before.version && !self.is_at(before)
    }

    fn read(answers: &mut Answers) -> Result<Self> {
        let mut told = answers.list()?;
        let (history, version, sum) = (told.text()?, told.number()?, told.text()?);
        let entries = told.number()?;
        let next_end: i64 = told.number()?;
        let ended = told.list()?.all_bytes()?;
        Ok(Self {
            history,
            version,
            sum,
            entries,
            next_end: u64::try_from(next_end).ok().map(Duration::from_millis),
            ended: ended.into_iter().collect(),
        })
    }
}

fn look(named: Named, keys: &Keys) -> Cmd {
    let history = new_history();
    LOOK.call(named, &keys.of_service(), &args_of(keys, &history))
}

/// Asks where a service is. What has ended is removed.
pub(crate) async fn read_position(
    client: &Client,
    op: &'static str,
    keys: &Keys,
) -> Result<Position> {
    let commands = |named| {
        let mut commands = Pipeline::new();
        commands.add_command(look(named, keys));
        commands
    };
    let mut answers = client.ask(op, &keys.records, commands).await?;
    Position::read(&mut answers)
}

/// Reads all records of a service. They may be newer than the position that is told with them, by changes that are told afterwards. A
/// transaction would not be: but a server that has no memory left takes none.
///
/// A key that another program has made something else is named in place of what it should hold.
pub(crate) async fn read_service(
    client: &Client,
    op: &'static str,
    service: &ServiceName,
    keys: &Keys,
    known: Option<&Snapshot>,
) -> Result<(ServiceSet, Position)> {
    let commands = |named| {
        let mut commands = Pipeline::new();
        commands.add_command(look(named, keys));
        commands.cmd("HGETALL").arg(&keys.records);
        commands
    };
    let mut answers = client.ask(op, &keys.records, commands).await?;
    let mut set = ServiceSet::new(service.clone(), &keys.records);
    let position = match Position::read(&mut answers) {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            for skipped in wrong_types(client, op, keys).await? {
                set.skip_key(&skipped.key, &skipped.reason);
            }
            return Ok((set, Position::of_wrong_types()));
        }
        position => position?,
    };
    for (id, value) in answers.pairs()? {
        if position.ended.contains(&id) {
            set.hide(&id);
        } else {
            set.put(&id, &value, known);
        }
    }
    Ok((set, position))
}

impl Position {
    /// Of a service whose keys are something else.
    fn of_wrong_types() -> Self {
        Self {
            history: UNREADABLE.to_owned(),
            version: 0,
            sum: String::new(),
            entries: 0,
            next_end: None,
            ended: HashSet::new(),
        }
    }
}

/// Which keys of a service hold something else than they should.
async fn wrong_types(client: &Client, op: &'static str, keys: &Keys) -> Result<Vec<Skipped>> {
    let places = [
        (&keys.records, "hash"),
        (&keys.ends, "zset"),
        (&keys.state, "hash"),
    ];
    let commands = |_| {
        let mut commands = Pipeline::new();
        for (key, _) in places {
            commands.cmd("TYPE").arg(key);
        }
        commands
    };
    let mut answers = client.ask(op, &keys.records, commands).await?;
    let mut wrong = Vec::new();
    for (key, expected) in places {
        let found = answers.text()?;
        if found != expected && found != "none" {
            let reason = format!("it holds a {found}, expected a {expected}: remove it");
            wrong.push(Skipped::new(key, reason));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_has_lost_changes_is_told_by_its_sum() {
        let at = |version, sum: &str| Position {
            history: "h".to_owned(),
            version,
            sum: sum.to_owned(),
            ..Position::of_wrong_types()
        };
        let before = at(7, "a");
        assert!(at(7, "a").is_at(&before) && !at(7, "a").has_lost(&before));
        assert!(at(7, "b").has_lost(&before) && at(6, "b").has_lost(&before));
        // It may have, and nothing says so: everything is read, and the positions have an order.
        assert!(!at(8, "b").has_lost(&before) && !at(8, "b").is_at(&before));
        let elsewhere = Position::of_wrong_types();
        assert!(!elsewhere.has_lost(&before) && !elsewhere.is_at(&before));
    }
}
