//! From register to seen: sd-consul beside an HTTP client that sends what it takes at least.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

use super::agent::{Agent, Listed};
use super::{PATIENCE, connect};
use crate::harness::interleave;
use crate::ours::Registering;
use crate::part::{BESIDE_RAW, Part, register_to_seen};
use crate::source::PAUSE;
use crate::{Effort, Error, Result};

const NAMES: [&str; 2] = ["sd-consul", "raw reqwest"];

pub(super) fn measure(effort: Effort, runtime: &Runtime, address: &str) -> Result<Part> {
    let samples = effort.pick(400, 20);
    let mut contenders = runtime.block_on(async {
        let registries = [connect(address)?, connect(address)?];
        let ours = Registering::begin(registries, "bench-ours", PATIENCE).await?;
        Ok::<_, Error>([
            Contender::Ours(Box::new(ours)),
            Contender::Raw(Box::new(Raw::connect(address).await?)),
        ])
    })?;
    let figures = interleave(&mut contenders, samples, |contender| {
        runtime.block_on(async {
            let sample = async {
                match contender {
                    Contender::Ours(ours) => {
                        sleep(PAUSE).await;
                        ours.sample().await
                    }
                    Contender::Raw(raw) => raw.sample().await,
                }
            };
            timeout(PATIENCE, sample).await?
        })
    })?;
    Ok(register_to_seen(
        METHOD,
        NAMES,
        "a raw HTTP client",
        BESIDE_RAW,
        &figures,
    ))
}

enum Contender {
    Ours(Box<Registering>),
    Raw(Box<Raw>),
}

/// One registration, and a blocking query of another client that waits for it.
struct Raw {
    writer: Agent,
    reader: Agent,
    index: u64,
}

impl Raw {
    const SERVICE: &str = "bench-raw";

    async fn connect(address: &str) -> Result<Self> {
        let (writer, reader) = (Agent::at(address)?, Agent::at(address)?);
        let target = format!("/v1/health/service/{}?passing", Self::SERVICE);
        let (_, index) = reader.get::<Vec<Listed>>(&target).await?;
        Ok(Self {
            writer,
            reader,
            index,
        })
    }

    async fn sample(&mut self) -> Result<Duration> {
        let id = format!("{}:{:016x}", Self::SERVICE, fastrand::u64(..));
        let has_it = |listed: &[Listed]| listed.iter().any(|one| one.id() == id);
        let seen = async {
            let listed = self.reader.until_listed(Self::SERVICE, self.index, has_it);
            Ok::<_, Error>((listed.await?, Instant::now()))
        };
        let register = async {
            // The query is under way by then, as it always is in ours.
            sleep(PAUSE).await;
            let started = Instant::now();
            self.writer.register(Self::SERVICE, &id).await?;
            Ok(started)
        };
        let ((index, at), started) = tokio::try_join!(seen, register)?;
        let gone = self
            .reader
            .until_listed(Self::SERVICE, index, |listed| !has_it(listed));
        (self.index, ()) = tokio::try_join!(gone, self.writer.deregister(&id))?;
        Ok(at - started)
    }
}

const METHOD: &str = "\
**Register to seen.** One client registers a service with a passing check, while another one has a blocking query on it. Ours goes
all the way: `Registry::register`, and a `Subscription` that publishes a complete set. Between samples the record is removed and
15 ms pass, so that each is a first change after quiet, which a subscription publishes at once. Most of the time is Consul's: the
agent copies the registration into the catalog a moment later.
";
