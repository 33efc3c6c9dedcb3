//! What a process asks for: to be registered like this, to be drained.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sd_core::sync::lock;
use sd_core::{Endpoint, Instance};

use super::super::comparing::{self, is_new_run, is_same, run};
use super::super::entry::Refused;
use super::{Before, Held, Keeping, Leaving};
use crate::daemon::store::Drain;
use crate::wire::Declaration;

impl Keeping {
    /// Takes a declaration. Returns the number of the change that its caller waits for.
    pub(super) fn declare(
        &mut self,
        mut declaration: Declaration,
        endpoint: Endpoint,
    ) -> Result<u64, Refused> {
        let is_new_run = is_new_run(&self.declaration, &declaration);
        let declared_ready = declaration.ready;
        // A replay does not take back what the same run has said since.
        if !is_new_run && declared_ready == self.declared_ready {
            declaration.ready = self.declaration.ready;
        }
        let is_same = is_same(&self.declaration, &declaration) && endpoint == self.endpoint;
        if is_same && !is_new_run {
            self.is_unsaved |= self.declared_ready != declared_ready;
            self.declared_ready = declared_ready;
            self.updated_at = SystemTime::now();
            return Ok(self.change);
        }
        // What names itself by its application is a new instance if anything changes, as in the reference system. Without an id of its
        // own, an address or a time-to-live cannot change in place either.
        let keeps_ttl = declaration.ttl == self.declaration.ttl;
        if declaration.id.is_some() && !keeps_ttl {
            return Err(Refused::Invalid(
                "the time-to-live of a registration with an id of its own cannot change: deregister it first"
                    .to_owned(),
            ));
        }
        let is_moved = endpoint != self.endpoint || !keeps_ttl;
        let differs_in_readiness_alone = {
            let as_ready = Declaration {
                ready: self.declaration.ready,
                ..declaration.clone()
            };
            !is_moved && comparing::is_same(&self.declaration, &as_ready)
        };
        let in_place = is_same
            || declaration.id.is_some()
            || differs_in_readiness_alone
            || (!is_moved && declaration.app.is_none());
        let is_elsewhere = endpoint != self.endpoint;
        let is_well = !is_elsewhere && self.health.borrow().passing;
        let checks = (declaration.checks != self.declaration.checks || is_elsewhere)
            .then(|| {
                self.shared
                    .start_checks(&self.owner, &declaration.checks, &endpoint, is_well)
            })
            .transpose()?;
        let now = SystemTime::now();
        // What the process has said of its readiness since its last declaration is no part of one.
        let is_replay = run(&declaration).is_none() && endpoint == self.endpoint && {
            let as_declared = Declaration {
                ready: self.declared_ready,
                ..self.declaration.clone()
            };
            comparing::is_same(&as_declared, &declaration)
        };
        let leaves = is_new_run
            && self
                .leaving
                .is_some_and(|leaving| !(leaving.told.by_administrator && is_replay));
        let dressed = if in_place {
            let record = self.dressed.record_id();
            let bare = Instance::of_run(
                record.service,
                record.id,
                record.incarnation,
                endpoint.clone(),
            );
            self.shared.dress(bare, &declaration, self.registered_at)
        } else {
            self.shared.new_instance(&declaration, &endpoint, now)?
        };
        self.shared.check(&dressed)?;
        let wanted_before = self.wanted();
        let before = Before {
            declaration: std::mem::replace(&mut self.declaration, declaration),
            declared_ready: std::mem::replace(&mut self.declared_ready, declared_ready),
            endpoint: std::mem::replace(&mut self.endpoint, endpoint),
            dressed: std::mem::replace(&mut self.dressed, dressed),
        };
        let left = self.leaving.take_if(|_| leaves);
        if let Some(checks) = checks {
            self.health = checks.health();
            *lock(&self.slot.checks) = Arc::new(checks);
        }
        self.updated_at = now;
        self.is_unsaved |= leaves
            || self.declaration != before.declaration
            || self.declared_ready != before.declared_ready
            || self.dressed != before.dressed;
        if in_place {
            if self.wanted() != wanted_before {
                self.change += 1;
                self.before.get_or_insert(before);
            }
            return Ok(self.change);
        }
        self.change += 1;
        if let Err(refused) = self.replace() {
            self.leaving = left;
            self.take_back(before);
            return Err(refused);
        }
        self.registered_at = now;
        self.before = None;
        Ok(self.change)
    }

    /// Has another record kept in place of this one: that one first, so that readers see no gap.
    pub(super) fn replace(&mut self) -> Result<(), Refused> {
        let guard = self.shared.register(self.wanted(), self.declaration.ttl)?;
        let before = std::mem::replace(&mut self.held, Held::new(guard, self.change));
        let older = self.previous.replace(before.guard);
        self.shared.withdraw(older);
        Ok(())
    }

    pub(super) fn take_back(&mut self, before: Before) {
        let checked_otherwise = before.declaration.checks != self.declaration.checks
            || before.endpoint != self.endpoint;
        self.declaration = before.declaration;
        self.declared_ready = before.declared_ready;
        self.endpoint = before.endpoint;
        self.dressed = before.dressed;
        self.is_unsaved = true;
        let is_well = self.health.borrow().passing;
        if checked_otherwise
            && let Ok(checks) = self.shared.start_checks(
                &self.owner,
                &self.declaration.checks,
                &self.endpoint,
                is_well,
            )
        {
            self.health = checks.health();
            *lock(&self.slot.checks) = Arc::new(checks);
        }
    }

    /// Wants calls, or none.
    pub(super) fn set_ready(&mut self, ready: bool) -> u64 {
        if ready != self.declaration.ready {
            self.declaration.ready = ready;
            // It holds also if the change before it is refused.
            if let Some(before) = &mut self.before {
                before.declaration.ready = ready;
            }
            self.updated_at = SystemTime::now();
            self.change += 1;
            self.is_unsaved = true;
        }
        self.change
    }

    /// Begins to leave.
    pub(super) fn drain(&mut self, grace: Duration, by_administrator: bool) -> u64 {
        let told = Drain {
            by_administrator,
            ..Drain::after(grace)
        };
        self.leaving = Some(Leaving::of(&self.shared, told));
        if let Some(previous) = self.previous.take() {
            self.shared.drain(previous, grace);
        }
        self.updated_at = SystemTime::now();
        self.change += 1;
        self.is_unsaved = true;
        self.change
    }
}
