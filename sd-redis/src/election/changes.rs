//! What a server tells of the changes of one election.

use std::future::pending;

use bytes::Bytes;
use sd_backend::CloseSignal;
use sd_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::client::subscriptions::Subscription;
use crate::election::keys::ElectionKeys;

/// The changes of one election from a moment on.
#[derive(Debug)]
pub(crate) struct Changes {
    told: Told,
    signal: CloseSignal,
}

#[derive(Debug)]
enum Told {
    All(Subscription),
    /// Nothing, because the user may not read the channel. Who waits looks now and then.
    Nothing,
    /// Something may have been missed.
    Ended,
}

impl Changes {
    /// Those that happen after this returns.
    ///
    /// # Errors
    /// Why the server does not tell them, other than that it may not.
    pub(crate) async fn follow(client: &Client, keys: &ElectionKeys) -> Result<Self> {
        let subscriptions = client.subscriptions();
        let told = subscriptions.subscribe_if_allowed(&keys.changes).await?;
        let told = told.map_or(Told::Nothing, Told::All);
        Ok(Self {
            told,
            signal: client.signal.clone(),
        })
    }

    /// Whether something may have been missed. Others have to be followed then.
    pub(crate) fn have_ended(&self) -> bool {
        matches!(self.told, Told::Ended)
    }

    /// The next message.
    ///
    /// # Errors
    /// `Closed`, or why something may have been missed. Nothing comes after that.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub(crate) async fn next(&mut self, op: &'static str) -> Result<Bytes> {
        match &mut self.told {
            Told::All(subscription) => {
                let message = subscription.next().await;
                if message.is_err() {
                    self.told = Told::Ended;
                }
                message
            }
            Told::Nothing => self.signal.unless_closed(op, pending()).await,
            Told::Ended => {
                Err(Error::new(ErrorKind::Unavailable, op).because("changes may have been missed"))
            }
        }
    }
}
