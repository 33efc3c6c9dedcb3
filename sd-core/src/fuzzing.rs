//! The reader of files, for `cargo xtask fuzz`.

use std::sync::Arc;

use crate::combine::document::Document;
use crate::{Instance, ServiceName, Skipped};

/// What a file says of one service: its instances, and what cannot be read.
pub type Service = (ServiceName, Vec<Arc<Instance>>, Vec<Skipped>);

/// The services that have an instance, as the file source reads them.
///
/// # Errors
/// What makes the whole file unreadable.
pub fn read_file(content: &[u8]) -> Result<Vec<Service>, String> {
    let document = Document::parse(content)?;
    let services = document.services().into_iter();
    let services = services.map(|service| {
        let entries = document.entries(&service);
        (service, entries.instances, entries.skipped)
    });
    Ok(services.collect())
}
