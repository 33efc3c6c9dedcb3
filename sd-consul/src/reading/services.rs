//! Reading services from the servers: which there are, and the entries of one, with what their checks say.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use sd_core::{Error, ErrorKind, Result, ServiceName};

use crate::client::answer::{Answer, Meta};
use crate::client::blocking_queries::Waiter;
use crate::client::filter::quoted;
use crate::client::{Client, Request};
use crate::codec::{HealthEntry, check_service};
use crate::config::ConsulConfig;
use crate::config::consistency::Consistency;

/// The node of the agent that is asked.
const THIS_AGENT: &str = "_agent";

/// The entries of a service, well or not, with the position that they were read at.
#[derive(Debug)]
pub(crate) struct ReadEntries {
    pub(crate) entries: Vec<HealthEntry>,
    pub(crate) meta: Meta,
    /// How large the answer was.
    pub(crate) bytes: usize,
}

/// The names of all services, with the position that they were read at.
#[derive(Debug)]
pub(crate) struct ReadServices {
    pub(crate) services: Vec<ServiceName>,
    pub(crate) meta: Meta,
    /// How large the answer was.
    pub(crate) bytes: usize,
}

impl Client {
    /// The names of all services.
    pub(crate) async fn services(&self, op: &'static str) -> Result<ReadServices> {
        let answer = self.call(self.catalog(op)).await?;
        self.read_services(op, &answer)
    }

    /// Waits until the names of all services may have changed since `index`. Cancel-safe.
    pub(crate) async fn changed_services(
        &self,
        op: &'static str,
        waiter: &Waiter,
        index: u64,
    ) -> Result<ReadServices> {
        let request = self.catalog(op);
        let answer = self.wait(waiter, &request, index, Duration::MAX).await?;
        self.read_services(op, &answer.success(op)?)
    }

    fn catalog(&self, op: &'static str) -> Request<'_> {
        let request = self.remote(op, Method::GET, &["catalog", "services"]);
        self.as_fresh_as_wanted(request)
    }

    fn read_services(&self, op: &'static str, answer: &Answer) -> Result<ReadServices> {
        self.check_rights(op, answer)?;
        let tags: BTreeMap<String, Vec<String>> = answer.json(op)?;
        // Other programs' services may have names that would break a line.
        let names = tags
            .into_keys()
            .filter_map(|name| ServiceName::new(name).ok());
        Ok(ReadServices {
            services: names.collect(),
            meta: answer.meta,
            bytes: answer.len(),
        })
    }

    /// The entries of a service, as those who configured this client want to see them.
    pub(crate) async fn service_entries(
        &self,
        op: &'static str,
        service: &ServiceName,
    ) -> Result<ReadEntries> {
        let path = ["health", "service", service.as_str()];
        let answer = self.call(self.wanted(op, &path)).await?;
        self.read(op, &answer)
    }

    /// Waits until the entries of a service may have changed since `index`. Cancel-safe.
    pub(crate) async fn changed_service_entries(
        &self,
        op: &'static str,
        waiter: &Waiter,
        service: &ServiceName,
        index: u64,
    ) -> Result<ReadEntries> {
        let path = ["health", "service", service.as_str()];
        let request = self.wanted(op, &path);
        let answer = self.wait(waiter, &request, index, Duration::MAX).await?;
        self.read(op, &answer.success(op)?)
    }

    /// The entries with this id in the agent's own datacenter, at whatever node, and those of a service whose name differs only in
    /// case. `None` if we may not see them.
    pub(crate) async fn entries_with_id(
        &self,
        op: &'static str,
        service: &ServiceName,
        service_id: &str,
    ) -> Result<Option<ReadEntries>> {
        check_service(op, service)?;
        let path = ["health", "service", service.as_str()];
        let wanted = format!(
            "Service.ID == {} or Service.Service != {}",
            quoted(service_id),
            quoted(service.as_str())
        );
        let request = self.local(op, Method::GET, &path).with("filter", wanted);
        let answer = self.call(request).await?;
        match self.read(op, &answer) {
            Err(error) if error.kind() == ErrorKind::Denied => Ok(None),
            read => read.map(Some),
        }
    }

    fn wanted<'a>(&'a self, op: &'static str, path: &'a [&'a str]) -> Request<'a> {
        let config = self.config();
        let mut request = self.as_fresh_as_wanted(self.remote(op, Method::GET, path));
        if let Some(filter) = filter(config) {
            request = request.with("filter", filter);
        }
        match (&config.near, config.consistency) {
            (Some(near), _) => request.with("near", near),
            (None, Consistency::Default) => request,
            // An agent that streams changes to itself heeds none of the others, nor tells how old its answers are. It has no stream
            // that is sorted, and so asks the servers.
            (None, _) => request.with("near", THIS_AGENT),
        }
    }

    fn as_fresh_as_wanted<'a>(&self, request: Request<'a>) -> Request<'a> {
        match self.config().consistency {
            Consistency::Default => request,
            Consistency::Stale => request.with("stale", ""),
            Consistency::Consistent => request.with("consistent", ""),
            Consistency::Cached => request.with("cached", ""),
        }
    }

    fn read(&self, op: &'static str, answer: &Answer) -> Result<ReadEntries> {
        self.check_rights(op, answer)?;
        let entries: Option<Vec<HealthEntry>> = answer.json(op)?;
        Ok(ReadEntries {
            entries: entries.unwrap_or_default(),
            meta: answer.meta,
            bytes: answer.len(),
        })
    }

    /// A list that lacks what we may not read says nothing of what there is.
    fn check_rights(&self, op: &'static str, answer: &Answer) -> Result<()> {
        if !answer.hides(self.has_token()) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Denied, op).because(if self.has_token() {
            "Consul hid entries: the token needs service:read for the service and node:read for its nodes"
        } else {
            "Consul answered with an empty list, perhaps because it denies everything to clients without a token: set one"
        }))
    }
}

/// What all wanted entries satisfy.
fn filter(config: &ConsulConfig) -> Option<String> {
    let given = config.filter.iter().map(|filter| format!("({filter})"));
    let tags = config.tag.iter();
    let tags = tags.map(|tag| format!("{} in Service.Tags", quoted(tag)));
    let all: Vec<String> = given.chain(tags).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_and_tags_hold_together() {
        let config = ConsulConfig::default();
        assert_eq!(filter(&config), None);
        let tagged = config.clone().with_tag(r"a\").with_tag(r#"b"\"#);
        assert_eq!(
            filter(&tagged).unwrap(),
            r#""a\\" in Service.Tags and `b"\` in Service.Tags"#
        );
        let both = config.with_filter("A == 1 or B == 2").with_tag("a");
        assert_eq!(
            filter(&both).unwrap(),
            r#"(A == 1 or B == 2) and "a" in Service.Tags"#
        );
    }
}
