//! The live table: redrawn in place on a terminal, a line now and then elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use sd_grpc::ChannelDump;
use tokio::time::Instant;

use crate::calls::Calls;

/// How often a line is written where nothing can be redrawn.
const LINE_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct Screen {
    began: Instant,
    is_terminal: bool,
    is_coloured: bool,
    rows: BTreeMap<String, Row>,
    /// How many lines the table on the terminal has.
    drawn: usize,
    lined_at: Option<Instant>,
    first_call_after: Option<Duration>,
}

/// An endpoint as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    address: String,
    state: &'static str,
    calls: u64,
    sent_again: u64,
    errors: u64,
}

/// The state of an endpoint that the channel no longer has.
const GONE: &str = "gone";

impl Screen {
    pub(crate) fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            began: Instant::now(),
            is_terminal,
            is_coloured: is_terminal && wants_colour,
            rows: BTreeMap::new(),
            drawn: 0,
            lined_at: None,
            first_call_after: None,
        }
    }

    /// Tells what happens, above the table.
    pub(crate) fn say(&mut self, text: &str) {
        let at = self.began.elapsed().as_secs_f64();
        let bold = self.style(Style::new().bold());
        self.print(&[format!("{at:5.1} s  {bold}{text}{bold:#}")]);
    }

    pub(crate) fn first_call_after(&mut self, time: Duration) {
        self.first_call_after = Some(time);
    }

    pub(crate) fn draw(&mut self, dump: &ChannelDump, calls: &Calls) {
        let changed = self.take(dump);
        if self.rows.is_empty() {
            return;
        }
        if self.is_terminal {
            let table = self.table(dump, calls);
            self.print(&table);
            self.drawn = table.len();
        } else if changed || self.lined_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.lined_at = Some(Instant::now());
            self.print(&[self.line(calls)]);
        }
    }

    /// The last lines.
    pub(crate) fn sum_up(&mut self, dump: &ChannelDump, calls: &Calls) {
        let (count, failed) = (calls.count(), calls.failed());
        let again = dump.sent_again;
        let mut lines = vec![String::new()];
        let failures = calls.failures().into_iter();
        lines.extend(failures.map(|failure| format!("failed: {failure}")));
        lines.push(format!(
            "{count} calls, {failed} failed, {again} sent again to another endpoint"
        ));
        let first_call = self.first_call_after.iter();
        lines.extend(
            first_call.map(|time| format!("{} ms from register to first call", time.as_millis())),
        );
        self.drawn = 0;
        self.print(&lines);
    }

    /// Takes over what the channel shows; says whether an endpoint's state changed.
    fn take(&mut self, dump: &ChannelDump) -> bool {
        let states = |rows: &BTreeMap<String, Row>| -> Vec<_> {
            rows.iter()
                .map(|(id, row)| (id.clone(), row.state))
                .collect()
        };
        let before = states(&self.rows);
        for row in self.rows.values_mut() {
            row.state = GONE;
        }
        for endpoint in &dump.endpoints {
            let row = Row {
                address: endpoint.address.to_string(),
                state: endpoint.state.as_str(),
                calls: endpoint.calls,
                sent_again: endpoint.sent_again,
                errors: endpoint.errors,
            };
            self.rows.insert(endpoint.id.to_string(), row);
        }
        before != states(&self.rows)
    }

    fn table(&self, dump: &ChannelDump, calls: &Calls) -> Vec<String> {
        let dim = self.style(Style::new().dimmed());
        let header = format!(
            "   {dim}{:<3}{:<18}{:<12}{:>8}{:>13}{:>9}{dim:#}",
            "", "ENDPOINT", "STATE", "CALLS", "SENT AGAIN", "ERRORS"
        );
        let mut table = vec![String::new(), header];
        table.extend(self.rows.iter().map(|(id, row)| {
            let colour = self.style(colour(row.state));
            let Row {
                address,
                state,
                calls,
                sent_again,
                errors,
            } = row;
            format!(
                "   {id:<3}{address:<18}{colour}{state:<12}{colour:#}{calls:>8}{sent_again:>13}{errors:>9}"
            )
        }));
        let (count, failed) = (calls.count(), calls.failed());
        let again = dump.sent_again;
        table.push(format!(
            "   {count} calls, {failed} failed, {again} sent again"
        ));
        table
    }

    fn line(&self, calls: &Calls) -> String {
        let rows = self.rows.iter().map(|(id, row)| {
            let again = match row.sent_again {
                0 => String::new(),
                again => format!(" ({again} sent again)"),
            };
            format!("{id} {} {}{again}", row.state, row.calls)
        });
        let rows = rows.collect::<Vec<_>>().join(", ");
        format!(
            "{:9}{} calls, {} failed: {rows}",
            "",
            calls.count(),
            calls.failed()
        )
    }

    fn style(&self, style: Style) -> Style {
        if self.is_coloured {
            style
        } else {
            Style::new()
        }
    }

    /// Prints in the place of the table.
    fn print(&mut self, lines: &[String]) {
        let erase = match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            drawn => format!("\x1b[{drawn}A\x1b[J"),
        };
        let text = lines.join("\n");
        let mut out = std::io::stdout().lock();
        // If the reader closed our output, it is not needed. The exit status still tells.
        let _ = writeln!(out, "{erase}{text}").and_then(|()| out.flush());
    }
}

fn colour(state: &str) -> Style {
    match state {
        "ready" => AnsiColor::Green.on_default(),
        "failing" => AnsiColor::Red.on_default(),
        GONE => Style::new().dimmed(),
        _ => AnsiColor::Yellow.on_default(),
    }
}
