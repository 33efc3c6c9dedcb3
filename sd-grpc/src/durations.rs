//! How long calls take: a histogram for each method, endpoint and status, of which there is a bounded number.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{Histogram, Label, histogram};
use sd_core::ServiceName;
use sd_core::sync::lock;
use tonic::Code;

use crate::instrument::CALL_DURATION;
use crate::labels::CallLabels;
use crate::status;

/// What OpenTelemetry calls all that have no name of their own.
const OTHER: &str = "_OTHER";

/// The histograms of one channel. Those of methods that were called before are found without a lock.
#[derive(Debug)]
pub(crate) struct CallDurations {
    most: usize,
    methods: ArcSwap<HashMap<Arc<str>, Arc<Method>>>,
    adding: Mutex<()>,
    others: Arc<Method>,
}

/// The histograms of one method, or of all that have no name of their own.
#[derive(Debug)]
pub(crate) struct Method {
    service: ServiceName,
    /// `None` where the label is left out.
    name: Option<Arc<str>>,
    endpoints: Arc<Endpoints>,
    anywhere: Statuses,
    /// Where endpoints are told apart.
    at: Mutex<HashMap<Arc<str>, Arc<Statuses>>>,
}

/// By status code.
type Statuses = [OnceLock<Histogram>; 17];

/// The addresses that have a value of their own.
#[derive(Debug)]
struct Endpoints {
    most: usize,
    known: Mutex<HashSet<Arc<str>>>,
    other: Arc<str>,
}

impl CallDurations {
    pub(crate) fn new(service: &ServiceName, labels: CallLabels) -> Self {
        let endpoints = Arc::new(Endpoints {
            most: labels.endpoints,
            known: Mutex::default(),
            other: OTHER.into(),
        });
        let name = (labels.methods > 0).then(|| OTHER.into());
        Self {
            most: labels.methods,
            methods: ArcSwap::default(),
            adding: Mutex::default(),
            others: Arc::new(Method::new(service.clone(), name, endpoints)),
        }
    }

    /// The histograms of the method with this path.
    pub(crate) fn method(&self, path: &str) -> Arc<Method> {
        let name = method_name(path);
        let methods = self.methods.load();
        if let Some(method) = methods.get(name) {
            return Arc::clone(method);
        }
        if methods.len() >= self.most {
            return Arc::clone(&self.others);
        }
        self.add(name)
    }

    fn add(&self, name: &str) -> Arc<Method> {
        let _adding = lock(&self.adding);
        let methods = self.methods.load();
        if let Some(method) = methods.get(name) {
            return Arc::clone(method);
        }
        if methods.len() >= self.most {
            return Arc::clone(&self.others);
        }
        let name: Arc<str> = name.into();
        let Method {
            service, endpoints, ..
        } = &*self.others;
        let method = Method::new(
            service.clone(),
            Some(Arc::clone(&name)),
            Arc::clone(endpoints),
        );
        let method = Arc::new(method);
        let mut more = HashMap::clone(&methods);
        more.insert(name, Arc::clone(&method));
        self.methods.store(Arc::new(more));
        method
    }
}

/// As OpenTelemetry writes it: `package.Service/Method`.
pub(crate) fn method_name(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

impl Method {
    fn new(service: ServiceName, name: Option<Arc<str>>, endpoints: Arc<Endpoints>) -> Self {
        Self {
            service,
            name,
            endpoints,
            anywhere: Statuses::default(),
            at: Mutex::default(),
        }
    }

    /// Whether a call with this path is one of it. Never of those that share a name.
    pub(crate) fn is_of(&self, path: &str) -> bool {
        self.name.as_deref() == Some(method_name(path))
    }

    /// Whether it matters where a call went.
    pub(crate) fn wants_endpoints(&self) -> bool {
        self.endpoints.most > 0
    }

    /// A call has ended. `endpoint` is where its last attempt went.
    pub(crate) fn record(&self, endpoint: Option<&Arc<str>>, code: Code, took: Duration) {
        let endpoint = endpoint.filter(|_| self.wants_endpoints());
        let Some(endpoint) = endpoint.map(|endpoint| self.endpoints.label(endpoint)) else {
            return self.record_among(&self.anywhere, None, code, took);
        };
        let statuses = Arc::clone(lock(&self.at).entry(Arc::clone(&endpoint)).or_default());
        self.record_among(&statuses, Some(&endpoint), code, took);
    }

    fn record_among(
        &self,
        statuses: &Statuses,
        endpoint: Option<&Arc<str>>,
        code: Code,
        took: Duration,
    ) {
        if let Some(histogram) = statuses.get(code as usize) {
            histogram
                .get_or_init(|| self.histogram(endpoint, code))
                .record(took.as_secs_f64());
        }
    }

    fn histogram(&self, endpoint: Option<&Arc<str>>, code: Code) -> Histogram {
        let status = status::code_name(code);
        let mut labels = vec![
            Label::from_static_parts("rpc.system.name", "grpc"),
            Label::new("server.address", self.service.as_str().to_owned()),
            Label::from_static_parts("rpc.response.status_code", status),
        ];
        if code != Code::Ok {
            labels.push(Label::from_static_parts("error.type", status));
        }
        let mut optional = |name, value: Option<&Arc<str>>| {
            labels.extend(value.map(|value| Label::new(name, Arc::clone(value))));
        };
        optional("rpc.method", self.name.as_ref());
        optional("endpoint", endpoint);
        histogram!(CALL_DURATION, labels)
    }
}

impl Endpoints {
    fn label(&self, address: &Arc<str>) -> Arc<str> {
        let mut known = lock(&self.known);
        if let Some(label) = known.get(address) {
            return Arc::clone(label);
        }
        if known.len() >= self.most {
            return Arc::clone(&self.other);
        }
        known.insert(Arc::clone(address));
        Arc::clone(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durations(labels: CallLabels) -> CallDurations {
        CallDurations::new(&ServiceName::new("greeter").unwrap(), labels)
    }

    fn name(method: &Method) -> Option<&str> {
        method.name.as_deref()
    }

    #[test]
    fn methods_beyond_the_bound_share_one_name() {
        let durations = durations(CallLabels::none().with_methods(2));
        for (path, expected) in [
            ("/a.A/One", "a.A/One"),
            ("/a.A/Two", "a.A/Two"),
            ("/a.A/Three", OTHER),
            ("/a.A/One", "a.A/One"),
        ] {
            assert_eq!(name(&durations.method(path)), Some(expected));
        }
        let again = durations.method("/a.A/One");
        assert!(Arc::ptr_eq(&again, &durations.method("/a.A/One")));
    }

    #[test]
    fn without_labels_there_is_one_method_without_a_name() {
        let durations = durations(CallLabels::none());
        let method = durations.method("/a.A/One");
        assert_eq!(name(&method), None);
        assert!(!method.wants_endpoints());
    }

    #[test]
    fn endpoints_beyond_the_bound_share_one_name_for_all_methods() {
        let durations = durations(CallLabels::default().with_endpoints(1));
        let method = durations.method("/a.A/One");
        let other = durations.method("/a.A/Two");
        let label = |method: &Method, address: &str| method.endpoints.label(&address.into());
        assert_eq!(&*label(&method, "10.0.0.1:1"), "10.0.0.1:1");
        assert_eq!(&*label(&other, "10.0.0.2:1"), OTHER);
        assert_eq!(&*label(&other, "10.0.0.1:1"), "10.0.0.1:1");
    }
}
