//! What a site's processes have told so far: all lines, and where things stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::sync::lock;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::history::{At, Election, Event, Line};

/// Lines that may wait to be read; a process that tells more waits itself.
const LINES_QUEUED: usize = 4_096;
/// A belief counts as going on if it was told this recently: it is told every 100 ms.
const RECENTLY: Duration = Duration::from_millis(300);

/// In lines about the run itself.
pub(crate) const RUN: &str = "run";

/// Collects lines. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Chronicle {
    lines: Arc<Mutex<Vec<Line>>>,
    sender: mpsc::Sender<Line>,
    scene: watch::Receiver<Scene>,
}

/// Where things stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    leaders: BTreeMap<Election, Believer>,
    /// What each observer was told last.
    observed: BTreeMap<(String, Election), Option<u64>>,
    pub(crate) idle: BTreeSet<String>,
    /// The instance that each process has registered.
    pub(crate) registered: BTreeMap<String, String>,
}

/// Who believed last that it leads.
#[derive(Clone, Debug)]
struct Believer {
    node: String,
    until: At,
}

impl Scene {
    /// The node that leads now, by its own account.
    pub(crate) fn leader(&self, election: Election) -> Option<&str> {
        let believer = self.leaders.get(&election)?;
        let is_recent = At::now().since(believer.until) <= RECENTLY;
        is_recent.then_some(believer.node.as_str())
    }

    /// Whether a candidate has believed that it leads after `since`.
    pub(crate) fn is_led_since(&self, election: Election, since: At) -> bool {
        let believer = self.leaders.get(&election);
        believer.is_some_and(|believer| believer.until > since)
    }

    /// Whether all observers of the election agree on this leader, and there are some.
    pub(crate) fn is_observed(&self, election: Election, token: Option<u64>) -> bool {
        let mut observers = self
            .observed
            .iter()
            .filter(|((_, of), _)| *of == election)
            .peekable();
        observers.peek().is_some() && observers.all(|(_, seen)| *seen == token)
    }

    fn note(&mut self, line: &Line) {
        match &line.event {
            Event::Believed {
                election, until, ..
            } => {
                let (node, until) = (line.node.clone(), *until);
                let known = self.leaders.get(election);
                if known.is_none_or(|known| known.until < until) {
                    self.leaders.insert(*election, Believer { node, until });
                }
            }
            Event::Observed { election, token } => {
                self.observed.insert((line.node.clone(), *election), *token);
            }
            Event::Idle => {
                self.idle.insert(line.node.clone());
            }
            Event::Registered { id } => {
                self.registered.insert(line.node.clone(), id.clone());
            }
            _ => {}
        }
    }
}

impl Chronicle {
    /// Collects from now on, in a task that ends with the last clone.
    pub(crate) fn begin() -> Self {
        let (sender, mut told) = mpsc::channel::<Line>(LINES_QUEUED);
        let (scene, seen) = watch::channel(Scene::default());
        let lines = Arc::<Mutex<Vec<Line>>>::default();
        let kept = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Some(line) = told.recv().await {
                scene.send_modify(|scene| scene.note(&line));
                lock(&kept).push(line);
            }
        });
        Self {
            lines,
            sender,
            scene: seen,
        }
    }

    /// Where processes send what they tell.
    pub(crate) fn sender(&self) -> mpsc::Sender<Line> {
        self.sender.clone()
    }

    /// Notes what was done to `node` from outside.
    pub(crate) fn tell(&self, node: &str, event: Event) {
        let line = Line {
            at: At::now(),
            node: node.to_owned(),
            event,
        };
        lock(&self.lines).push(line);
    }

    pub(crate) fn extend(&self, lines: Vec<Line>) {
        lock(&self.lines).extend(lines);
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        lock(&self.lines).clone()
    }

    pub(crate) fn scene(&self) -> Scene {
        self.scene.borrow().clone()
    }

    /// Waits until things stand like this, at most for `limit`. False if they do not.
    pub(crate) async fn wait_until(
        &self,
        limit: Duration,
        is_so: impl FnMut(&Scene) -> bool,
    ) -> bool {
        let mut scene = self.scene.clone();
        matches!(timeout(limit, scene.wait_for(is_so)).await, Ok(Ok(_)))
    }
}
