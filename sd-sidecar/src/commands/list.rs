//! `sdctl list`: the instances of a service, read once.

use sd_core::{Snapshot, Status};

use crate::cli::arguments::Wait;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Style;
use crate::output::service_view::{COLUMNS, ServiceView, cells, summary};
use crate::output::table::Table;
use crate::session::{Session, service_name};

pub(crate) async fn run(session: &Session, service: &str, wait: &Wait) -> Result<Exit, Failure> {
    let service = service_name(service)?;
    let what = format!("list {service:?}");
    let snapshot = session
        .ask(&what, wait, session.registry.list(&service))
        .await?;
    if session.output.is_json() {
        // An answer to our own question is as live as it gets.
        let view = ServiceView::new(&snapshot, &Status::Live, session.clock());
        session.output.json(&view)?;
    } else {
        print_table(session, &snapshot)?;
    }
    Ok(if snapshot.is_empty() {
        Exit::NotFound
    } else {
        Exit::Done
    })
}

fn print_table(session: &Session, snapshot: &Snapshot) -> Result<(), Failure> {
    let output = &session.output;
    let header = COLUMNS.map(str::to_owned);
    let rows: Vec<_> = snapshot.instances().iter().map(|one| cells(one)).collect();
    let mut table = Table::default();
    table.make_room(&header);
    for row in &rows {
        table.make_room(row);
    }
    output.line(&summary(snapshot))?;
    if !rows.is_empty() {
        output.styled(Style::Header, &table.row(&header))?;
    }
    for (row, instance) in rows.iter().zip(snapshot.instances()) {
        let style = if instance.is_ready() {
            Style::Plain
        } else {
            Style::Dim
        };
        output.styled(style, &table.row(row))?;
    }
    Ok(())
}
