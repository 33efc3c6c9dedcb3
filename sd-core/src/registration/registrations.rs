//! The registrations that a registry keeps: their tasks, no two under one id, and what a dump shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Holder, Result};
use crate::model::instance::RecordId;
use crate::model::name::{InstanceId, ServiceName};
use crate::printable::Printable;
use crate::registration::command::Confirm;
use crate::registration::guard::RegistrationGuard;
use crate::registration::keeper::{Keeper, KeeperHandle, LeaveRecord};
use crate::registration::status::{RegistrationDump, RegistrationStatus};
use crate::sync::lock;

/// The registrations that this process keeps. Refuses duplicates, and shows all in dumps.
#[derive(Default)]
pub(crate) struct Registrations(Mutex<All>);

#[derive(Default)]
struct All {
    kept: BTreeMap<(ServiceName, InstanceId), Kept>,
    /// Whether later ones leave their records, too.
    leave_records: bool,
}

struct Kept {
    status: watch::Receiver<RegistrationStatus>,
    /// Told to stop.
    stop: CancellationToken,
    leave_record: LeaveRecord,
    /// Has withdrawn, or given up doing so.
    left: CancellationToken,
    /// How long that may take.
    withdraw_within: Duration,
}

impl Kept {
    /// Whether its task goes on and its owner wants it.
    fn is_kept(&self) -> bool {
        !self.stop.is_cancelled() && !self.left.is_cancelled()
    }

    /// Whether there is nothing left to tell. A task that ended with its runtime is shown until its owner lets go.
    fn is_over(&self) -> bool {
        self.stop.is_cancelled() && self.left.is_cancelled()
    }
}

impl Registrations {
    /// Runs a keeper in a task of its own.
    ///
    /// # Errors
    /// `Conflict` if a registration under this id is kept already.
    pub(crate) fn keep(
        self: &Arc<Self>,
        (keeper, handle): (Keeper, KeeperHandle),
        confirm: Confirm,
        tasks: &TaskTracker,
        runtime: &Handle,
    ) -> Result<RegistrationGuard> {
        let record = handle.status.borrow().wanted.record_id();
        let left = CancellationToken::new();
        let kept = Kept {
            status: handle.status.clone(),
            stop: handle.stop.clone(),
            leave_record: handle.leave_record.clone(),
            left: left.clone(),
            withdraw_within: handle.config.withdraw_within,
        };
        let keeper = keeper.after(self.enter(&record, kept)?);
        let span = info_span!(
            "heartbeat",
            service = %Printable(record.service.as_str()),
            instance = %Printable(record.id.as_str())
        );
        let (end, ended) = oneshot::channel();
        let (registrations, id) = (Arc::clone(self), record.clone());
        // Signals this even if the task is dropped.
        let left = left.drop_guard();
        let task = async move {
            let done = keeper.run(confirm).await;
            drop(left);
            registrations.tidy(&id);
            // The owner may have let go.
            let _ = end.send(done);
        };
        tasks.spawn_on(task.instrument(span), runtime);
        Ok(RegistrationGuard::new(record, handle, ended))
    }

    /// Enters a registration. If an earlier one under this id is still withdrawing, returns the token that tells when it has
    /// left.
    fn enter(&self, record: &RecordId, kept: Kept) -> Result<Option<CancellationToken>> {
        let mut all = lock(&self.0);
        if all.leave_records {
            kept.leave_record.set();
        }
        let map = &mut all.kept;
        map.retain(|_, kept| !kept.is_over());
        let key = (record.service.clone(), record.id.clone());
        if let Some(other) = map.get(&key).filter(|other| other.is_kept()) {
            let error = Error::new(ErrorKind::Conflict, "register");
            let holder = Holder::from(other.status.borrow().wanted.as_ref());
            return Err(error.held_by(holder).because(format!(
                "this process already keeps {:?} of {:?} registered: deregister it first",
                record.id, record.service
            )));
        }
        Ok(map.insert(key, kept).map(|before| before.left))
    }

    /// Forgets the registration under this id, unless it is a later one than the one that left.
    fn tidy(&self, record: &RecordId) {
        let map = &mut lock(&self.0).kept;
        let key = (record.service.clone(), record.id.clone());
        if map.get(&key).is_some_and(|kept| kept.left.is_cancelled()) {
            map.remove(&key);
        }
    }

    /// Has every keeper leave its record when it stops.
    pub(crate) fn leave_records(&self) {
        let mut all = lock(&self.0);
        all.leave_records = true;
        for kept in all.kept.values() {
            kept.leave_record.set();
        }
    }

    /// The longest that withdrawing a record which is kept may take.
    pub(crate) fn withdraw_within(&self) -> Duration {
        let all = lock(&self.0);
        let longest = all.kept.values().map(|kept| kept.withdraw_within).max();
        longest.unwrap_or_default()
    }

    pub(crate) fn dump(&self, clock: &dyn Clock) -> Vec<RegistrationDump> {
        let map = &mut lock(&self.0).kept;
        map.retain(|_, kept| !kept.is_over());
        map.values()
            .map(|kept| RegistrationDump::new(&kept.status.borrow(), clock))
            .collect()
    }
}
