//! Reading services from the servers: which there are, and the entries of one, with what their checks say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use sd_core::{Error, ErrorKind, Result, ServiceName};
use serde::de::IgnoredAny;
use tokio::sync::Semaphore;

use crate::client::answer::{Answer, Meta};
use crate::client::blocking_queries::Waiter;
use crate::client::filter::quoted;
use crate::client::{Client, Request};
use crate::codec::{HealthEntry, check_path, check_service};
use crate::config::ConsulConfig;
use crate::config::consistency::Consistency;
use crate::health_check::Check;

/// The node of the agent that is asked.
const THIS_AGENT: &str = "_agent";

/// The entries of a service, well or not, as they were answered. They are large, and often not needed.
#[derive(Debug)]
pub(crate) struct AnsweredEntries {
    answer: Answer,
    op: &'static str,
    decoding: Arc<Semaphore>,
}

impl AnsweredEntries {
    /// The position that they were read at.
    pub(crate) fn meta(&self) -> Meta {
        self.answer.meta
    }

    /// How large the answer is.
    pub(crate) fn bytes(&self) -> usize {
        self.answer.len()
    }

    /// Adds each entry to `whole`, and makes of it what is wanted, off the runtime if that takes a while.
    ///
    /// # Errors
    /// `InvalidData` if they cannot be read.
    pub(crate) async fn fold<W: Send + 'static, T: Send + 'static>(
        self,
        mut whole: W,
        add: impl Fn(&mut W, HealthEntry) + Send + 'static,
        finish: impl FnOnce(W) -> T + Send + 'static,
    ) -> Result<T> {
        let op = self.op;
        let decode = move |answer: Answer| {
            answer.each(op, |entry| add(&mut whole, entry))?;
            drop(answer);
            Ok(finish(whole))
        };
        self.answer.decode(op, &self.decoding, decode).await
    }

    /// All of them.
    ///
    /// # Errors
    /// `InvalidData` if they cannot be read.
    pub(crate) async fn all(self) -> Result<Vec<HealthEntry>> {
        self.fold(Vec::new(), Vec::push, |all| all).await
    }
}

/// The names of all services, with the position that they were read at.
#[derive(Debug)]
pub(crate) struct ReadServices {
    pub(crate) services: Vec<ServiceName>,
    /// How many have names that none of ours can have.
    pub(crate) unlisted: usize,
    pub(crate) meta: Meta,
    /// How large the answer was.
    pub(crate) bytes: usize,
}

impl Client {
    /// The names of all services.
    pub(crate) async fn services(&self, op: &'static str) -> Result<ReadServices> {
        let answer = self.call(self.catalog(op)).await?;
        self.read_services(op, answer).await
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
        self.read_services(op, answer.success(op)?).await
    }

    fn catalog(&self, op: &'static str) -> Request<'_> {
        let request = self.remote(op, Method::GET, &["catalog", "services"]);
        self.as_fresh_as_wanted(request)
    }

    async fn read_services(&self, op: &'static str, answer: Answer) -> Result<ReadServices> {
        self.check_rights(op, &answer)?;
        let decode = move |answer: Answer| {
            #[expect(
                clippy::zero_sized_map_values,
                reason = "JSON has a map, of which the tags tell nothing here"
            )]
            let all: BTreeMap<String, IgnoredAny> = answer.json(op)?;
            let count = all.len();
            // Other programs' services may have names that would break a line.
            let names = all
                .into_keys()
                .filter_map(|name| ServiceName::new(name).ok());
            let services: Vec<_> = names.collect();
            Ok(ReadServices {
                unlisted: count - services.len(),
                services,
                meta: answer.meta,
                bytes: answer.len(),
            })
        };
        answer.decode(op, &self.decoding, decode).await
    }

    /// The entries of a service, as those who configured this client want to see them, and by default as they are now: a server that was
    /// started again goes through its history, and answers with what was there once until it has confirmed that it leads.
    pub(crate) async fn service_entries(
        &self,
        op: &'static str,
        service: &ServiceName,
    ) -> Result<AnsweredEntries> {
        check_path(op, service)?;
        let path = ["health", "service", service.as_str()];
        let mut request = self.wanted(op, &path);
        if self.config().consistency == Consistency::Default {
            request = request.with("consistent", "");
        }
        let answer = self.call(request).await?;
        self.answered(op, answer)
    }

    /// Waits until the entries of a service may have changed since `index`. Cancel-safe.
    pub(crate) async fn changed_service_entries(
        &self,
        op: &'static str,
        waiter: &Waiter,
        service: &ServiceName,
        index: u64,
    ) -> Result<AnsweredEntries> {
        let path = ["health", "service", service.as_str()];
        let request = self.wanted(op, &path);
        let answer = self.wait(waiter, &request, index, Duration::MAX).await?;
        self.answered(op, answer.success(op)?)
    }

    /// The entries with this id in the agent's own datacenter, at whatever node, and those of a service whose name differs only in
    /// case. `None` if we may not see them.
    pub(crate) async fn entries_with_id(
        &self,
        op: &'static str,
        service: &ServiceName,
        service_id: &str,
    ) -> Result<Option<Vec<HealthEntry>>> {
        let wanted = format!(
            "Service.ID == {} or Service.Service != {}",
            quoted(service_id),
            quoted(service.as_str())
        );
        self.entries_that(op, service, wanted).await
    }

    /// The entries of a service in the agent's own datacenter that are at this address. `None` if we may not see them.
    pub(crate) async fn entries_at(
        &self,
        op: &'static str,
        service: &ServiceName,
        host: &str,
        port: u16,
    ) -> Result<Option<Vec<HealthEntry>>> {
        let wanted = format!(
            "Service.Address == {} and Service.Port == {port}",
            quoted(host)
        );
        self.entries_that(op, service, wanted).await
    }

    async fn entries_that(
        &self,
        op: &'static str,
        service: &ServiceName,
        filter: String,
    ) -> Result<Option<Vec<HealthEntry>>> {
        check_service(op, service)?;
        let path = ["health", "service", service.as_str()];
        let request = self.local(op, Method::GET, &path).with("filter", filter);
        let answer = self.call(request).await?;
        match self.answered(op, answer) {
            Err(error) if error.kind() == ErrorKind::Denied => Ok(None),
            read => read?.all().await.map(Some),
        }
    }

    /// Whether the catalog lists this check of a service at a node of the agent's own datacenter. Also true if we may not see it. It costs
    /// the servers a look through the checks of that one node.
    pub(crate) async fn lists_check(
        &self,
        op: &'static str,
        node: &str,
        check_id: &str,
    ) -> Result<bool> {
        let path = ["health", "node", node];
        let filter = format!("CheckID == {}", quoted(check_id));
        let request = self.local(op, Method::GET, &path).with("filter", filter);
        let answer = self.call(request).await?;
        let found: Option<Vec<Check>> = answer.json(op)?;
        Ok(found.is_some_and(|found| !found.is_empty()) || answer.hides(self.has_token()))
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

    fn answered(&self, op: &'static str, answer: Answer) -> Result<AnsweredEntries> {
        self.check_rights(op, &answer)?;
        Ok(AnsweredEntries {
            answer,
            op,
            decoding: Arc::clone(&self.decoding),
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
