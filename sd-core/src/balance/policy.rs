//! The seam: what decides which endpoint gets a call.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::balance::load::Load;
use crate::model::instance::Instance;

/// Decides which endpoint each call goes to.
///
/// Its owner, an [`EndpointCache`](crate::EndpointCache) or a channel of `sd-grpc`, has [shaped](super::Selection) the set: a policy
/// sees only connected endpoints of one tier. A policy that panics here costs its own state and no more: the owner picks in turn
/// until the next set. A [`Picker`] or [`Load`] that panics fails the call.
///
/// The program `own_policy` in the examples has a complete policy.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// What the policy keeps of the calls at an endpoint. Called once for each endpoint: for each run of an instance at one
    /// address. `None`, the default, keeps nothing, and costs a call nothing.
    fn new_load(&self, instance: &Arc<Instance>) -> Option<Arc<dyn Load>> {
        let _ = instance;
        None
    }

    /// Builds a picker for `candidates`. Called by the owner's task whenever the set or a weight changes, and not on the way of a
    /// call. `previous` is the picker that this policy built for the set before, whose state the new one may carry on: its
    /// `downcast` gives it as the type that it is.
    fn picker(&self, candidates: &Candidates<'_>, previous: Option<&dyn Picker>)
    -> Box<dyn Picker>;
}

/// Picks endpoints of one set, for any thread. It must neither lock nor allocate.
pub trait Picker: Any + fmt::Debug + Send + Sync {
    /// The index, among the candidates that the picker was built for, of the endpoint that the call goes to.
    ///
    /// Its owner asks again if that endpoint takes no call, with this endpoint among those that the call [has
    /// tried](CallInfo::has_tried). If the picker then still names tried ones, or none, the owner takes any endpoint that was not
    /// tried, and only as a last resort one that was.
    fn pick(&self, call: &CallInfo<'_>) -> Option<usize>;
}

impl dyn Picker {
    /// The picker as the type that it is.
    pub fn downcast<P: Picker>(&self) -> Option<&P> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }
}

/// What is known of a call when its endpoint is picked.
#[derive(Clone, Copy)]
pub struct CallInfo<'a> {
    method: Option<&'a str>,
    hash_key: Option<u64>,
    tried: &'a (dyn Fn(usize) -> bool + Sync),
}

impl Default for CallInfo<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> CallInfo<'a> {
    /// A call of which nothing is known.
    pub fn new() -> Self {
        Self {
            method: None,
            hash_key: None,
            tried: &|_| false,
        }
    }

    /// Sets the called method, for gRPC its path.
    #[must_use]
    pub fn with_method(mut self, method: &'a str) -> Self {
        self.method = Some(method);
        self
    }

    /// Sets what consistent hashing goes by: calls with one key belong to one endpoint.
    #[must_use]
    pub fn with_hash_key(mut self, key: u64) -> Self {
        self.hash_key = Some(key);
        self
    }

    /// Sets which candidates the call has tried.
    #[must_use]
    pub(super) fn with_tried<'b>(self, tried: &'b (dyn Fn(usize) -> bool + Sync)) -> CallInfo<'b>
    where
        'a: 'b,
    {
        CallInfo { tried, ..self }
    }

    /// The called method.
    pub fn method(&self) -> Option<&'a str> {
        self.method
    }

    /// What consistent hashing goes by.
    pub fn hash_key(&self) -> Option<u64> {
        self.hash_key
    }

    /// Whether the call was at this candidate already, and failed there or found no room.
    pub fn has_tried(&self, candidate: usize) -> bool {
        (self.tried)(candidate)
    }
}

impl fmt::Debug for CallInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallInfo")
            .field("method", &self.method)
            .field("hash_key", &self.hash_key)
            .finish_non_exhaustive()
    }
}

/// An endpoint of an owner: its instance, and what the policy keeps of it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) instance: Arc<Instance>,
    pub(super) load: Option<Arc<dyn Load>>,
}

/// The endpoints that a picker may pick, in the order of their ids.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    members: &'a [Member],
    /// Beside the members, so that going through thousands of them stays within the processor's cache.
    weights: &'a [u16],
    chosen: &'a [u32],
}

impl<'a> Candidates<'a> {
    pub(super) fn new(members: &'a [Member], weights: &'a [u16], chosen: &'a [u32]) -> Self {
        Self {
            members,
            weights,
            chosen,
        }
    }

    /// How many there are. May be 0.
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Their weights, in the order of [`iter`](Self::iter) and faster than it: all positive, or all 0, which means equal shares.
    pub fn weights(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        let weights = self.weights;
        self.chosen
            .iter()
            .map(move |index| weights.get(*index as usize).copied().unwrap_or(0))
    }

    /// All of them. The first is the candidate 0 of [`Picker::pick`].
    pub fn iter(&self) -> impl Iterator<Item = Candidate<'a>> + use<'a> {
        let (members, weights) = (self.members, self.weights);
        self.chosen.iter().filter_map(move |index| {
            let (member, weight) = (members.get(*index as usize)?, weights.get(*index as usize)?);
            Some(Candidate {
                member,
                weight: *weight,
            })
        })
    }
}

/// An endpoint that can be picked.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    member: &'a Member,
    weight: u16,
}

impl<'a> Candidate<'a> {
    /// The instance, with its id, address, zone and metadata.
    pub fn instance(&self) -> &'a Arc<Instance> {
        &self.member.instance
    }

    /// Its share of the calls, relative to the others.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// What [`Policy::new_load`] returned for this endpoint, as the type that it is. Stays the same from set to set.
    pub fn load<L: Load>(&self) -> Option<Arc<L>> {
        let load: Arc<dyn Any + Send + Sync> = self.member.load.clone()?;
        load.downcast().ok()
    }
}
