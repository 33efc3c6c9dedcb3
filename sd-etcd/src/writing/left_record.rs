//! Going on with a record that an earlier client of the same incarnation has left, where nothing can be written.
//!
//! A server whose database is full grants no lease and takes no value. But it renews leases: the record lives on if the lease that it
//! hangs on already is renewed in place of a new one.

use std::time::Duration;

use etcd_client::GetOptions;
use sd_backend::Record;
use sd_core::{ErrorKind, Instance, RecordId, Result};

use crate::client::Client;
use crate::codec::Layout;

/// A record that may be at the server already.
#[derive(Debug)]
pub(crate) struct LeftRecord<'a> {
    pub(crate) client: &'a Client,
    pub(crate) layout: &'a Layout,
    pub(crate) record: &'a RecordId,
    pub(crate) key: &'a str,
}

impl LeftRecord<'_> {
    /// Renews the lease that the record hangs on, if the record is ours and the lease keeps nothing else. Returns the lease and the
    /// time-to-live that it was granted if the record has this `value`. One with another value lives on until it can be written, unless
    /// readers would call an address that was given up, or an instance that wants no calls.
    pub(crate) async fn go_on(
        &self,
        op: &'static str,
        wanted: &Instance,
        value: &[u8],
    ) -> Result<Option<(i64, Duration)>> {
        let key = self.key.as_bytes();
        let answer = self.client.get(op, key, &GetOptions::new()).await?;
        let Some(found) = answer.kvs().first() else {
            return Ok(None);
        };
        let lease = found.lease();
        match self.layout.stored_in(found, self.record) {
            Ok(Record::Live(live))
                if lease != 0 && live.record_id() == *self.record && may_stay(&live, wanted) => {}
            _ => return Ok(None),
        }
        let Some(told) = self.client.lease(op, lease).await? else {
            return Ok(None);
        };
        let RecordId { service, id, .. } = self.record;
        let override_key = self.layout.override_key(service, id);
        let is_its = |attached: &Vec<u8>| {
            attached == key || override_key.as_ref().map(String::as_bytes) == Some(attached)
        };
        // The lease ends with the registration.
        if !told.keys.iter().all(is_its) {
            return Ok(None);
        }
        match self.client.keep_alive(op, lease).await {
            Ok(()) => Ok((found.value() == value).then_some((lease, told.granted))),
            Err(error) if error.kind() == ErrorKind::LeaseLost => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether readers may go on with a record that its owner cannot change.
fn may_stay(found: &Instance, wanted: &Instance) -> bool {
    found.endpoint() == wanted.endpoint() && (wanted.is_ready() || !found.is_ready())
}
