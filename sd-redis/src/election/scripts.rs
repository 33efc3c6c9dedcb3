//! The scripts that an election consists of. What a script does at the server happens as one.

use std::sync::LazyLock;

use crate::client::script::Script;

/// One for a candidate. A server that is short of memory carries it out nevertheless, unless it makes something new.
macro_rules! of_candidate {
    ($flags:literal, $file:literal) => {
        LazyLock::new(|| {
            let text = concat!(
                "#!lua",
                $flags,
                "\n",
                include_str!("scripts/queue.lua"),
                include_str!($file)
            );
            Script::new(text.to_owned())
        })
    };
}

macro_rules! that_reads {
    ($file:literal) => {
        LazyLock::new(|| {
            let text = concat!("#!lua flags=no-writes\n", include_str!($file));
            Script::new(text.to_owned())
        })
    };
}

pub(crate) static JOIN: LazyLock<Script> = of_candidate!("", "scripts/join.lua");
pub(crate) static LOOK: LazyLock<Script> = of_candidate!(" flags=allow-oom", "scripts/look.lua");
pub(crate) static CONFIRM: LazyLock<Script> =
    of_candidate!(" flags=allow-oom", "scripts/confirm.lua");
pub(crate) static PROCLAIM: LazyLock<Script> = of_candidate!("", "scripts/proclaim.lua");
pub(crate) static BEGIN_TERM: LazyLock<Script> =
    of_candidate!(" flags=allow-oom", "scripts/begin_term.lua");
pub(crate) static LEAVE: LazyLock<Script> = of_candidate!(" flags=allow-oom", "scripts/leave.lua");
pub(crate) static OBSERVE: LazyLock<Script> = that_reads!("scripts/observe.lua");
pub(crate) static READ_TERM: LazyLock<Script> = that_reads!("scripts/read_term.lua");
pub(crate) static ABOUT: LazyLock<Script> = that_reads!("scripts/about.lua");

/// What a guarded write of another program begins with.
pub(crate) const LEADS: &str = include_str!("scripts/leads.lua");
