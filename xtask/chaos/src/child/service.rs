//! One process that registers an instance and keeps it registered.

use sd_core::Instance;

use crate::Result;
use crate::child::journal::Journal;
use crate::child::node::{dismissed, orders, registry};
use crate::child::{Brief, Order, die_with};
use crate::history::Event;

/// What all of them register.
pub(crate) const SERVICE: &str = "chaos";

/// Runs until its standard input ends. Withdraws the instance when it is told to leave.
pub(crate) fn run(brief: &Brief) -> Result<()> {
    die_with(brief.parent)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let orders = orders();
        tokio::select! {
            ended = serve(brief, orders.clone()) => ended,
            () = dismissed(orders.clone()) => Ok(()),
        }
    })
}

async fn serve(brief: &Brief, mut orders: tokio::sync::watch::Receiver<Order>) -> Result<()> {
    let journal = Journal::new(&brief.name);
    let registry = registry(brief)?;
    let address = brief.listens_at.ok_or("a service needs an address")?;
    let instance = Instance::new(SERVICE, address)?;
    let id = instance.id().to_string();
    // Before: who is killed in between may leave a record.
    journal.tell(Event::Registering { id: id.clone() });
    let guard = registry.register(instance).ttl(brief.ttl).in_background()?;
    guard.registered().await?;
    journal.tell(Event::Registered { id: id.clone() });
    orders.wait_for(|order| *order == Order::Leave).await?;
    journal.tell(Event::Withdrawing { id: id.clone() });
    guard.deregister().await?;
    journal.tell(Event::Withdrawn { id });
    journal.tell(Event::Idle);
    std::future::pending().await
}
