//! How do I run something on one node only, and how do others see which node that is?
//!
//! ```text
//! cargo run -p examples --bin elect
//! cargo run -p examples --bin elect --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Prints who leads, as an observer sees it, while two nodes write their parts of a report, one after the other.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use sd_core::Registry;
use sd_election::{Candidate, Fenced, Observer, Refused, Term};
use tokio::time::sleep;

const ELECTION: &str = "example/report";

/// Stands for your store. It keeps the greatest token that it has seen beside the data, and refuses lower ones.
type Report = Fenced<Vec<String>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let report = Arc::new(Report::new(Vec::new()));

    // An observer need not be a candidate.
    let mut observer = Observer::new(&registry, ELECTION)?;
    let watching = tokio::spawn(async move {
        while let Ok(view) = observer.changed().await {
            match view.leader {
                Some(leader) => {
                    let value = String::from_utf8_lossy(&leader.value);
                    println!("{value} leads, with token {}", leader.token);
                }
                None => println!("no leader ({})", view.status.as_str()),
            }
        }
    });

    // Usually in two processes.
    let nodes = ["node-1", "node-2"];
    let [first, second] =
        nodes.map(|name| tokio::spawn(node(registry.clone(), name, Arc::clone(&report))));
    first.await??;
    second.await??;
    println!("the report: {}", report.read(|lines| lines.join(", ")));

    // Ends the observer, too.
    registry.close().await?;
    watching.await?;
    Ok(())
}

async fn node(registry: Registry, name: &'static str, report: Arc<Report>) -> sd_core::Result<()> {
    let candidate = Candidate::builder(&registry, ELECTION)
        .value(name)
        // Every registry grants this. A node resigns when it is done, so the other one does not wait that long.
        .ttl(Duration::from_secs(10))
        .build()?;
    // Runs again if the term is lost before the work is done. Resigns when it is done. To hold a term for longer, see
    // `Candidate::campaign`.
    candidate
        .run_while_leader(|term| {
            let report = Arc::clone(&report);
            async move {
                if let Err(refused) = write(name, &term, &report).await {
                    println!("{name} was replaced: {refused}");
                }
            }
        })
        .await
}

async fn write(name: &str, term: &Term, report: &Report) -> Result<(), Refused> {
    for part in ["begins", "ends"] {
        // The node may have been replaced without noticing since it last looked. So the store compares tokens.
        report.write(term.token(), |lines| lines.push(format!("{name} {part}")))?;
        sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}
