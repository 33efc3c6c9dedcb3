//! From register to seen: sd-redis beside the client crate that it is made of, doing the same by hand.

use std::time::Duration;

use redis::Script;
use redis::aio::MultiplexedConnection;
use sd_core::Instance;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

use super::server::{Messages, Server};
use super::{PATIENCE, connect};
use crate::harness::interleave;
use crate::ours::{ADDRESS, Registering};
use crate::part::{BESIDE_RAW, Part, register_to_seen};
use crate::source::PAUSE;
use crate::{Effort, Error, Result};

const NAMES: [&str; 2] = ["sd-redis", "raw redis"];

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
        "the raw client",
        BESIDE_RAW,
        &figures,
    ))
}

enum Contender {
    Ours(Box<Registering>),
    Raw(Box<Raw>),
}

/// What a program does that has only the client crate: a script that writes the record, its end and a version, and publishes them; and at
/// another client a subscription.
struct Raw {
    writer: MultiplexedConnection,
    messages: Messages,
    put: Script,
    remove: Script,
}

impl Raw {
    const CHANNEL: &str = "bench-raw:changes";

    async fn connect(server: &Server) -> Result<Self> {
        Ok(Self {
            writer: server.connection().await?,
            messages: server.messages(Self::CHANNEL).await?,
            put: Script::new(
                "local time = redis.call('TIME')
                 redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
                 redis.call('ZADD', KEYS[2], time[1] * 1000 + 10000, ARGV[1])
                 local version = redis.call('INCR', KEYS[3])
                 redis.call('PUBLISH', ARGV[3], ARGV[1] .. ' ' .. ARGV[2])
                 return version",
            ),
            remove: Script::new(
                "redis.call('HDEL', KEYS[1], ARGV[1])
                 redis.call('ZREM', KEYS[2], ARGV[1])
                 local version = redis.call('INCR', KEYS[3])
                 redis.call('PUBLISH', ARGV[2], ARGV[1])
                 return version",
            ),
        })
    }

    async fn sample(&mut self) -> Result<Duration> {
        let instance = Instance::new("bench", ADDRESS)?;
        let id = instance.id().to_string();
        let Self {
            writer,
            messages,
            put,
            remove,
        } = self;
        let keys = ["bench-raw:records", "bench-raw:ends", "bench-raw:version"];
        let started = Instant::now();
        let register = async {
            let record = serde_json::to_vec(&instance)?;
            let mut put = put.key(&keys);
            put.arg(&id).arg(record).arg(Self::CHANNEL);
            put.invoke_async::<u64>(writer).await?;
            Ok::<_, Error>(())
        };
        let seen = async {
            let record = messages.next(&format!("{id} ")).await?;
            let _: Instance = serde_json::from_slice(&record)?;
            Ok(started.elapsed())
        };
        let (seen, ()) = tokio::try_join!(seen, register)?;
        let mut remove = remove.key(&keys);
        remove.arg(&id).arg(Self::CHANNEL);
        remove.invoke_async::<u64>(writer).await?;
        messages.next(&id).await?;
        Ok(seen)
    }
}

const METHOD: &str = "\
**Register to seen.** Both write a record by one script, with its end by the server's clock and a version, which publishes the record last; and
another connection is told. Ours goes all the way: `Registry::register` with its task that keeps the registration, and a `Subscription` that
publishes a complete set. Between samples the record is removed and 15 ms pass, so that each is a first change after quiet, which a
subscription publishes at once.
";
