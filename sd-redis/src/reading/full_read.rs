//! Asks where a service is, and reads one as a whole.

use std::collections::HashSet;
use std::time::Duration;

use redis::{Cmd, Pipeline};
use sd_core::{ErrorKind, Result, ServiceName, Skipped, Snapshot};

use crate::client::Client;
use crate::client::answer::Answers;
use crate::client::script::Named;
use crate::codec::names::Keys;
use crate::reading::position::Position;
use crate::reading::service_set::ServiceSet;
use crate::scripts::{LOOK, args_of, new_history};

/// Stands for the history of a service that cannot be read: no other is called so.
const UNREADABLE: &str = "unreadable";

/// What a server says when it is asked where a service is.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) at: Position,
    /// How many entries the server has.
    pub(crate) entries: usize,
    /// In how long the next one ends, unless it is renewed.
    pub(crate) next_end: Option<Duration>,
    /// What has ended and is still there, because we may not remove it.
    pub(crate) ended: HashSet<Vec<u8>>,
}

impl Look {
    fn read(answers: &mut Answers) -> Result<Self> {
        let mut told = answers.list()?;
        let at = Position::new(told.text()?, told.number()?, told.text()?);
        let entries = told.number()?;
        let next_end: i64 = told.number()?;
        let ended = told.list()?.all_bytes()?;
        Ok(Self {
            at,
            entries,
            next_end: u64::try_from(next_end).ok().map(Duration::from_millis),
            ended: ended.into_iter().collect(),
        })
    }

    /// Of a service whose keys are something else.
    fn of_wrong_types() -> Self {
        Self {
            at: Position::new(UNREADABLE.to_owned(), 0, String::new()),
            entries: 0,
            next_end: None,
            ended: HashSet::new(),
        }
    }
}

fn look(named: Named, keys: &Keys) -> Cmd {
    let history = new_history();
    LOOK.call(named, &keys.of_service(), &args_of(keys, &history))
}

/// Asks where a service is. What has ended is removed.
pub(crate) async fn read_position(client: &Client, op: &'static str, keys: &Keys) -> Result<Look> {
    let commands = |named| {
        let mut commands = Pipeline::new();
        commands.add_command(look(named, keys));
        commands
    };
    let mut answers = client.ask(op, &keys.records, commands).await?;
    Look::read(&mut answers)
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
) -> Result<(ServiceSet, Look)> {
    let commands = |named| {
        let mut commands = Pipeline::new();
        commands.add_command(look(named, keys));
        commands.cmd("HGETALL").arg(&keys.records);
        commands
    };
    let mut answers = client.ask(op, &keys.records, commands).await?;
    let mut set = ServiceSet::new(service.clone(), &keys.records);
    let looked = match Look::read(&mut answers) {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            for skipped in wrong_types(client, op, keys).await? {
                set.skip_key(&skipped.key, &skipped.reason);
            }
            return Ok((set, Look::of_wrong_types()));
        }
        looked => looked?,
    };
    for (id, value) in answers.pairs()? {
        if looked.ended.contains(&id) {
            set.hide(&id);
        } else {
            set.put(&id, &value, known);
        }
    }
    Ok((set, looked))
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
