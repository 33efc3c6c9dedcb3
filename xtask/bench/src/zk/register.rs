//! From register to seen: sd-zk beside the client crate that it is made of, doing the same requests by hand.

use std::time::Duration;

use sd_core::Instance;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client as zk;

use super::server::{Server, ephemeral, make};
use super::{PATIENCE, connect};
use crate::harness::interleave;
use crate::ours::{ADDRESS, Registering};
use crate::part::{BESIDE_RAW, Part, register_to_seen};
use crate::source::PAUSE;
use crate::{Effort, Error, Result};

const NAMES: [&str; 2] = ["sd-zk", "raw zookeeper-client"];

pub(super) fn measure(effort: Effort, runtime: &Runtime, server: &Server) -> Result<Part> {
    let samples = effort.pick(1_000, 30);
    let mut contenders = runtime.block_on(async {
        let registries = [connect(server)?, connect(server)?];
        let ours = Registering::begin(registries, "bench", PATIENCE).await?;
        Ok::<_, Error>([
            Contender::Ours(Box::new(ours)),
            Contender::Raw(Box::new(Raw::connect(server).await?)),
        ])
    })?;
    let figures = interleave(&mut contenders, samples, |contender| {
        runtime.block_on(async {
            sleep(PAUSE).await;
            let sample = async {
                match contender {
                    Contender::Ours(ours) => ours.sample().await,
                    Contender::Raw(raw) => raw.sample().await,
                }
            };
            timeout(PATIENCE, sample).await?
        })
    })?;
    Ok(register_to_seen(
        METHOD,
        NAMES,
        "raw zookeeper-client",
        BESIDE_RAW,
        &figures,
    ))
}

enum Contender {
    Ours(Box<Registering>),
    Raw(Box<Raw>),
}

/// What a program does that has only the client crate: an ephemeral node, and at another client a watch on its folder, which is read again,
/// and then the node.
struct Raw {
    writer: zk::Client,
    reader: zk::Client,
    /// Of the folder, since it was read last.
    changed: Option<zk::OneshotWatcher>,
}

impl Raw {
    const FOLDER: &str = "/bench/raw";

    async fn connect(server: &Server) -> Result<Self> {
        let (writer, reader) = (server.client().await?, server.client().await?);
        make(&writer, Self::FOLDER).await?;
        let (_, _, changed) = reader.get_and_watch_children(Self::FOLDER).await?;
        Ok(Self {
            writer,
            reader,
            changed: Some(changed),
        })
    }

    async fn sample(&mut self) -> Result<Duration> {
        let instance = Instance::new("bench", ADDRESS)?;
        let node = format!("{:016x}", fastrand::u64(..));
        let path = format!("{}/{node}", Self::FOLDER);
        let Self {
            writer,
            reader,
            changed,
        } = self;
        let started = Instant::now();
        let register = async {
            let record = serde_json::to_vec(&instance)?;
            writer.create(&path, &record, &ephemeral()).await?;
            Ok::<_, Error>(())
        };
        let seen = async {
            until(reader, changed, |nodes| nodes.contains(&node)).await?;
            let (record, _, deleted) = reader.get_and_watch_data(&path).await?;
            let _: Instance = serde_json::from_slice(&record)?;
            Ok((started.elapsed(), deleted))
        };
        let ((seen, deleted), ()) = tokio::try_join!(seen, register)?;
        writer.delete(&path, None).await?;
        deleted.changed().await;
        until(reader, changed, <[String]>::is_empty).await?;
        Ok(seen)
    }
}

/// Reads the folder each time that it changes, until its nodes are as wanted.
async fn until(
    reader: &zk::Client,
    changed: &mut Option<zk::OneshotWatcher>,
    wanted: impl Fn(&[String]) -> bool,
) -> Result<()> {
    loop {
        changed.take().ok_or("no watch is set")?.changed().await;
        let (nodes, _, next) = reader.get_and_watch_children(Raw::FOLDER).await?;
        *changed = Some(next);
        if wanted(&nodes) {
            return Ok(());
        }
    }
}

const METHOD: &str = "\
**Register to seen.** Both send the same requests over two sessions: create an ephemeral node; where a watch on its folder tells, read
the folder, and then the node, both with watches again. Ours goes all the way: `Registry::register` with its task that keeps the
registration, and a `Subscription` that publishes a complete set. Between samples the record is removed and 15 ms pass, so that each is
a first change after quiet, which a subscription publishes at once.
";
