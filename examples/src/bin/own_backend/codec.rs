//! Between an [`Instance`] and a file. Pure functions.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sd_backend::read_json;
use sd_core::{Error, Instance, InstanceId, Result, ServiceName};

/// A dot is encoded as well, so that no name is hidden or means a folder above.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
/// The longest name of a file.
const MOST_BYTES: usize = 255;

/// The folder of a service, or the file of an instance.
///
/// # Errors
/// `InvalidInput` if no file can have the name.
pub(crate) fn file_name(op: &'static str, name: &str) -> Result<String> {
    let written = utf8_percent_encode(name, ENCODED).to_string();
    if written.len() > MOST_BYTES {
        let why = format!("{name:?} is too long for the name of a file: use a shorter one");
        return Err(Error::invalid_input(op, why));
    }
    Ok(written)
}

/// The service of a folder. Another program may have made one that is of none.
pub(crate) fn service_of(folder: &str) -> Option<ServiceName> {
    let name = percent_decode_str(folder).decode_utf8().ok()?;
    ServiceName::new(&*name).ok()
}

pub(crate) fn encode(op: &'static str, instance: &Instance) -> Result<Vec<u8>> {
    serde_json::to_vec(instance).map_err(|error| Error::invalid_input(op, error.to_string()))
}

/// The instance that is stored. An error says why it cannot be understood.
pub(crate) fn decode(
    service: &ServiceName,
    file: &str,
    content: &[u8],
) -> Result<Instance, String> {
    let instance: Instance = read_json(content)?;
    let is_here = |id: &InstanceId| file_name("read", id.as_str()).is_ok_and(|name| name == file);
    if instance.service() != service || !is_here(instance.id()) {
        return Err("the file holds another instance than its name says".to_owned());
    }
    Ok(instance)
}
