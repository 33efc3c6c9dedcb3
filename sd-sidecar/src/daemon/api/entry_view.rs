//! A registration as `/v1` shows it.

use std::borrow::Cow;

use sd_core::{Incarnation, Instance, InstanceId, Override, ServiceName};
use serde::Serialize;

use crate::checks::Health;
use crate::daemon::registrations::Entry;
use crate::wire::{CheckKind, CheckSpec, Declaration, rfc3339};

/// The JSON form. Times are RFC 3339.
#[derive(Serialize)]
pub(super) struct EntryView<'a> {
    service: &'a ServiceName,
    id: &'a InstanceId,
    incarnation: Incarnation,
    /// `Init`, `Registered`, `Serving`, `Draining` or `Deregistered`.
    stage: &'static str,
    owner: &'a str,
    registered_at: String,
    updated_at: String,
    /// When it leaves, while it drains.
    drain_deadline: Option<String>,
    health: &'a Health,
    /// What an operator says of it.
    #[serde(rename = "override")]
    overridden: Option<Override>,
    /// Why the registry does not have it as it should.
    error: Option<&'a str>,
    /// The instance as its readers see it once the registry has it as it should.
    instance: Cow<'a, Instance>,
    /// What was asked for, with `ready` as its process has said since.
    declaration: Cow<'a, Declaration>,
}

impl<'a> EntryView<'a> {
    pub(super) fn new(entry: &'a Entry) -> Self {
        Self {
            service: &entry.record.service,
            id: &entry.record.id,
            incarnation: entry.record.incarnation,
            stage: entry.stage.as_str(),
            owner: &entry.owner.0,
            registered_at: rfc3339(entry.registered_at),
            updated_at: rfc3339(entry.updated_at),
            drain_deadline: entry.drain_deadline.map(rfc3339),
            health: &entry.health,
            overridden: entry.overridden,
            error: entry.error.as_deref(),
            instance: match entry.overridden {
                None => Cow::Borrowed(&entry.instance),
                said => Cow::Owned(entry.instance.as_ref().clone().with_override(said)),
            },
            declaration: Cow::Borrowed(&entry.declaration),
        }
    }

    /// What a reader sees who `sees_all`, or else no secrets of its owner.
    pub(super) fn for_reader(entry: &'a Entry, sees_all: bool) -> Self {
        let mut view = Self::new(entry);
        if !sees_all && entry.declaration.checks.iter().any(has_secrets) {
            view.declaration.to_mut().checks.iter_mut().for_each(hide);
        }
        view
    }
}

/// What stands for what only the owner sees.
const HIDDEN: &str = "(hidden)";

/// Whether arguments of a program or the query of a URL, where passwords may be, are part of a check.
fn has_secrets(check: &CheckSpec) -> bool {
    match &check.kind {
        CheckKind::Command { command } => command.len() > 1,
        CheckKind::Http { url } => url.as_ref().is_some_and(|url| url.contains('?')),
        _ => false,
    }
}

fn hide(check: &mut CheckSpec) {
    match &mut check.kind {
        CheckKind::Command { command } if command.len() > 1 => {
            command.truncate(1);
            command.push(HIDDEN.to_owned());
        }
        CheckKind::Http { url: Some(url) } => {
            if let Some(query) = url.find('?') {
                url.replace_range(query + 1.., HIDDEN);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_be_a_password_is_hidden_and_nothing_else() {
        for (kind, hidden) in [
            (json!({"kind": "command", "command": ["ping"]}), None),
            (
                json!({"kind": "command", "command": ["ping", "-p", "sesame"]}),
                Some(json!({"kind": "command", "command": ["ping", "(hidden)"]})),
            ),
            (json!({"kind": "http", "url": "/healthz"}), None),
            (
                json!({"kind": "http", "url": "http://h:1/p?token=sesame"}),
                Some(json!({"kind": "http", "url": "http://h:1/p?(hidden)"})),
            ),
            (json!({"kind": "tcp"}), None),
        ] {
            let check: CheckSpec = serde_json::from_value(kind.clone()).unwrap();
            assert_eq!(has_secrets(&check), hidden.is_some(), "{kind}");
            let mut shown = check;
            hide(&mut shown);
            let expected: CheckSpec = serde_json::from_value(hidden.unwrap_or(kind)).unwrap();
            assert_eq!(shown, expected);
        }
    }
}
