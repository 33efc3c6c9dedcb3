//! Where the agent as a whole stands, for all of its parts.

use std::sync::Arc;

use tokio::sync::watch;

/// Where the agent stands. It goes from `Starting` to `Running` or `Degraded`, back and forth between these two, and ends in `Stopping`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lifecycle {
    /// What was kept on disk is being registered, and nothing is served yet but this.
    #[default]
    Starting,
    /// All is well.
    Running,
    /// The agent serves, and something that it needs does not work, such as its registry.
    Degraded(Arc<[String]>),
    /// It is asked to end: streams end now, then what is registered is withdrawn or left.
    Stopping,
}

impl Lifecycle {
    /// The state's name in lower case, as in `lifecycle_state` of a stream's events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded(_) => "degraded",
            Self::Stopping => "stopping",
        }
    }

    /// Why it is `Degraded`; nothing in other states.
    pub fn reasons(&self) -> &[String] {
        match self {
            Self::Degraded(reasons) => reasons,
            _ => &[],
        }
    }

    /// Whether the agent does what it is for: it is `Running`.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// Whether the agent ends.
    pub fn is_stopping(&self) -> bool {
        matches!(self, Self::Stopping)
    }

    /// Returns once the agent stops, or its owner is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stopping(lifecycle: &mut watch::Receiver<Self>) {
        // An error says that the sender is gone: the agent has ended.
        let _ = lifecycle.wait_for(Self::is_stopping).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopping_is_told_also_by_an_owner_that_is_gone() {
        let (sender, mut receiver) = watch::channel(Lifecycle::default());
        let mut other = receiver.clone();
        let task = tokio::spawn(async move { Lifecycle::stopping(&mut receiver).await });
        sender.send_replace(Lifecycle::Degraded(Arc::from(["no registry".to_owned()])));
        tokio::task::yield_now().await;
        assert!(!task.is_finished(), "a degraded agent does not stop");
        sender.send_replace(Lifecycle::Stopping);
        task.await.unwrap();
        drop(sender);
        other.mark_unchanged();
        Lifecycle::stopping(&mut other).await;
    }
}
