//! `sdctl watch`: the instances of a service, then every change, until interrupted.

use sd_core::retry::Retry;
use sd_core::{Delta, State, Subscription};

use crate::failure::Failure;
use crate::output::changes::JsonChanges;
use crate::output::service_view::{COLUMNS, ServiceView, cells, summary};
use crate::output::table::Table;
use crate::output::time::now;
use crate::output::{Output, Style, reader_gone};
use crate::session::{Session, service_name};

/// Nothing needs to be undone here, so that the signals keep their default action.
pub(crate) async fn run(session: &Session, service: &str) -> Result<(), Failure> {
    let service = service_name(service)?;
    let what = format!("watch {service:?}");
    let failure = |error| session.failure(&what, &error);
    let subscription = session.registry.subscribe(&service).map_err(failure)?;
    tokio::select! {
        () = reader_gone() => Ok(()),
        done = follow(session, subscription, &what) => done,
    }
}

async fn follow(
    session: &Session,
    mut subscription: Subscription,
    what: &str,
) -> Result<(), Failure> {
    let (mut changes, mut json) = (Changes::default(), JsonChanges::default());
    let mut state = subscription.state_and_mark_seen();
    loop {
        let error = state.status().error();
        if let Some(error) = error.filter(|error| error.kind().retry() == Retry::Never) {
            return Err(session.failure(what, error));
        }
        // Until something was read, or could not be read, there is nothing to tell.
        if state.is_known() || error.is_some() {
            if session.output.is_json() {
                let clock = session.clock();
                let view = ServiceView::new(state.snapshot(), state.status(), clock);
                json.print(session.output, view)?;
            } else {
                changes.print(session.output, &state, &now())?;
            }
        }
        let next = subscription.changed().await;
        state = next.map_err(|error| session.failure(what, &error))?;
    }
}

/// Prints what a state changes about the one before.
#[derive(Debug, Default)]
struct Changes {
    table: Table,
    last: Option<State>,
}

/// One line for people.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Sentence(Style, String),
    Row(Style, Vec<String>),
}

impl Changes {
    fn print(&mut self, output: Output, state: &State, time: &str) -> Result<(), Failure> {
        for (style, line) in self.text(state, time) {
            output.styled(style, &line)?;
        }
        Ok(())
    }

    /// What is printed. The header comes before the first row, and again where the columns have become wider.
    fn text(&mut self, state: &State, time: &str) -> Vec<(Style, String)> {
        let lines = self.lines(state, time);
        let header = ["TIME", "CHANGE"].iter().chain(&COLUMNS);
        let header: Vec<_> = header.map(|&name| name.to_owned()).collect();
        let rows = lines.iter().filter_map(|line| match line {
            Line::Row(_, cells) => Some(cells),
            Line::Sentence(..) => None,
        });
        let mut wider = false;
        for cells in rows {
            wider |= self.table.make_room(&header);
            wider |= self.table.make_room(cells);
        }
        let mut text = Vec::new();
        for line in &lines {
            match line {
                Line::Sentence(style, sentence) => text.push((*style, sentence.clone())),
                Line::Row(style, cells) => {
                    if std::mem::take(&mut wider) {
                        text.push((Style::Header, self.table.row(&header)));
                    }
                    text.push((*style, self.table.row(cells)));
                }
            }
        }
        text
    }

    fn lines(&mut self, state: &State, time: &str) -> Vec<Line> {
        let last = self.last.replace(state.clone());
        let mut lines = Vec::new();
        let (status, error) = described(state);
        if last.as_ref().map(described) != Some((status, error.clone())) {
            let style = match status {
                "live" => Style::Good,
                _ => Style::Doubtful,
            };
            let text = match error {
                Some(error) => format!("{time}  {status}: {error}"),
                None => format!("{time}  {status}: {}", summary(state.snapshot())),
            };
            lines.push(Line::Sentence(style, text));
        }
        let row = |style, change: &str, instance: &_| {
            let mut row = vec![time.to_owned(), change.to_owned()];
            row.extend(cells(instance));
            Line::Row(style, row)
        };
        let nothing = || state.snapshot().clone().with_instances(Vec::new());
        let before = last
            .as_ref()
            .map_or_else(nothing, |last| last.snapshot().clone());
        let delta = Delta::between(&before, state.snapshot());
        let removed = delta.removed.iter();
        lines.extend(removed.map(|one| row(Style::Bad, "removed", one)));
        let added = delta.added.iter();
        lines.extend(added.map(|one| row(Style::Good, "added", one)));
        let moved = delta.readdressed.iter();
        lines.extend(moved.map(|change| row(Style::Plain, "moved", &change.to)));
        let retuned = delta.retuned.iter();
        lines.extend(retuned.map(|change| row(Style::Plain, "changed", &change.to)));
        let notes = |state: &State| {
            let snapshot = state.snapshot();
            let skipped = (snapshot.skipped().to_vec(), snapshot.skipped_count());
            (skipped, snapshot.held().to_vec())
        };
        if last.is_some_and(|last| notes(&last) != notes(state)) {
            let text = format!("{time}  {}", summary(state.snapshot()));
            lines.push(Line::Sentence(Style::Doubtful, text));
        }
        lines
    }
}

fn described(state: &State) -> (&'static str, Option<String>) {
    let error = state.status().error();
    let error = error.map(|error| error.report().to_string());
    (state.status().as_str(), error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::memory::Memory;
    use sd_core::{Instance, InstanceId};

    use super::*;

    /// What stands in the column CHANGE, with id and readiness.
    fn rows(lines: &[Line]) -> Vec<[&str; 3]> {
        let rows = lines.iter().filter_map(|line| match line {
            Line::Row(_, cells) => Some([cells[1].as_str(), &cells[2], &cells[4]]),
            Line::Sentence(..) => None,
        });
        rows.collect()
    }

    fn sentences(lines: &[Line]) -> usize {
        let sentences = lines
            .iter()
            .filter(|line| matches!(line, Line::Sentence(..)));
        sentences.count()
    }

    #[tokio::test(start_paused = true)]
    async fn each_change_is_a_row_and_the_status_is_said_once() {
        let registry = Memory::new().connect();
        let mut changes = Changes::default();
        let mut greeters = registry.subscribe("greeter").unwrap();
        let limit = Duration::from_secs(5);
        let state = greeters.wait_until_known(limit).await.unwrap();
        greeters.state_and_mark_seen();
        let empty = changes.lines(&state, "T");
        assert_eq!((rows(&empty).len(), sentences(&empty)), (0, 1), "{empty:?}");

        let instance = Instance::new("greeter", "h:1").unwrap();
        let instance = instance.with_id(InstanceId::new("g-1").unwrap());
        let guard = registry.register(instance).await.unwrap();
        let added = changes.lines(&greeters.changed().await.unwrap(), "T");
        assert_eq!(rows(&added), [["added", "g-1", "yes"]]);
        assert_eq!(sentences(&added), 0, "{added:?}");

        guard.set_ready(false).await.unwrap();
        let unready = changes.lines(&greeters.changed().await.unwrap(), "T");
        assert_eq!(rows(&unready), [["changed", "g-1", "no"]]);

        guard.deregister().await.unwrap();
        let removed = changes.lines(&greeters.changed().await.unwrap(), "T");
        assert_eq!(rows(&removed), [["removed", "g-1", "no"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn rows_stand_under_a_header_that_is_as_wide_as_they_are() {
        let registry = Memory::new().connect();
        let mut changes = Changes::default();
        let mut greeters = registry.subscribe("greeter").unwrap();
        let limit = Duration::from_secs(5);
        let state = greeters.wait_until_known(limit).await.unwrap();
        greeters.state_and_mark_seen();
        assert_eq!(changes.text(&state, "T").len(), 1);
        let mut guards = Vec::new();
        for (id, headers) in [("g-1", 1), ("g-2", 0), ("a-longer-id", 1), ("g-3", 0)] {
            let instance = Instance::new("greeter", format!("{id}:1")).unwrap();
            let instance = instance.with_id(InstanceId::new(id).unwrap());
            guards.push(registry.register(instance).await.unwrap());
            let text = changes.text(&greeters.changed().await.unwrap(), "T");
            let is_header = |line: &&(Style, String)| line.0 == Style::Header;
            assert_eq!(text.iter().filter(is_header).count(), headers, "{text:?}");
            if let [(_, header), (_, row)] = text.as_slice() {
                assert_eq!(header.find("ADDRESS"), row.find(&format!("{id}:1")));
            }
        }
    }
}
