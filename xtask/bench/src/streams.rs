//! What a message of a stream costs its client, beside tonic's plain channel.

use std::time::Duration;

use sd_grpc::ChannelConfig;
use tokio::runtime;

use crate::calls::{Client, Load, Outcome, Shape};
use crate::channels::{self, OURS_ALONE};
use crate::cores::Halves;
use crate::harness::interleave;
use crate::plot::{Chart, Group, PlotBar, Scale, short};
use crate::report::{Bar, Section, Table};
use crate::server::ServerProcess;
use crate::stats::{Ratio, Spread};
use crate::{Effort, Result};

/// Streams at a time, and messages in each.
const LOADS: [(usize, usize); 2] = [(1, 50_000), (16, 5_000)];
const DEADLINE: Duration = Duration::from_mins(1);

/// What one round of one contender came to.
#[derive(Debug)]
struct Figures {
    micros: f64,
    per_second: f64,
}

/// One kind of stream under one load.
#[derive(Debug)]
struct Row {
    words: &'static str,
    streams: usize,
    /// By contender and round. Ours is the first.
    figures: Vec<Vec<Figures>>,
}

impl Row {
    fn label(&self) -> String {
        format!("{}, {} at a time", self.words, self.streams)
    }
}

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let halves = Halves::split()?;
    let servers = halves.place(|| ServerProcess::start(1))?;
    let address = *servers.addresses.first().ok_or("no server")?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(halves.clients())
        .enable_all()
        .build()?;
    let mut clients = runtime.block_on(async {
        Ok::<_, crate::Error>([
            channels::ours(OURS_ALONE, &[address], ChannelConfig::default()).await?,
            channels::tonic(address)?,
        ])
    })?;
    let mut rows = Vec::new();
    for (words, shape) in [
        ("server stream", Shape::Download as fn(usize) -> Shape),
        ("both ways", Shape::Echo),
    ] {
        for (streams, messages) in LOADS {
            let messages = effort.pick(messages, messages / 50);
            let load = Load {
                shape: shape(messages),
                calls: streams,
                in_flight: streams,
                deadline: DEADLINE,
                idempotent: false,
            };
            let figures = interleave(&mut clients, effort.rounds, |client| {
                figures(&runtime.block_on(client.run(load))?, messages)
            })?;
            rows.push(Row {
                words,
                streams,
                figures,
            });
        }
    }
    Ok(section(&halves, &clients, &rows))
}

fn figures(outcome: &Outcome, messages: usize) -> Result<Figures> {
    if outcome.failures() > 0 {
        return Err(format!("streams failed: {}", outcome.codes()).into());
    }
    let messages = f64::from(u32::try_from(outcome.times.len() * messages)?);
    Ok(Figures {
        micros: outcome.processor.as_secs_f64() * 1e6 / messages,
        per_second: messages / outcome.took.as_secs_f64(),
    })
}

fn section(halves: &Halves, clients: &[Client], rows: &[Row]) -> Section {
    let mut table = Table::new(["streams", "contender", "processor µs/message", "messages/s"]);
    let mut ratios = Table::new(["streams", "processor time for each message", "messages/s"]);
    let mut bars = Vec::new();
    let mut groups = Vec::new();
    for row in rows {
        let label = row.label();
        let spread = |figures: &[Figures], figure: fn(&Figures) -> f64| {
            Spread::of(figures.iter().map(figure))
        };
        for (client, figures) in clients.iter().zip(&row.figures) {
            table.row([
                label.clone(),
                client.name.to_owned(),
                short(spread(figures, |f| f.micros).median),
                format!("{:.0}", spread(figures, |f| f.per_second).median),
            ]);
        }
        let [ours, theirs] = &row.figures[..] else {
            continue;
        };
        let micros = Ratio::of(ours, theirs, |f| f.micros);
        let per_second = Ratio::of(ours, theirs, |f| f.per_second);
        ratios.row([label.clone(), micros.to_string(), per_second.to_string()]);
        let show = |ratio| format!("{ratio:.2}×");
        let what = |figure| format!("{figure}, {label}, ours ÷ tonic's");
        bars.push(Bar::at_most(
            what("processor time for each message"),
            micros.median(),
            1.0,
            show,
        ));
        bars.push(Bar::at_least(
            what("messages/s"),
            per_second.median(),
            1.0,
            show,
        ));
        let plotted = clients.iter().zip(&row.figures);
        groups.push(Group {
            label,
            bars: plotted
                .map(|(client, figures)| PlotBar {
                    label: client.name.to_owned(),
                    ours: client.ours,
                    spread: spread(figures, |f| f.micros),
                })
                .collect(),
        });
    }
    let chart = Chart {
        name: "streams",
        title: "Processor time of the client for each message, µs".to_owned(),
        scale: Scale::Linear,
        groups,
    };
    let text = format!(
        "{METHOD}\nHere: {} core(s) for the client, {} for the server.\n\n{table}\nOurs ÷ tonic's, round by round:\n\n{ratios}",
        halves.clients(),
        halves.servers()
    );
    Section {
        title: "Streams",
        text,
        bars,
        charts: vec![chart],
    }
}

const METHOD: &str = "\
Streams of messages of 16 bytes from one tonic server on loopback, over one connection: as fast as the server sends them, or echoed,
where the client sends as fast as it may. The server runs in one other process on the other half of the cores. Every contender encodes
and decodes the same messages. Processor time is that of the whole client process, by its clock.
";
