//! The operators' port of the embedded registry with one deliberate flaw.

use std::sync::Arc;

use sd_core::port::async_trait;
use sd_core::{
    Backend, Error, ErrorKind, Instance, Instancer, Operator, Override, RecordId, Result, Snapshot,
};
use sd_testing::Ability;

use crate::Catches;
use crate::flawed::{Flaw, Flawed};

/// Over leases.
pub(crate) const CATCHES: Catches = &[
    (
        Flaw::OverridesNothing,
        &["an_override_decides_on_readiness_and_changes_nothing_else"],
    ),
    (
        Flaw::HidesOverrides,
        &["an_override_decides_on_readiness_and_changes_nothing_else"],
    ),
    (
        Flaw::OverridesTheWholeService,
        &["an_override_decides_on_readiness_and_changes_nothing_else"],
    ),
    (
        Flaw::HeedsTheOwnerFirst,
        &["ready_wins_over_a_record_that_is_not_ready"],
    ),
    (
        Flaw::ClearsByMakingReady,
        &["a_cleared_override_leaves_what_the_owner_says"],
    ),
    (
        Flaw::ClearsBeforeItSets,
        &["a_feed_tells_each_override_as_the_same_run"],
    ),
    (
        Flaw::HeedsTheFirstOperator,
        &["of_two_operators_the_last_one_counts"],
    ),
    (
        Flaw::ReplacesSlashes,
        &["an_odd_id_is_overridden_like_any_other"],
    ),
    (
        Flaw::OverridesAnyRunWithTheId,
        &["another_run_is_not_overridden"],
    ),
    (
        Flaw::OverridesWhatIsAbsent,
        &["what_is_not_there_cannot_be_overridden"],
    ),
    (
        Flaw::IgnoresClose,
        &["a_closed_backend_neither_overrides_nor_removes"],
    ),
    (
        Flaw::TellsNoOwnerOfOverrides,
        &["the_owner_is_told_when_it_renews"],
    ),
    (
        Flaw::ClearsOverridesByUpdating,
        &["renewals_and_updates_leave_an_override"],
    ),
    (
        Flaw::KeepsOverridesOfIds,
        &[
            "an_override_ends_with_its_record",
            "an_override_says_nothing_of_the_next_run",
            "a_living_owner_notices_that_its_record_was_removed_and_registers_it_as_it_says",
        ],
    ),
    (
        Flaw::ReleasesOverrides,
        &["a_released_record_keeps_its_override"],
    ),
    (
        Flaw::RemovesNothing,
        &["a_removed_record_is_gone_and_named_as_withdrawn"],
    ),
    (
        Flaw::RemovesAsIfLost,
        &["a_removed_record_is_gone_and_named_as_withdrawn"],
    ),
    (
        Flaw::RemovesAnyRunWithTheId,
        &["removing_spares_another_run_and_what_is_not_there"],
    ),
];

impl Flawed {
    fn inner_operator(&self) -> Arc<dyn Operator> {
        Arc::<sd_core::memory::MemoryBackend>::clone(&self.inner)
            .operator()
            .unwrap()
    }

    /// The set as a reader sees it.
    pub(crate) fn overridden(&self, set: Snapshot) -> Snapshot {
        let all_drained = set.instances().iter().any(|one| one.overridden().is_some());
        let edit = |one: &Arc<Instance>| {
            let own = one.as_ref().clone();
            Arc::new(match self.flaw {
                Flaw::HidesOverrides => own.with_override(None),
                Flaw::OverridesTheWholeService if all_drained => {
                    own.with_override(Override::Draining)
                }
                Flaw::HeedsTheOwnerFirst if own.overridden() == Some(Override::Ready) => {
                    own.with_ready(false)
                }
                _ => own,
            })
        };
        let edited = set.instances().iter().map(edit).collect();
        set.with_instances(edited)
    }

    /// What a record has from those that had its id before.
    pub(crate) async fn inherit(&self, record: &RecordId) -> Result<()> {
        let key = (record.service.clone(), record.id.clone());
        let said = self.shared.said.lock().unwrap().get(&key).copied();
        if self.has(Flaw::KeepsOverridesOfIds) && said.is_some() {
            self.inner_operator().set_override(record, said).await?;
        }
        Ok(())
    }

    pub(crate) async fn clear_override(&self, record: &RecordId) -> Result<()> {
        self.inner_operator().set_override(record, None).await
    }

    /// The run that has the id.
    async fn run_under(&self, record: &RecordId) -> Result<RecordId> {
        let listed = self.inner.list(&record.service).await?;
        let found = listed.get(&record.id);
        Ok(found.map_or_else(|| record.clone(), |found| found.record_id()))
    }
}

#[async_trait]
impl Operator for Flawed {
    async fn set_override(&self, record: &RecordId, wanted: Option<Override>) -> Result<()> {
        let operator = self.inner_operator();
        if wanted == Some(Override::Ready) && !self.source.has(Ability::ReadyOverrides) {
            return Err(Error::new(ErrorKind::Unsupported, "override"));
        }
        match self.flaw {
            Flaw::OverridesNothing => return Ok(()),
            Flaw::ClearsByMakingReady if wanted.is_none() => {
                return operator.set_override(record, Some(Override::Ready)).await;
            }
            Flaw::ClearsBeforeItSets => {
                operator.set_override(record, None).await?;
                tokio::task::yield_now().await;
            }
            Flaw::HeedsTheFirstOperator => {
                let listed = self.inner.list(&record.service).await?;
                let found = listed.get(&record.id);
                if found.is_some_and(|found| found.overridden().is_some()) {
                    return Ok(());
                }
            }
            Flaw::OverridesAnyRunWithTheId => {
                let found = self.run_under(record).await?;
                return operator.set_override(&found, wanted).await;
            }
            Flaw::KeepsOverridesOfIds => {
                let key = (record.service.clone(), record.id.clone());
                let mut said = self.shared.said.lock().unwrap();
                match wanted {
                    Some(wanted) => said.insert(key, wanted),
                    None => said.remove(&key),
                };
            }
            _ => {}
        }
        match operator.set_override(record, wanted).await {
            Err(error)
                if self.has(Flaw::OverridesWhatIsAbsent) && error.kind() == ErrorKind::NotFound =>
            {
                Ok(())
            }
            set => set,
        }
    }

    async fn remove(&self, record: &RecordId) -> Result<()> {
        match self.flaw {
            Flaw::RemovesNothing => Ok(()),
            Flaw::RemovesAsIfLost => {
                self.memory.operator().remove(record);
                Ok(())
            }
            Flaw::RemovesAnyRunWithTheId => {
                let found = self.run_under(record).await?;
                self.inner_operator().remove(&found).await
            }
            _ => self.inner_operator().remove(record).await,
        }
    }
}
