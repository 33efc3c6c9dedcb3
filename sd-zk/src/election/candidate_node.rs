//! A candidate's node at the server: whether it is there, and what is before it.

use std::sync::Arc;

use sd_backend::Place;
use sd_core::{Error, ErrorKind, FencingToken, Result};
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::session::Session;
use crate::election::candidate_sessions::CandidateSession;
use crate::election::keys::{self, Ahead, ElectionKeys};

/// A node that was created in a session of ours. No other one ever has its path: its name holds a random number.
#[derive(Debug)]
pub(crate) struct CandidateNode {
    pub(crate) session: Arc<CandidateSession>,
    pub(crate) acls: zk::Acls<'static>,
    pub(crate) keys: ElectionKeys,
    /// Its name among those of the other candidates.
    pub(crate) node: String,
    pub(crate) path: String,
    /// The change that created it.
    pub(crate) created: i64,
    pub(crate) token_domain: Arc<str>,
}

impl CandidateNode {
    pub(crate) fn session(&self) -> &Session {
        &self.session.session
    }

    /// The token of the term, if there will be one: who joins later is created by a later change, and leads later.
    pub(crate) fn token(&self) -> FencingToken {
        token(&self.token_domain, self.created)
    }

    /// Reads which nodes are before it. What comes later stands behind it, so that a read that is late tells nothing wrong.
    pub(crate) async fn look(&self, op: &'static str) -> Result<Place<Ahead>> {
        let listed = async {
            let client = self.session().client(op).await?;
            let candidates = client.list_children(self.keys.candidates());
            self.session().answer(op, candidates).await
        };
        match self.unless_lost(listed.await).await? {
            Ok(Ok(nodes)) => Ok(match self.keys.place(&nodes, &self.node) {
                keys::Place::First => Place::First,
                keys::Place::Behind(ahead) => Place::Behind(ahead),
                keys::Place::Missing => Place::Gone(self.deleted(op)),
            }),
            Ok(Err(zk::Error::NoNode)) => Ok(Place::Gone(self.deleted(op))),
            Ok(Err(error)) => Err(translate(op, error)),
            Err(lost) => Ok(Place::Gone(lost)),
        }
    }

    /// Proves through a quorum that it is there: `Some` says why it is not.
    pub(crate) async fn check(&self, op: &'static str) -> Result<Option<Error>> {
        let checked = async {
            let client = self.session().client(op).await?;
            let mut check = client.new_multi_writer();
            check
                .add_check_version(&self.path, -1)
                .map_err(|error| translate(op, error))?;
            let checked = check.commit();
            self.session().answer(op, checked).await
        };
        match self.unless_lost(checked.await).await? {
            Ok(Ok(_)) => Ok(None),
            Ok(Err(error)) => match zk::Error::from(error) {
                zk::Error::NoNode => Ok(Some(self.deleted(op))),
                error => Err(translate(op, error)),
            },
            Err(lost) => Ok(Some(lost)),
        }
    }

    /// The end of its session apart from other errors, by which it is gone. An answer that did not come while there was no connection is
    /// the server's fault.
    pub(crate) async fn unless_lost<T>(&self, answer: Result<T>) -> Result<Result<T, Error>> {
        match answer {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) => match self.session.explained(error).await {
                lost if lost.kind() == ErrorKind::LeaseLost => Ok(Err(lost)),
                error => Err(error),
            },
        }
    }

    pub(crate) fn deleted(&self, op: &'static str) -> Error {
        Error::new(ErrorKind::NotFound, op).because(format!("{} was deleted", self.path))
    }
}

/// The token of the term that a node stands for.
pub(crate) fn token(domain: &str, created: i64) -> FencingToken {
    FencingToken::new(domain, created.max(0).cast_unsigned())
}
