//! Where a registration stands, for its owner and for dumps.

use std::sync::Arc;

use serde::Serialize;

use crate::clock::{Clock, Moment};
use crate::error::Error;
use crate::model::instance::Instance;
use crate::model::overriding::Override;
use crate::registration::event::RegistrationPhase;

/// What a dump and the guard's getters show.
#[derive(Clone, Debug)]
pub(crate) struct RegistrationStatus {
    pub(crate) wanted: Arc<Instance>,
    pub(crate) phase: RegistrationPhase,
    pub(crate) since: Moment,
    pub(crate) error: Option<Error>,
    /// What an operator says of the record, as the last renewal found it.
    pub(crate) overridden: Option<Override>,
}

/// A registration as a dump shows it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RegistrationDump {
    /// The instance as it is wanted at the server.
    pub instance: Arc<Instance>,
    /// Its phase.
    pub phase: RegistrationPhase,
    /// For how many seconds it has been in this phase.
    pub for_seconds: f64,
    /// Why it is not registered, if it is not.
    pub error: Option<String>,
    /// What an operator says of the record in place of its owner.
    pub overridden: Option<Override>,
}

impl RegistrationDump {
    pub(crate) fn new(status: &RegistrationStatus, clock: &dyn Clock) -> Self {
        Self {
            instance: Arc::clone(&status.wanted),
            phase: status.phase,
            for_seconds: clock.now().since(status.since).as_secs_f64(),
            error: status
                .error
                .as_ref()
                .map(|error| error.report().to_string()),
            overridden: status.overridden,
        }
    }
}
