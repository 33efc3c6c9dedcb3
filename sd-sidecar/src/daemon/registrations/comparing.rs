//! Whether a declaration asks for something new.

use crate::wire::{Declaration, meta};

/// Metadata that names a run and says nothing of what it offers.
const OF_THE_RUN: [&str; 2] = [meta::APP_INSTANCE_ID, meta::RUN_DATE];

/// Whether two declarations ask for the same, whichever run of the application made them. Addresses are compared elsewhere: a port alone
/// and the address that it stands for are the same.
pub(crate) fn is_same(one: &Declaration, other: &Declaration) -> bool {
    let plain = |declaration: &Declaration| {
        let mut plain = declaration.clone();
        plain.address = None;
        plain.port = None;
        if let Some(app) = &mut plain.app {
            app.app_instance_id.clear();
        }
        for key in OF_THE_RUN {
            plain.metadata.remove(key);
        }
        plain
    };
    plain(one) == plain(other)
}

/// Whether `new` comes from another run than `old`. One that does not name its run may be another one.
pub(crate) fn is_new_run(old: &Declaration, new: &Declaration) -> bool {
    match (run(old), run(new)) {
        (Some(old), Some(new)) => old != new,
        _ => true,
    }
}

/// The run that declares, if it names itself.
pub(crate) fn run(declaration: &Declaration) -> Option<&str> {
    let app = declaration.app.as_ref()?;
    Some(app.app_instance_id.as_str()).filter(|run| !run.is_empty())
}
