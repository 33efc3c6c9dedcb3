//! Variables: writing and deleting them, and sending what uses them.

use std::sync::Arc;
use std::time::SystemTime;

use sd_core::{Error, ErrorKind, Printable, Result, brief};

use super::State;
use super::configs::{reason, unknown};
use crate::server::store::Change;
use crate::server::variables::MOST_NAME_BYTES;

const WRITE: &str = "config service: write a variable";
const DELETE: &str = "config service: delete a variable";

/// What configurations use by name: `_Var(name)` stands for its value.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    pub(crate) kind: VariableKind,
    pub(crate) value: String,
    pub(crate) description: String,
    pub(crate) written_at: SystemTime,
}

/// Whether the value of a variable is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableKind {
    /// It is.
    Text,
    /// It is sent to modules and shown to no operator.
    Secret,
}

impl VariableKind {
    /// As isp-config-service writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Secret => "SECRET",
        }
    }

    /// What is unknown is not shown.
    #[cfg(feature = "server-sqlite")]
    pub(crate) fn of(text: &str) -> Self {
        match text {
            "TEXT" => Self::Text,
            _ => Self::Secret,
        }
    }
}

impl Variable {
    /// A variable whose value is shown.
    pub fn text(value: impl Into<String>) -> Self {
        Self::new(VariableKind::Text, value.into())
    }

    /// A variable whose value is not.
    pub fn secret(value: impl Into<String>) -> Self {
        Self::new(VariableKind::Secret, value.into())
    }

    /// What it is for.
    #[must_use]
    pub fn described(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    pub(crate) fn new(kind: VariableKind, value: String) -> Self {
        Self {
            kind,
            value,
            description: String::new(),
            written_at: SystemTime::now(),
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> usize {
        name.len() + self.value.len() + self.description.len()
    }
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variable")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Writes a variable, and sends their configurations to the modules that use it. Whether these still fit their schemas is not looked at.
    ///
    /// # Errors
    /// `InvalidInput` if no configuration could name it, or a configuration would become too large. `Unavailable` if it cannot be kept.
    pub(crate) fn set_variable(&mut self, name: &str, variable: Variable) -> Result<()> {
        // JSON has control characters only as escapes.
        let is_impossible =
            |byte: char| matches!(byte, ')' | '"' | '\\') || byte.is_ascii_control();
        if name.is_empty() || name.len() > MOST_NAME_BYTES || name.contains(is_impossible) {
            return Err(Error::invalid_input(
                WRITE,
                "a name has 1 to 255 bytes, without brackets that close, quotes, backslashes and control characters",
            ));
        }
        let before = self.variables.get(name);
        if before.is_none() && self.variables.len() >= self.limits.variables {
            return Err(Error::new(ErrorKind::Unavailable, WRITE).because(format!(
                "there are {} variables already: delete some",
                self.variables.len()
            )));
        }
        let (bytes, freed) = (
            variable.bytes(name),
            before.map_or(0, |before| before.bytes(name)),
        );
        self.check_room(bytes, freed)?;
        for user in self.users(name) {
            let config = self.modules.get(&user).and_then(|one| one.stored.config());
            let Some(config) = config else {
                continue;
            };
            let rendered = self.render_with(config.data(), Some((name, &variable.value)));
            rendered.map_err(|error| {
                let (user, why) = (brief(Printable(&user)), reason(&error));
                Error::invalid_input(WRITE, format!("the configuration of {user}: {why}"))
            })?;
        }
        let name: Arc<str> = name.into();
        self.store.write(&Change::Variable {
            name: &name,
            variable: &variable,
        })?;
        self.stored_bytes = self.stored_bytes + bytes - freed;
        let before = self.variables.insert(Arc::clone(&name), variable);
        if before.is_none_or(|before| {
            Some(&before.value) != self.variables.get(&name).map(|now| &now.value)
        }) {
            for module in self.users(&name) {
                self.send_config(&module);
            }
        }
        Ok(())
    }

    /// Deletes a variable.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Conflict` if a configuration uses it, `Unavailable` if it cannot be removed.
    pub(crate) fn delete_variable(&mut self, name: &str) -> Result<()> {
        let variable = self
            .variables
            .get(name)
            .ok_or_else(|| unknown(DELETE, name))?;
        let freed = variable.bytes(name);
        if let [first, rest @ ..] = &*self.users(name) {
            let users = match rest.len() {
                0 => format!("the module {} uses it", brief(Printable(first))),
                1 => format!(
                    "the module {} and another one use it",
                    brief(Printable(first))
                ),
                more => format!(
                    "the module {} and {more} others use it",
                    brief(Printable(first))
                ),
            };
            return Err(Error::new(ErrorKind::Conflict, DELETE)
                .because(format!("{users}: change the configuration first")));
        }
        self.store.write(&Change::VariableGone { name })?;
        self.variables.remove(name);
        self.stored_bytes -= freed;
        Ok(())
    }

    /// The modules whose configuration uses a variable.
    pub(super) fn users(&self, name: &str) -> Vec<Arc<str>> {
        let uses = |module: &super::Module| {
            let config = module.stored.config();
            config.is_some_and(|config| config.uses.contains(name))
        };
        let modules = self.modules.iter().filter(|(_, module)| uses(module));
        modules.map(|(name, _)| Arc::clone(name)).collect()
    }
}
