//! In turn.

use crate::balance::policy::{CallInfo, Candidates, Picker, Policy};
use crate::balance::rotation::Rotation;
use crate::balance::table::Table;

/// Picks endpoints in turn: round robin where all weights are equal, otherwise smooth weighted round robin by static-stride
/// scheduling, as in gRPC's `weighted_round_robin`. The turn starts at random, and goes on when the set changes. All who pick from
/// one set share the turns exactly.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RoundRobin;

impl RoundRobin {
    /// The policy.
    pub const fn new() -> Self {
        Self
    }
}

#[derive(Debug)]
struct InTurn {
    rotation: Rotation,
    table: Table,
}

impl Policy for RoundRobin {
    fn picker(
        &self,
        candidates: &Candidates<'_>,
        previous: Option<&dyn Picker>,
    ) -> Box<dyn Picker> {
        let previous = previous.and_then(|picker| picker.downcast::<InTurn>());
        Box::new(InTurn {
            rotation: previous.map_or_else(Rotation::new, |picker| picker.rotation.clone()),
            table: Table::new(candidates.weights()),
        })
    }
}

impl Picker for InTurn {
    fn pick(&self, _: &CallInfo<'_>) -> Option<usize> {
        self.table.in_turn(&self.rotation)
    }
}
