//! By calls in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

use crate::balance::load::{Load, Outcome};
use crate::balance::policy::{CallInfo, Candidates, Picker, Policy};
use crate::balance::table::Table;
use crate::model::instance::Instance;

/// Of two endpoints drawn at random, picks the one with fewer of this client's calls in flight for its weight. An endpoint that is
/// slow therefore gets fewer calls. Where both have the same, weights share as in [`RoundRobin`](super::RoundRobin), but at random.
///
/// Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996; Envoy and gRPC (A48) call it least request.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LeastRequest;

impl LeastRequest {
    /// The policy.
    pub const fn new() -> Self {
        Self
    }
}

/// How many calls are in flight at an endpoint.
#[derive(Debug, Default)]
struct InFlight(CachePadded<AtomicU32>);

impl Load for InFlight {
    fn begin(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed);
        0
    }

    fn end(&self, _: u64, _: Outcome) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct TwoChoices {
    table: Table,
    endpoints: Box<[Endpoint]>,
}

#[derive(Debug)]
struct Endpoint {
    load: Arc<InFlight>,
    weight: u16,
}

impl Endpoint {
    /// Whether it has fewer calls for its weight.
    fn is_less_loaded_than(&self, other: &Self) -> bool {
        let calls = |endpoint: &Self| u64::from(endpoint.load.0.load(Ordering::Relaxed));
        // Weights are all 0 where they mean equal shares.
        let weight = |endpoint: &Self| u64::from(endpoint.weight.max(1));
        calls(self) * weight(other) < calls(other) * weight(self)
    }
}

impl Policy for LeastRequest {
    fn new_load(&self, _: &Arc<Instance>) -> Option<Arc<dyn Load>> {
        Some(Arc::new(InFlight::default()))
    }

    fn picker(&self, candidates: &Candidates<'_>, _: Option<&dyn Picker>) -> Box<dyn Picker> {
        let endpoints = candidates.iter().map(|candidate| Endpoint {
            load: candidate.load().unwrap_or_default(),
            weight: candidate.weight(),
        });
        Box::new(TwoChoices {
            table: Table::new(candidates.weights()),
            endpoints: endpoints.collect(),
        })
    }
}

impl TwoChoices {
    /// A random one but the one at `index`.
    fn other_than(&self, index: usize) -> Option<usize> {
        let others = self.endpoints.len().checked_sub(1).filter(|n| *n > 0)?;
        let other = fastrand::usize(..others);
        Some(if other < index { other } else { other + 1 })
    }
}

impl Picker for TwoChoices {
    fn pick(&self, call: &CallInfo<'_>) -> Option<usize> {
        let first = self.table.at_random()?;
        let Some(second) = self.other_than(first) else {
            return Some(first);
        };
        let takes_second = match (call.has_tried(first), call.has_tried(second)) {
            (true, false) => true,
            (false, true) => false,
            _ => self
                .endpoints
                .get(first)
                .zip(self.endpoints.get(second))
                .is_some_and(|(first, second)| second.is_less_loaded_than(first)),
        };
        Some(if takes_second { second } else { first })
    }
}
