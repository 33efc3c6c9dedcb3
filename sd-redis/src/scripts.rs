//! The scripts that change and read what is stored of a service. All that several clients could do at once is in them.

use std::sync::LazyLock;

use crate::client::script::Script;
use crate::codec::names::Keys;

/// Runs where the server has no memory left for writes: what is alive must not end because of that.
const ALLOW_OOM: &str = "#!lua flags=allow-oom\n";
const COMMON: &str = include_str!("scripts/common.lua");

/// Writes a record.
pub(crate) static PUT: LazyLock<Script> =
    LazyLock::new(|| of_service("", include_str!("scripts/put.lua")));
/// The same where the server has no memory left for writes: for a record that is as it is to be written, which takes none.
pub(crate) static PUT_AGAIN: LazyLock<Script> =
    LazyLock::new(|| of_service(ALLOW_OOM, include_str!("scripts/put.lua")));
/// Extends records.
pub(crate) static RENEW: LazyLock<Script> =
    LazyLock::new(|| of_service(ALLOW_OOM, include_str!("scripts/renew.lua")));
/// Marks a record as withdrawn.
pub(crate) static WITHDRAW: LazyLock<Script> =
    LazyLock::new(|| of_service(ALLOW_OOM, include_str!("scripts/withdraw.lua")));
/// Sets what an operator says of a record.
pub(crate) static OVERRIDE: LazyLock<Script> =
    LazyLock::new(|| of_service("", include_str!("scripts/override.lua")));
/// Says where a service is, and removes what has ended. Without flags, with which a server that refuses writes would refuse all of it.
pub(crate) static LOOK: LazyLock<Script> =
    LazyLock::new(|| of_service("", include_str!("scripts/look.lua")));
/// Says whether a service has a record.
pub(crate) static ALIVE: LazyLock<Script> =
    LazyLock::new(|| of_service("", include_str!("scripts/alive.lua")));
/// Writes, removes or sweeps heartbeats.
pub(crate) static HEARTBEAT: LazyLock<Script> =
    LazyLock::new(|| Script::new([ALLOW_OOM, include_str!("scripts/heartbeat.lua")].concat()));
/// Notes a service in the list.
pub(crate) static NOTE: LazyLock<Script> =
    LazyLock::new(|| Script::new([ALLOW_OOM, include_str!("scripts/note.lua")].concat()));

/// What every script of a service is told first. A history that it may begin gets this name.
pub(crate) fn args_of<'a>(keys: &'a Keys, history: &'a str) -> [&'a [u8]; 4] {
    let args = [&keys.channel, &keys.list_channel, &keys.listed_as, history];
    args.map(str::as_bytes)
}

/// A name for a history.
pub(crate) fn new_history() -> String {
    format!("{:016x}", fastrand::u64(..))
}

fn of_service(flags: &str, text: &str) -> Script {
    Script::new([flags, COMMON, text].concat())
}
