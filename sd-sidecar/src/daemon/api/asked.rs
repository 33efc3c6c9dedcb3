//! What a request says beside its body.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};
use futures_util::future::join_all;
use http::StatusCode;
use http::request::Parts;
use sd_core::ServiceName;

use super::failure::Failure;
use super::plain_words::in_plain_words;
use crate::daemon::registrations::{Caller, Entry, Refused, Registrations, Selector};
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

/// What is asked of registrations that are there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Drain(Duration),
    SetReady(bool),
    Deregister,
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

    /// Does `act` to what is meant, for `by` or as an administrator.
    pub(super) async fn act(
        &self,
        by: Caller,
        registrations: &Registrations,
        which: Selector,
        act: Act,
    ) -> Result<Vec<Entry>, Refused> {
        let each = self.on_behalf(by.clone(), registrations, which);
        let are_several = each.len() > 1;
        // At the same time: each may wait for the registry.
        let acting = each.into_iter().map(async |(owner, which)| match act {
            Act::Drain(grace) if owner == by => registrations.drain(&owner, &which, grace).await,
            // No replay ends it.
            Act::Drain(grace) => registrations.drain_for(&owner, &which, grace).await,
            Act::SetReady(ready) => registrations.set_ready(&owner, &which, ready).await,
            Act::Deregister => registrations.deregister(&owner, &which).await,
        });
        let mut done = Vec::new();
        for of_one in join_all(acting).await {
            match of_one {
                // It has gone meanwhile.
                Err(Refused::NotFound(_)) if are_several => {}
                of_one => done.extend(of_one?),
            }
        }
        Ok(done)
    }

    /// For whom `by` acts, and on what: an administrator for the owners of what is meant, such as one whose token is no longer valid.
    fn on_behalf(
        &self,
        by: Caller,
        registrations: &Registrations,
        which: Selector,
    ) -> Vec<(Caller, Selector)> {
        if !self.is_admin() {
            return vec![(by, which)];
        }
        let meant = registrations.selected(&which);
        let Some(first) = meant.first() else {
            return vec![(by, which)];
        };
        if meant.iter().all(|entry| entry.owner == first.owner) {
            return vec![(first.owner.clone(), which)];
        }
        let each = meant.into_iter().map(|entry| {
            let one = Selector::Record {
                service: entry.record.service.to_string(),
                id: entry.record.id.to_string(),
            };
            (entry.owner, one)
        });
        each.collect()
    }

    /// Whether `by` sees all of an entry: its owner does, and an administrator.
    pub(super) fn see(&self, by: &Caller, entry: &Entry) -> bool {
        entry.owner == *by || self.is_admin()
    }

    fn is_admin(&self) -> bool {
        self.0.as_ref().is_some_and(Permission::is_admin)
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
        let text = rejection.body_text();
        let text = text.strip_prefix("Invalid URL: ").unwrap_or(&text);
        Self::bad_request(format_args!("path: {text}"))
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let (_, why) = text.split_once(": ").unwrap_or(("", &text));
        Self::bad_request(format_args!("query: {}", in_plain_words(why)))
    }
}

/// A service's name in a path.
pub(super) fn service_name(name: &str) -> Result<ServiceName, Failure> {
    ServiceName::new(name).map_err(|error| Failure::of_registry(&error))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use sd_core::memory::Memory;
    use serde_json::json;

    use super::*;
    use crate::daemon::security::Peer;

    #[tokio::test]
    async fn an_administrator_acts_for_each_owner_of_what_is_there() {
        let registrations = Registrations::new(Memory::new().connect());
        let declare = async |owner: &str, id: &str| {
            let declaration = json!({"service": "greeter", "id": id, "address": "10.0.0.7:80"});
            let declaration = serde_json::from_value(declaration).unwrap();
            let owner = Caller(owner.into());
            registrations.register(&owner, declaration).await.unwrap();
            owner
        };
        let record = |id: &str| Selector::Record {
            service: "greeter".to_owned(),
            id: id.to_owned(),
        };
        let port = || Selector::Port {
            service: "greeter".to_owned(),
            port: 80,
        };
        let old = declare("old", "a-1").await;
        registrations
            .deregister(&old, &record("a-1"))
            .await
            .unwrap();
        // As root on a Unix socket.
        let root = Permission::of(Peer::User(0), &HeaderMap::new(), None, 0).unwrap();
        let by = root.caller().clone();
        let admin = May(Some(root));
        let act = |which| admin.on_behalf(by.clone(), &registrations, which);
        // That of the one that is gone.
        assert_eq!(act(port()), [(old, port())]);
        let one = declare("one", "b-1").await;
        assert_eq!(act(port()), [(one.clone(), port())]);
        let other = declare("other", "c-1").await;
        let mut each = act(port());
        each.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(each, [(one, record("b-1")), (other.clone(), record("c-1"))]);
        assert_eq!(
            May(None).on_behalf(other.clone(), &registrations, port()),
            [(other, port())]
        );
        assert_eq!(act(record("d-1")), [(by.clone(), record("d-1"))]);
    }
}
