//! What a request says beside its body.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};
use http::StatusCode;
use http::request::Parts;
use sd_core::ServiceName;

use super::failure::Failure;
use crate::daemon::registrations::{Caller, Registrations, Selector};
use crate::daemon::security::Permission;

/// Who asks, as what serves the API has found out.
#[derive(Clone, Debug)]
pub(super) struct By(pub(super) Caller);

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let caller = parts.extensions.get::<Caller>().cloned();
        // Everything would belong to one caller if this were let pass.
        let unknown = || {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Failure::new(status, "internal", "the agent does not know who asks")
        };
        caller.map(Self).ok_or_else(unknown)
    }
}

/// What the one who asks may do, as what serves the API has found out. Everything of their own, where that did not look.
#[derive(Clone, Debug)]
pub(super) struct May(Option<Permission>);

impl May {
    /// Refuses a service that the caller may not register.
    pub(super) fn register(&self, service: &ServiceName) -> Result<(), Failure> {
        match &self.0 {
            Some(permission) if !permission.may_register(service) => {
                let caller = &permission.caller().0;
                let text = format!(
                    "{caller} may not register {service}: see services in the file of tokens"
                );
                Err(Failure::new(StatusCode::FORBIDDEN, "right_missing", text))
            }
            _ => Ok(()),
        }
    }

    /// For whom `by` acts: an administrator for the owner of what is meant, such as one whose token is no longer valid.
    pub(super) fn act(
        &self,
        by: Caller,
        registrations: &Registrations,
        which: &Selector,
    ) -> Caller {
        if !self.0.as_ref().is_some_and(Permission::is_admin) {
            return by;
        }
        let owned = registrations
            .entries()
            .into_iter()
            .find(|entry| which.selects(entry));
        owned.map_or(by, |entry| entry.owner)
    }
}

impl<S: Sync> FromRequestParts<S> for May {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Permission>().cloned()))
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

/// A service's name in a path.
pub(super) fn service_name(name: &str) -> Result<ServiceName, Failure> {
    ServiceName::new(name).map_err(|error| Failure::of_registry(&error))
}
