//! The operators' port of the embedded registry.

use async_trait::async_trait;

use super::MemoryBackend;
use crate::error::Result;
use crate::model::instance::RecordId;
use crate::model::overriding::Override;
use crate::port::operator::Operator;

#[async_trait]
impl Operator for MemoryBackend {
    async fn set_override(&self, record: &RecordId, wanted: Option<Override>) -> Result<()> {
        const OP: &str = "memory: set override";
        self.check_open(OP)?;
        self.store
            .set_override(OP, record, wanted, self.clock.now())
    }

    async fn remove(&self, record: &RecordId) -> Result<()> {
        const OP: &str = "memory: remove record";
        self.check_open(OP)?;
        self.store.remove_on_purpose(OP, record, self.clock.now())
    }
}
