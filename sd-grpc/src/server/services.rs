//! What one port of a server serves, and how.

use std::convert::Infallible;
use std::fmt;

use http::Request;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::layer::util::Identity;
use tower_service::Service;

/// How many calls of one connection may be cancelled before the server has begun them, by default: 16 384.
///
/// h2 closes the connection beyond that, with every call on it. Its own default is 20, against clients that only begin and cancel
/// calls ([CVE-2023-44487]); a client whose calls pass their deadlines while the server is busy does the same.
///
/// [CVE-2023-44487]: https://nvd.nist.gov/vuln/detail/CVE-2023-44487
pub const DEFAULT_MAX_PENDING_RESETS: usize = 16_384;

/// What one port serves: gRPC services and, beside them, `grpc.health.v1`; and the transport and the layers below.
///
/// A health service among them takes the place of the server's own. It then has to tell by itself that the server drains.
pub struct Services<L = Identity> {
    pub(crate) transport: tonic::transport::Server<L>,
    pub(crate) routes: Routes,
    /// Of the gRPC services, for health.
    pub(crate) names: Vec<&'static str>,
    pub(crate) max_pending_resets: usize,
}

impl Services {
    /// Nothing but health, until services are added.
    pub fn new() -> Self {
        Self::from(Routes::default())
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}

/// Serves routes that exist already, for example of HTTP requests beside gRPC. Health does not know the names of the services in them:
/// [`RunningServer::set_health`](crate::RunningServer::set_health) tells it. A fallback of the routes' own is not asked any more.
impl From<Routes> for Services {
    fn from(routes: Routes) -> Self {
        Self {
            transport: tonic::transport::Server::builder(),
            routes,
            names: Vec::new(),
            max_pending_resets: DEFAULT_MAX_PENDING_RESETS,
        }
    }
}

impl<L> Services<L> {
    /// Adds a gRPC service. Health answers for its name, which is the one in the `.proto` file with its package.
    ///
    /// # Panics
    /// If there is a service of that name already.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes = self.routes.add_service(service);
        self.names.push(S::NAME);
        self
    }

    /// Sets tonic's own settings: TLS, windows, limits, keep-alive, and tower layers, which also see calls of the health service. Its
    /// TCP settings, and its limit of pending resets, are not used.
    #[must_use]
    pub fn transport<M>(self, transport: tonic::transport::Server<M>) -> Services<M> {
        Services {
            transport,
            routes: self.routes,
            names: self.names,
            max_pending_resets: self.max_pending_resets,
        }
    }

    /// Sets how many calls of one connection may be cancelled before the server has begun them. Default
    /// [`DEFAULT_MAX_PENDING_RESETS`].
    #[must_use]
    pub fn max_pending_resets(mut self, max: usize) -> Self {
        self.max_pending_resets = max;
        self
    }
}

impl<L> fmt::Debug for Services<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}
