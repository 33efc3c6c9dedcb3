//! Sources made of other sources pass the conformance suite of the reading port, as backends do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_core::clock::TokioClock;
use sd_core::combine::{Fallback, Filter, Merge};
use sd_core::memory::Memory;
use sd_core::port::async_trait;
use sd_core::{
    Backend, Error, ErrorKind, Instancer, RecordId, Registrar, Result, ServiceName, Snapshot,
    Watcher,
};
use sd_testing::{Ability, Fixture, reading};

/// Records are written to an embedded registry and read through a combination.
struct Combined {
    memory: Memory,
    combine: fn(Arc<dyn Instancer>) -> Arc<dyn Instancer>,
}

#[derive(Debug)]
struct Client {
    written: Arc<dyn Backend>,
    read: Arc<dyn Instancer>,
    /// To close is the backend's; a combination has other sources and goes on.
    closed: AtomicBool,
}

impl Client {
    fn reader(&self) -> Result<&dyn Instancer> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Closed, "combination"));
        }
        Ok(self.read.as_ref())
    }
}

#[async_trait]
impl Instancer for Client {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.reader()?.services().await
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.reader()?.list(service).await
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        self.reader()?.watch(service, known).await
    }
}

#[async_trait]
impl Backend for Client {
    fn name(&self) -> &'static str {
        "combination"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        Arc::clone(&self.written).registrar()
    }

    fn elector(self: Arc<Self>) -> Option<sd_core::port::AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        self.written.close().await
    }
}

#[async_trait]
impl Fixture for Combined {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let written: Arc<dyn Backend> = Arc::new(self.memory.backend());
        let read = (self.combine)(Arc::<dyn Backend>::clone(&written));
        Ok(Arc::new(Client {
            written,
            read,
            closed: AtomicBool::new(false),
        }))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![
            Ability::UnreadableEntries,
            Ability::Sessions,
            Ability::PermanentRecords,
        ]
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        self.memory.operator().remove(record);
        Ok(())
    }
}

async fn passes_all_reading_cases(combine: fn(Arc<dyn Instancer>) -> Arc<dyn Instancer>) {
    let memory = Memory::new();
    reading::run_all(&Combined { memory, combine })
        .await
        .expect_passed();
}

fn nothing() -> Arc<dyn Instancer> {
    Arc::new(Memory::new().backend())
}

#[tokio::test(start_paused = true)]
async fn a_filter_passes_all_reading_cases() {
    passes_all_reading_cases(|source| Arc::new(Filter::new(source).matching(|_| true))).await;
}

#[tokio::test(start_paused = true)]
async fn a_merge_passes_all_reading_cases() {
    passes_all_reading_cases(|source| {
        let merge = Merge::new("registry", source).and("nothing", nothing());
        Arc::new(merge.with_clock(Arc::new(TokioClock)))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_passes_all_reading_cases() {
    passes_all_reading_cases(|source| {
        let fallback = Fallback::new("registry", source).or("nothing", nothing());
        Arc::new(fallback.with_clock(Arc::new(TokioClock)))
    })
    .await;
}
