//! The candidate that must be caught. It does what programs do that were written without thinking of faults: its deadline counts
//! from the reply, a timer lowers the flag, nothing checks that the entry is still there, and a reply of any kind is a renewal.

mod consul;
mod etcd;
mod redis;
mod zk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sd_core::FencingToken;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::Result;
use crate::backend::Backend;
use crate::child::belief::{Belief, Holds};
use crate::child::journal::Journal;
use crate::child::prober::{Prober, Register};
use crate::child::{Brief, Order};
use crate::history::{At, Election, Event};

const ELECTION: Election = Election::Naive;
const DOMAIN: &str = "naive";
const POLL_EVERY: Duration = Duration::from_millis(100);
/// How often the flag is compared with the deadline.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A term that was won.
struct Won {
    lock: Box<dyn Lock>,
    id: String,
    token: u64,
}

/// What has to be kept at the server.
#[async_trait]
trait Lock: Send {
    async fn renew(&mut self) -> Result<()>;

    async fn give_up(self: Box<Self>) -> Result<()>;
}

async fn campaign(brief: &Brief) -> Result<Won> {
    match brief.backend {
        Backend::Etcd => etcd::campaign(brief).await,
        Backend::Consul => consul::campaign(brief).await,
        Backend::Zk => zk::campaign(brief).await,
        Backend::Redis => redis::campaign(brief).await,
    }
}

/// Campaigns and leads until it is told to leave.
pub(super) async fn run(
    brief: &Brief,
    journal: &Journal,
    mut orders: watch::Receiver<Order>,
) -> Result<()> {
    let mut register = Register::connect(brief, ELECTION)?;
    while *orders.borrow_and_update() != Order::Leave {
        journal.tell(Event::Campaigning { election: ELECTION });
        let won = tokio::select! {
            won = campaign(brief) => won,
            _ = orders.wait_for(|order| *order == Order::Leave) => break,
        };
        match won {
            Ok(won) => register = lead(brief, won, register, journal, &mut orders).await?,
            Err(error) => {
                tracing::debug!(%error, "naive campaign failed");
                sleep(POLL_EVERY).await;
            }
        }
    }
    Ok(())
}

async fn lead(
    brief: &Brief,
    won: Won,
    register: Register,
    journal: &Journal,
    orders: &mut watch::Receiver<Order>,
) -> Result<Register> {
    let Won {
        mut lock,
        id,
        token,
    } = won;
    journal.tell_at(
        At::now(),
        Event::Elected {
            election: ELECTION,
            id,
            token,
            domain: DOMAIN.to_owned(),
        },
    );
    let leads = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&leads);
    let holds: Holds = Arc::new(move || asked.load(Ordering::Relaxed));
    let belief = Belief::watch(journal.clone(), ELECTION, token, Arc::clone(&holds));
    let prober = Prober::start(register, FencingToken::new(DOMAIN, token), holds);
    let leave = orders.wait_for(|order| *order == Order::Leave);
    tokio::select! {
        () = keep(brief, &mut *lock) => {}
        _ = leave => {}
    }
    leads.store(false, Ordering::Relaxed);
    let register = prober.stop()?;
    belief.stop();
    journal.tell(Event::Ended {
        election: ELECTION,
        token,
        reason: "naive".to_owned(),
    });
    // It may be gone; otherwise the next one waits until the server ends it.
    let _ = timeout(ANSWER_WITHIN, lock.give_up()).await;
    Ok(register)
}

/// Renews until the timer finds the deadline behind it.
async fn keep(brief: &Brief, lock: &mut dyn Lock) {
    let trusted = brief.ttl * brief.backend.ttls_until_expiry();
    let mut deadline = Instant::now() + trusted;
    let mut renewed = Instant::now();
    while Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
        if renewed.elapsed() < brief.ttl / 3 {
            continue;
        }
        renewed = Instant::now();
        let renewal = timeout(ANSWER_WITHIN, lock.renew()).await;
        if matches!(renewal, Ok(Ok(()))) {
            deadline = Instant::now() + trusted;
        }
    }
}
