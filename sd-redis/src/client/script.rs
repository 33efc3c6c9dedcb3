//! A script, and how it is asked for: by its hash, and with its text where the server does not know it.

use redis::Cmd;

/// What the server runs as a whole: nothing else happens there meanwhile.
#[derive(Debug)]
pub(crate) struct Script {
    text: String,
    hash: String,
}

/// How a request names its scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Short, for servers that were told the text before, and have not forgotten it.
    ByHash,
    WithText,
}

impl Script {
    pub(crate) fn new(text: String) -> Self {
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// The command that runs it.
    pub(crate) fn call(&self, named: Named, keys: &[&str], args: &[&[u8]]) -> Cmd {
        let mut cmd = match named {
            Named::ByHash => Cmd::new().arg("EVALSHA").arg(&self.hash).to_owned(),
            Named::WithText => Cmd::new().arg("EVAL").arg(&self.text).to_owned(),
        };
        cmd.arg(keys.len());
        for key in keys {
            cmd.arg(*key);
        }
        for arg in args {
            cmd.arg(*arg);
        }
        cmd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_named_by_the_hash_of_its_text_or_with_that() {
        let script = Script::new("return 1".to_owned());
        let packed = |named| {
            let cmd = script.call(named, &["k"], &[b"a", b"\xff"]);
            cmd.get_packed_command().escape_ascii().to_string()
        };
        let hash = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        let short = packed(Named::ByHash);
        assert!(
            short.contains(&format!("EVALSHA\\r\\n$40\\r\\n{hash}")),
            "{short}"
        );
        assert!(packed(Named::WithText).contains("return 1"));
        assert!(
            short.ends_with("$1\\r\\n1\\r\\n$1\\r\\nk\\r\\n$1\\r\\na\\r\\n$1\\r\\n\\xff\\r\\n"),
            "{short}"
        );
    }
}
