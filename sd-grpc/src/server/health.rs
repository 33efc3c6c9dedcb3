//! `grpc.health.v1` as its [protocol] has it: one answer for each name, and a watch of a name that is not known yet.
//!
//! [protocol]: https://github.com/grpc/grpc/blob/master/doc/health-checking.md

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_check_response::ServingStatus as OnTheWire;
use tonic_health::pb::health_server::Health as HealthService;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// What a server says about its health. Clones speak for the same server.
#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<watch::Sender<Statuses>>);

#[derive(Debug)]
struct Statuses {
    /// What was set for each name; it counts while the server is ready.
    of: BTreeMap<String, ServingStatus>,
    ready: bool,
    /// Never ready again.
    draining: bool,
    /// Watches end.
    ended: bool,
}

impl Statuses {
    fn get(&self, name: &str) -> Option<OnTheWire> {
        let set = *self.of.get(name)?;
        Some(if self.ready && !self.draining {
            set.into()
        } else {
            OnTheWire::NotServing
        })
    }
}

impl Health {
    /// Every one of `names` is serving while the server is ready.
    pub(crate) fn new(names: impl IntoIterator<Item = String>, ready: bool) -> Self {
        let serving = |name| (name, ServingStatus::Serving);
        Self(Arc::new(watch::Sender::new(Statuses {
            of: names.into_iter().map(serving).collect(),
            ready,
            draining: false,
            ended: false,
        })))
    }

    pub(crate) fn set(&self, name: String, status: ServingStatus) {
        self.0.send_modify(|statuses| {
            statuses.of.insert(name, status);
        });
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.0.send_modify(|statuses| statuses.ready = ready);
    }

    /// Nothing is serving from now on, whatever is set later.
    pub(crate) fn drain(&self) {
        self.0.send_modify(|statuses| statuses.draining = true);
    }

    /// Ends the watches, which would keep their connections from closing.
    pub(crate) fn end(&self) {
        self.0.send_modify(|statuses| {
            statuses.draining = true;
            statuses.ended = true;
        });
    }
}

fn response(status: OnTheWire) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status as i32,
    }
}

#[tonic::async_trait]
impl HealthService for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.0.borrow().get(&request.get_ref().service);
        let status = status.ok_or_else(|| Status::not_found("no such service here"))?;
        Ok(Response::new(response(status)))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = HealthWatcher {
            name: request.into_inner().service,
            statuses: self.0.subscribe(),
            told: None,
        };
        let told = stream::unfold(watcher, |mut watcher| async move {
            let status = watcher.next().await?;
            Some((Ok(response(status)), watcher))
        });
        Ok(Response::new(told.boxed()))
    }
}

/// Follows the status of one name.
struct HealthWatcher {
    name: String,
    statuses: watch::Receiver<Statuses>,
    told: Option<OnTheWire>,
}

impl HealthWatcher {
    /// The status once it is another than the one that was told last. `None` when the server has ended.
    async fn next(&mut self) -> Option<OnTheWire> {
        loop {
            let (status, ended) = {
                let statuses = self.statuses.borrow_and_update();
                let status = statuses.get(&self.name);
                (status.unwrap_or(OnTheWire::ServiceUnknown), statuses.ended)
            };
            if self.told.replace(status) != Some(status) {
                return Some(status);
            }
            if ended {
                return None;
            }
            self.statuses.changed().await.ok()?;
        }
    }
}
