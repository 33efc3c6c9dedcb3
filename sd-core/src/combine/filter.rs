//! The matching instances of a source.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::instance::Instance;
use crate::model::name::{InstanceId, ServiceName};
use crate::model::newest_run::without_older_runs;
use crate::model::snapshot::Snapshot;
use crate::port::instancer::{Feed, Instancer, ServiceList, ServicesWatcher, Watcher};

/// A source that shows only those instances of another source that match all rules. Without rules it shows all.
///
/// [`services`](Instancer::services) names all services of the source, even those without a matching instance.
#[derive(Clone, Debug)]
pub struct Filter {
    source: Arc<dyn Instancer>,
    rules: Vec<Rule>,
}

#[derive(Clone)]
enum Rule {
    Version(String),
    Zone(String),
    Tag(String),
    Metadata { key: String, value: String },
    Matching(Predicate),
}

type Predicate = Arc<dyn Fn(&Instance) -> bool + Send + Sync>;

impl Filter {
    /// All instances of `source`.
    pub fn new(source: Arc<dyn Instancer>) -> Self {
        Self {
            source,
            rules: Vec::new(),
        }
    }

    /// Keeps only instances that run this version.
    #[must_use]
    pub fn version(self, version: impl Into<String>) -> Self {
        self.rule(Rule::Version(version.into()))
    }

    /// Keeps only instances in this zone.
    #[must_use]
    pub fn zone(self, zone: impl Into<String>) -> Self {
        self.rule(Rule::Zone(zone.into()))
    }

    /// Keeps only instances with this tag.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.rule(Rule::Tag(tag.into()))
    }

    /// Keeps only instances whose metadata have this value under this key.
    #[must_use]
    pub fn metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.rule(Rule::Metadata {
            key: key.into(),
            value: value.into(),
        })
    }

    /// Keeps only instances for which `predicate` holds. It is asked once for each instance in each set from the source, so it
    /// should depend on the instance alone.
    #[must_use]
    pub fn matching(self, predicate: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.rule(Rule::Matching(Arc::new(predicate)))
    }

    fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }
}

impl Rule {
    fn holds(&self, instance: &Instance) -> bool {
        match self {
            Self::Version(version) => instance.version() == Some(version),
            Self::Zone(zone) => instance.zone() == Some(zone),
            Self::Tag(tag) => instance.tags().contains(tag),
            Self::Metadata { key, value } => instance.metadata().get(key) == Some(value),
            Self::Matching(predicate) => predicate(instance),
        }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "version={version}"),
            Self::Zone(zone) => write!(f, "zone={zone}"),
            Self::Tag(tag) => write!(f, "tag={tag}"),
            Self::Metadata { key, value } => write!(f, "{key}={value}"),
            Self::Matching(_) => f.write_str("predicate"),
        }
    }
}

/// The matching part of `set`. A run that matches does not count if a newer one at its address does not match.
fn select(rules: &[Rule], set: Snapshot) -> Snapshot {
    let set = without_older_runs(set);
    let fitting: Vec<_> = set
        .instances()
        .iter()
        .filter(|instance| rules.iter().all(|rule| rule.holds(instance)))
        .cloned()
        .collect();
    if fitting.len() == set.len() {
        return set;
    }
    let held = set.held().to_vec();
    let set = set.with_instances(fitting);
    let held = held
        .into_iter()
        .filter(|id| set.get(id).is_some())
        .collect();
    set.with_held(held)
}

#[async_trait]
impl Instancer for Filter {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.source.services().await
    }

    async fn list_services(&self) -> Result<ServiceList> {
        self.source.list_services().await
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        self.source.watch_services().await
    }

    fn tells_withdrawals(&self) -> bool {
        self.source.tells_withdrawals()
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        Ok(select(&self.rules, self.source.list(service).await?))
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        // The source cannot resume after `known`, which lacks the instances that did not match.
        let source = self.source.watch(service, None).await?;
        Ok(Box::new(FilterWatcher {
            source,
            rules: self.rules.clone(),
            last: known.cloned(),
        }))
    }
}

#[derive(Debug)]
struct FilterWatcher {
    source: Box<dyn Watcher>,
    rules: Vec<Rule>,
    /// The last set that the reader has.
    last: Option<Snapshot>,
}

impl FilterWatcher {
    /// An instance that is still listed but no longer matches did not vanish. It is named as withdrawn, so that it is not held.
    fn take(&mut self, listed: &Snapshot) -> Snapshot {
        let mut withdrawn = listed.withdrawn().to_vec();
        let set = select(&self.rules, listed.clone());
        if let Some(last) = &self.last {
            let no_longer_fits =
                |id: &&InstanceId| set.get(id).is_none() && listed.get(id).is_some();
            let ids = last.instances().iter().map(|instance| instance.id());
            withdrawn.extend(ids.filter(no_longer_fits).cloned());
        }
        let set = set.with_withdrawn(withdrawn);
        self.last = Some(set.clone());
        set
    }
}

#[async_trait]
impl Watcher for FilterWatcher {
    async fn next(&mut self) -> Result<Feed> {
        Ok(match self.source.next().await? {
            Feed::Set(set) => Feed::Set(self.take(&set)),
            Feed::Partial { set, error } => Feed::Partial {
                set: self.take(&set),
                error,
            },
            told @ (Feed::Alive { .. } | Feed::Degraded(_)) => told,
        })
    }

    fn silence_limit(&self) -> Duration {
        self.source.silence_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::combine::Static;
    use crate::{Discovery, InstanceId};

    fn instance(id: &str) -> Instance {
        Instance::new("s", "h:1")
            .unwrap()
            .with_id(InstanceId::new(id).unwrap())
            .with_incarnation(crate::Incarnation::from_u64(1))
    }

    fn ids(set: &Snapshot) -> Vec<&str> {
        set.instances().iter().map(|i| i.id().as_str()).collect()
    }

    async fn fitting(build: impl FnOnce(Filter) -> Filter) -> Vec<String> {
        let source = Static::new([
            instance("a").with_zone("x").with_version("1"),
            instance("b").with_zone("x").with_tag("blue"),
            instance("c").with_zone("y").with_metadata("k", "v"),
        ]);
        let filter = build(Filter::new(Arc::new(source.unwrap())));
        let set = filter.list(&ServiceName::new("s").unwrap()).await.unwrap();
        ids(&set).into_iter().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn every_rule_selects_and_all_rules_must_hold() {
        assert_eq!(fitting(|filter| filter).await, ["a", "b", "c"]);
        assert_eq!(fitting(|filter| filter.zone("x")).await, ["a", "b"]);
        assert_eq!(fitting(|filter| filter.version("1")).await, ["a"]);
        assert_eq!(fitting(|filter| filter.tag("blue")).await, ["b"]);
        assert_eq!(fitting(|filter| filter.metadata("k", "v")).await, ["c"]);
        assert_eq!(fitting(|filter| filter.metadata("k", "w")).await, [""; 0]);
        assert_eq!(
            fitting(|filter| filter.matching(|i| i.id().as_str() > "a")).await,
            ["b", "c"]
        );
        assert_eq!(fitting(|filter| filter.zone("x").tag("blue")).await, ["b"]);
        assert_eq!(
            fitting(|filter| filter.zone("y").tag("blue")).await,
            [""; 0]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn instances_that_no_longer_fit_leave_at_once_however_many_they_are() {
        let all = ["a", "b", "c", "d"];
        let source = Static::new(all.map(|id| instance(id).with_tag("blue"))).unwrap();
        let source = Arc::new(source);
        let instancer: Arc<Static> = Arc::clone(&source);
        let blue = Arc::new(Filter::new(instancer).tag("blue"));
        let mut blue = blue.subscribe(&ServiceName::new("s").unwrap()).unwrap();
        assert_eq!(ids(blue.changed().await.unwrap().snapshot()), all);
        source
            .set(all.map(|id| instance(id).with_tag("green")))
            .unwrap();
        let state = blue.changed().await.unwrap();
        assert!(state.snapshot().is_empty() && state.snapshot().held().is_empty());
    }
}
