//! Configurations and schemas: what modules send, what operators write, and sending it to modules.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use sd_core::{Error, ErrorKind, Printable, Result, brief};
use serde_json::value::RawValue;

use super::{
    CONFIG_CHANGED, CONFIG_WHEN_CONNECTED, MOST_DATA_BYTES, Module, Schema, SessionId, State,
    StoredConfig, VariableKind, ended,
};
use crate::etp::message::Message;
use crate::protocol::config_data::ConfigData;
use crate::server::schema::{self, Unfit};
use crate::server::store::Change;
use crate::server::variables::{Unusable, render, used};

/// Who writes a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// The module itself: its default.
    Module,
    /// An operator, whose configuration is checked against the module's schema.
    Operator,
    /// An operator who knows better than the schema.
    OperatorByForce,
}

const WRITE: &str = "config service: write a configuration";
const NOTHING: &str = "{}";

impl State {
    /// `MODULE:SEND_CONFIG_SCHEMA`. The module gets its configuration, now and whenever it changes.
    ///
    /// # Errors
    /// What is not sent, or not kept, and why.
    pub(crate) fn introduce(&mut self, id: SessionId, sent: &ConfigData) -> Result<(), String> {
        let name = Arc::clone(&self.sessions.get(&id).ok_or_else(ended)?.module);
        let stored = self
            .modules
            .get(&name)
            .and_then(|module| module.stored.config());
        if stored.is_none() {
            // A module without a default gets an object, which is what its receiver reads.
            let default = sent.config.as_deref().map_or(NOTHING, RawValue::get);
            let default = if default == "null" { NOTHING } else { default };
            let undefined = self.undefined(default);
            if !undefined.is_empty() {
                let names = brief(Printable(&undefined.join(",")));
                return Err(format!("missing variables in initial config: [{names}]"));
            }
            self.write_config(&name, default, Author::Module)
                .map_err(|error| format!("create initial config: {}", reason(&error)))?;
        }
        let message = if let Some(made) = self.rendered.get(&name) {
            made
        } else {
            let made = self.event(&name, CONFIG_WHEN_CONNECTED);
            let made = made.map_err(|error| format!("render config: {}", reason(&error)))?;
            self.rendered.keep(Arc::clone(&name), made.clone());
            made
        };
        let session = self.sessions.get(&id).ok_or_else(ended)?;
        session
            .outbox
            .event(&self.names.config_when_connected, message);
        if let Some(module) = self.modules.get_mut(&name) {
            module.receivers.insert(id);
        }
        self.write_schema(&name, sent)
            .map_err(|error| format!("upsert config schema in store: {}", reason(&error)))
    }

    /// Writes a module's configuration, and sends it to the module.
    ///
    /// # Errors
    /// `InvalidInput` if it is no JSON, too large, uses what is not defined, or does not fit the schema, and if no module can have this
    /// name. `Conflict` if the newest version is not `expected`. `Unavailable` if it cannot be kept.
    pub(crate) fn set_config(
        &mut self,
        name: &str,
        data: &str,
        expected: Option<u32>,
        author: Author,
    ) -> Result<u32> {
        let module = self.modules.get(name);
        let current = module.and_then(|module| module.stored.config());
        let version = current.map_or(0, StoredConfig::version);
        if expected.is_some_and(|expected| expected != version) {
            return Err(Error::new(ErrorKind::Conflict, WRITE).because(format!(
                "the newest version is {version}: read it, and change that one"
            )));
        }
        if current.is_some_and(|current| current.data() == data) {
            return Ok(version);
        }
        if module.is_none() {
            self.check_new(name)
                .map_err(|why| Error::invalid_input(WRITE, why))?;
        }
        let version = self.write_config(name, data, author)?;
        self.send_config(name);
        Ok(version)
    }

    /// Sends a module its configuration again.
    ///
    /// # Errors
    /// `NotFound` if there is no such module, or it has none.
    pub(crate) fn resend_config(&mut self, name: &str) -> Result<()> {
        const OP: &str = "config service: send a configuration";
        let module = self.modules.get(name).ok_or_else(|| unknown(OP, name))?;
        module.stored.config().ok_or_else(|| unknown(OP, name))?;
        self.try_send_config(name)
    }

    /// The versions of a module's configuration, the newest first.
    ///
    /// # Errors
    /// `NotFound` if there is no such module.
    pub(crate) fn configs(&self, name: &str) -> Result<Vec<StoredConfig>> {
        const OP: &str = "config service: read a configuration";
        let module = self.modules.get(name).ok_or_else(|| unknown(OP, name))?;
        Ok(module.stored.configs.iter().rev().cloned().collect())
    }

    /// Forgets a module.
    ///
    /// # Errors
    /// `NotFound` if there is no such module, `Conflict` if it is connected, `Unavailable` if it cannot be removed.
    pub(crate) fn delete_module(&mut self, name: &str) -> Result<()> {
        const OP: &str = "config service: delete a module";
        let module = self.modules.get(name).ok_or_else(|| unknown(OP, name))?;
        if !module.sessions.is_empty() {
            return Err(Error::new(ErrorKind::Conflict, OP)
                .because("it is connected, and would be there again: stop it first"));
        }
        self.store.write(&Change::ModuleGone { module: name })?;
        if let Some((name, module)) = self.modules.remove_entry(name) {
            self.stored_bytes -= module.stored.bytes();
            // Those that were listed before a restart, and are not back.
            for place in module.backends {
                self.remove_backend(&name, place);
            }
        }
        Ok(())
    }

    /// Sends a module's configuration to all that get it, one rendering for all.
    pub(super) fn send_config(&mut self, name: &str) {
        self.rendered.remove(name);
        // What is written was rendered before.
        if let Err(error) = self.try_send_config(name) {
            let (module, error) = (brief(Printable(name)), error.report());
            tracing::error!(%module, %error, "a configuration cannot be sent");
        }
    }

    /// As [`send_config`](Self::send_config).
    ///
    /// # Errors
    /// Why nothing was sent.
    fn try_send_config(&self, name: &str) -> Result<()> {
        let Some(module) = self.modules.get(name) else {
            return Ok(());
        };
        let message = self.event(name, CONFIG_CHANGED)?;
        for receiver in &module.receivers {
            if let Some(session) = self.sessions.get(receiver) {
                let name = &self.names.config_changed;
                session.outbox.event(name, message.clone());
            }
        }
        Ok(())
    }

    /// The event with a module's configuration.
    fn event(&self, name: &str, event: &'static str) -> Result<Bytes> {
        let config = self.modules.get(name).and_then(|one| one.stored.config());
        let config = config.ok_or_else(|| unknown(WRITE, name))?;
        let rendered = self.render(config.data())?;
        Ok(Message::event(event, rendered.into_owned()).encode())
    }

    fn render<'a>(&'a self, config: &'a str) -> Result<Cow<'a, str>> {
        self.render_with(config, None)
    }

    /// Renders a configuration as it will be when a variable has another value.
    pub(super) fn render_with<'a>(
        &'a self,
        config: &'a str,
        changed: Option<(&'a str, &'a str)>,
    ) -> Result<Cow<'a, str>> {
        let value = |name: &str| match changed {
            Some((changed, value)) if changed == name => Some(value),
            _ => Some(&*self.variables.get(name)?.value),
        };
        render(config, MOST_DATA_BYTES, value).map_err(|unusable| match unusable {
            Unusable::Undefined(names) => {
                let names: Vec<String> = names.into_iter().collect();
                let names = brief(Printable(&names.join(", ")));
                Error::invalid_input(WRITE, format!("undefined variables: [{names}]"))
            }
            Unusable::TooLarge(most) => too_large(most),
        })
    }

    /// The variables that a configuration uses and that are not defined.
    fn undefined(&self, config: &str) -> Vec<String> {
        let used = used(config).into_iter();
        used.filter(|name| !self.variables.contains_key(&**name))
            .collect()
    }

    /// Adds a version. Nothing is sent.
    fn write_config(&mut self, name: &str, data: &str, author: Author) -> Result<u32> {
        if data.len() > MOST_DATA_BYTES {
            return Err(too_large(MOST_DATA_BYTES));
        }
        if let Err(error) = serde_json::from_str::<&RawValue>(data) {
            // The text of serde's error names a place and no data.
            return Err(Error::invalid_input(
                WRITE,
                format!("it is no JSON: {error}"),
            ));
        }
        let rendered = self.render(data)?;
        if author == Author::Operator {
            self.check_schema(name, data, &rendered)?;
        }
        let none = VecDeque::new();
        let module = self.modules.get(name);
        let configs = module.map_or(&none, |module| &module.stored.configs);
        let newest = configs.back().map_or(0, StoredConfig::version);
        let version = newest.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, WRITE).because(format!(
                "there is no version after {newest}: delete the module, and write its configuration again"
            ))
        })?;
        let config = StoredConfig::new(version, data, SystemTime::now());
        let gone = (configs.len() + 1).saturating_sub(self.limits.versions.max(1));
        let freed = configs.iter().take(gone).map(|config| config.data().len());
        let freed: usize = freed.sum();
        let oldest = configs.get(gone).map_or(version, StoredConfig::version);
        self.check_room(data.len(), freed)?;
        self.store.write(&Change::Config {
            module: name,
            config: &config,
            oldest,
            is_by_operator: author != Author::Module,
        })?;
        self.stored_bytes = self.stored_bytes + data.len() - freed;
        let Module { stored, .. } = self.modules.entry(name.into()).or_default();
        stored.configs.drain(..gone.min(stored.configs.len()));
        stored.configs.push_back(config);
        Ok(version)
    }

    /// Checks a configuration with the values of its variables against the schema that the module has sent, if it has.
    fn check_schema(&self, name: &str, data: &str, rendered: &str) -> Result<()> {
        let module = self.modules.get(name);
        let Some(schema) = module.and_then(|module| module.stored.schema.as_ref()) else {
            return Ok(());
        };
        schema::check(&schema.data, rendered).map_err(|unfit| {
            let unfit = match unfit {
                Unfit::Breaks { path, rule } if self.holds_secret(data, &path) => Unfit::Breaks {
                    path: "a field whose name holds a secret".to_owned(),
                    rule,
                },
                unfit => unfit,
            };
            let version = brief(Printable(&schema.version));
            Error::invalid_input(
                WRITE,
                format!(
                    "{unfit} (of version {version} of the module): mend it, or write it with force"
                ),
            )
        })
    }

    /// Whether the value of a secret variable that the configuration `data` uses is in a text.
    fn holds_secret(&self, data: &str, text: &str) -> bool {
        used(data).iter().any(|name| {
            self.variables.get(&**name).is_some_and(|variable| {
                variable.kind == VariableKind::Secret
                    && !variable.value.is_empty()
                    && text.contains(&*variable.value)
            })
        })
    }

    fn write_schema(&mut self, name: &str, sent: &ConfigData) -> Result<()> {
        let data = sent.schema.as_deref().map_or("null", RawValue::get);
        let module = self.modules.get(name).ok_or_else(|| unknown(WRITE, name))?;
        let before = module.stored.schema.as_ref();
        // A module sends it whenever it connects.
        if before.is_some_and(|before| before.version == sent.version && &*before.data == data) {
            return Ok(());
        }
        let freed = before.map_or(0, Schema::bytes);
        let schema = Schema {
            version: sent.version.clone(),
            data: data.into(),
            written_at: SystemTime::now(),
        };
        let bytes = schema.bytes();
        self.check_room(bytes, freed)?;
        self.store.write(&Change::Schema {
            module: name,
            schema: &schema,
        })?;
        self.stored_bytes = self.stored_bytes + bytes - freed;
        if let Some(module) = self.modules.get_mut(name) {
            module.stored.schema = Some(schema);
        }
        Ok(())
    }

    /// `Unavailable` if there is no room for `bytes` when `freed` are gone.
    pub(super) fn check_room(&self, bytes: usize, freed: usize) -> Result<()> {
        let most = self.limits.stored_bytes;
        if self.stored_bytes.saturating_sub(freed) + bytes <= most {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, WRITE).because(format!(
            "the service keeps no more than {most} bytes: delete modules that are gone"
        )))
    }
}

fn too_large(most: usize) -> Error {
    Error::invalid_input(WRITE, format!("it has more than {most} bytes"))
}

pub(super) fn unknown(op: &'static str, name: &str) -> Error {
    Error::new(ErrorKind::NotFound, op)
        .because(format!("there is no {} here", brief(Printable(name))))
}

/// Why, without what was done: the answer says that.
pub(super) fn reason(error: &Error) -> String {
    use std::error::Error as _;
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}
