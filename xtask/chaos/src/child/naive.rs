//! The candidate that must be caught. It does what programs do that were written without thinking of faults: its deadline counts
//! from the reply, a timer lowers the flag, nobody looks whether the entry is still there, and a reply of any kind is a renewal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, GetOptions, PutOptions, SortOrder, SortTarget};
use sd_core::FencingToken;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::Result;
use crate::child::belief::{Belief, Holds};
use crate::child::journal::Journal;
use crate::child::prober::{Prober, Register};
use crate::child::{Brief, Order};
use crate::history::{At, Election, Event};
use crate::operator::entries_of;

const ELECTION: Election = Election::Naive;
const DOMAIN: &str = "naive";
const POLL_EVERY: Duration = Duration::from_millis(100);
/// How often the flag is compared with the deadline.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Campaigns and leads until it is told to leave.
pub(super) async fn run(
    brief: &Brief,
    journal: &Journal,
    mut orders: watch::Receiver<Order>,
) -> Result<()> {
    let mut register = Register::connect(brief.register, &brief.name, ELECTION)?;
    while *orders.borrow_and_update() != Order::Leave {
        journal.tell(Event::Campaigning { election: ELECTION });
        let won = tokio::select! {
            won = campaign(brief) => won,
            _ = orders.wait_for(|order| *order == Order::Leave) => break,
        };
        match won {
            Ok(term) => register = lead(term, register, journal, &mut orders).await?,
            Err(error) => {
                tracing::debug!(%error, "naive campaign failed");
                sleep(POLL_EVERY).await;
            }
        }
    }
    Ok(())
}

struct Term {
    client: Client,
    lease: i64,
    ttl: Duration,
    token: u64,
    leads: Arc<AtomicBool>,
}

async fn campaign(brief: &Brief) -> Result<Term> {
    let options = ConnectOptions::new()
        .with_connect_timeout(ANSWER_WITHIN)
        .with_timeout(ANSWER_WITHIN);
    let mut client = Client::connect(&brief.endpoints, Some(options)).await?;
    let ttl = i64::try_from(brief.ttl.as_secs())?;
    let lease = client.lease_grant(ttl, None).await?.id();
    let entries = entries_of(ELECTION);
    let key = format!("{entries}{lease:016x}");
    let on_lease = PutOptions::new().with_lease(lease);
    client
        .put(key.as_str(), brief.name.as_str(), Some(on_lease))
        .await?;
    let oldest = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(1);
    let mut renewed = Instant::now();
    loop {
        let first = client.get(entries.as_str(), Some(oldest.clone())).await?;
        let first = first.kvs().first().ok_or("the entry is gone")?;
        if first.key() == key.as_bytes() {
            let token = first.create_revision().cast_unsigned();
            let leads = Arc::new(AtomicBool::new(true));
            return Ok(Term {
                client,
                lease,
                ttl: brief.ttl,
                token,
                leads,
            });
        }
        sleep(POLL_EVERY).await;
        if renewed.elapsed() >= brief.ttl / 3 {
            client.lease_keep_alive(lease).await?;
            renewed = Instant::now();
        }
    }
}

async fn lead(
    mut term: Term,
    register: Register,
    journal: &Journal,
    orders: &mut watch::Receiver<Order>,
) -> Result<Register> {
    let token = term.token;
    journal.tell_at(
        At::now(),
        Event::Elected {
            election: ELECTION,
            id: format!("{:016x}", term.lease),
            token,
            domain: DOMAIN.to_owned(),
        },
    );
    let leads = Arc::clone(&term.leads);
    let holds: Holds = Arc::new(move || leads.load(Ordering::Relaxed));
    let belief = Belief::watch(journal.clone(), ELECTION, token, Arc::clone(&holds));
    let prober = Prober::start(register, FencingToken::new(DOMAIN, token), holds);
    let leave = orders.wait_for(|order| *order == Order::Leave);
    tokio::select! {
        () = keep(&mut term) => {}
        _ = leave => {}
    }
    term.leads.store(false, Ordering::Relaxed);
    let register = prober.stop()?;
    belief.stop();
    journal.tell(Event::Ended {
        election: ELECTION,
        token,
        reason: "naive".to_owned(),
    });
    // It may be gone; whoever is next waits for the time-to-live otherwise.
    let _ = timeout(ANSWER_WITHIN, term.client.lease_revoke(term.lease)).await;
    Ok(register)
}

/// Renews until the timer finds the deadline behind it.
async fn keep(term: &mut Term) {
    let mut deadline = Instant::now() + term.ttl;
    let mut renewed = Instant::now();
    while Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
        if renewed.elapsed() < term.ttl / 3 {
            continue;
        }
        renewed = Instant::now();
        let renewal = timeout(ANSWER_WITHIN, term.client.lease_keep_alive(term.lease)).await;
        if matches!(renewal, Ok(Ok(_))) {
            deadline = Instant::now() + term.ttl;
        }
    }
}
