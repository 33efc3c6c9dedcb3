//! Nodes that only look on.

use std::sync::Arc;
use std::time::Duration;

use sd_core::Result;

use super::clock::{NodeClock, Pace};
use super::executor::World;
use super::history::What;
use super::network::Network;
use super::server::{Server, SimulatedElector};
use crate::observer::Observer;
use sd_core::Status;

/// Starts an observer that reads slowly and records what it sees.
pub(super) fn start(
    world: &World,
    network: &Network,
    server: &Arc<Server>,
    pace: Pace,
    slowness: Duration,
) -> Result<()> {
    let node = world.add_node();
    let clock = NodeClock::new(world.clone(), node, pace, Duration::ZERO);
    let elector = SimulatedElector::connect(server, network, node, clock.clone())?;
    let (mut observer, task) =
        Observer::prepare(elector, Arc::new(clock), server.name.clone(), None);
    world.spawn(node, Box::pin(task));
    let looking = world.clone();
    world.spawn(
        node,
        Box::pin(async move {
            while let Ok(view) = observer.changed().await {
                looking.record(
                    node,
                    What::Saw {
                        token: view.leader.map(|leader| leader.token.value()),
                        lineage: view.lineage,
                        live: matches!(view.status, Status::Live),
                    },
                );
                let pause = looking.between(Duration::ZERO..=slowness);
                looking.sleep(pause).await;
            }
        }),
    );
    Ok(())
}
