//! `sdctl services`: the names of all services.

use sd_core::ServiceName;
use serde::Serialize;

use crate::cli::Wait;
use crate::failure::Failure;
use crate::session::Session;

#[derive(Serialize)]
struct Services<'a> {
    services: &'a [ServiceName],
}

pub(crate) async fn run(session: &Session, wait: &Wait) -> Result<(), Failure> {
    let services = session
        .ask("list the services", wait, session.registry.services())
        .await?;
    if session.output.is_json() {
        return session.output.json(&Services {
            services: &services,
        });
    }
    for service in &services {
        session.output.line(service.as_str())?;
    }
    Ok(())
}
