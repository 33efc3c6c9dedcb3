//! The configuration that the service keeps for a module: what is told of it, and what receives it.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use sd_backend::without_input;
use sd_core::sync::lock;
use sd_core::{Error, Printable, Result, brief, panics};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::module::overrides::Merging;
use crate::module::secret_words::hide_logins;
use crate::protocol::config_data::ConfigData;

/// How long a receiver may take for one configuration by default.
pub const DEFAULT_CONFIG_TIMEOUT: Duration = Duration::from_secs(5);

const OP: &str = "cluster: remote configuration";
/// How many causes of an error are shown.
const MOST_CAUSES: usize = 8;
/// The title that modules in Go give their schemas.
const TITLE: &str = "Remote config";

/// A configuration that came, and the one that was applied before.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received<T> {
    /// The new one, with what is overridden here.
    pub config: Arc<T>,
    /// The last one that was applied. `None` at first.
    pub previous: Option<Arc<T>>,
}

/// The configuration that the service keeps for a module: its schema, its default, and what receives it. A cheap clone.
///
/// ```
/// use schemars::JsonSchema;
/// use sd_cluster::{Received, RemoteConfig};
/// use serde::Deserialize;
///
/// #[derive(Debug, Deserialize, JsonSchema)]
/// struct Settings {
///     workers: u32,
/// }
///
/// let config = RemoteConfig::new(r#"{"workers": 4}"#, async |received: Received<Settings>| {
///     if received.config.workers == 0 {
///         return Err("workers: at least one is needed");
///     }
///     Ok(())
/// })?;
/// # Ok::<(), sd_core::Error>(())
/// ```
#[derive(Clone)]
pub struct RemoteConfig {
    schema: Box<RawValue>,
    default: Box<RawValue>,
    overrides: Option<(Value, Merging)>,
    timeout: Duration,
    receiver: Arc<dyn Receive>,
}

/// What receives configurations of one type.
#[async_trait]
trait Receive: Send + Sync {
    /// Reads the configuration and hands it over.
    ///
    /// # Errors
    /// Why it was not applied.
    async fn receive(&self, json: &[u8]) -> Result<(), String>;
}

struct Typed<T, F> {
    handle: F,
    previous: Mutex<Option<Arc<T>>>,
    of: PhantomData<fn() -> T>,
}

#[async_trait]
impl<T, F, R, E> Receive for Typed<T, F>
where
    T: DeserializeOwned + Send + Sync + 'static,
    F: Fn(Received<T>) -> R + Send + Sync,
    R: Future<Output = Result<(), E>> + Send,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    async fn receive(&self, json: &[u8]) -> Result<(), String> {
        let config = Arc::new(read::<T>(json)?);
        let previous = lock(&self.previous).clone();
        let received = Received {
            config: Arc::clone(&config),
            previous,
        };
        // A panic is this module's error, and ends nothing else.
        let handling = async { Ok((self.handle)(received).await.map_err(Into::into)) };
        match panics::caught(OP, handling).await {
            Ok(Ok(())) => {
                *lock(&self.previous) = Some(config);
                Ok(())
            }
            Ok(Err(error)) => {
                let error = hide_logins(&with_causes(error.as_ref()));
                Err(brief(Printable(&error)))
            }
            Err(panicked) => Err(hide_logins(&panicked.report().to_string())),
        }
    }
}

/// An error with what caused it.
fn with_causes(error: &dyn StdError) -> String {
    let mut all = error.to_string();
    let mut cause = error.source();
    for _ in 0..MOST_CAUSES {
        let Some(error) = cause else {
            break;
        };
        all.push_str(": ");
        all.push_str(&error.to_string());
        cause = error.source();
    }
    all
}

/// Reads a configuration. The reason why it cannot be read names the field and the rule, and repeats no value: any may be a secret.
fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    let reader = &mut serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        let why = without_input(&error.into_inner().to_string());
        let path = if path == "." { "it" } else { path.as_str() };
        brief(format_args!("{}: {}", Printable(path), Printable(&why)))
    })
}

impl RemoteConfig {
    /// A configuration of the type `T`. The service gets the schema of `T`, and `default`, byte for byte, which it keeps if it has none for
    /// the module. `receive` is called for each configuration but those that come again as they were applied last, one at a
    /// time. When it fails, takes too long or panics, the configuration counts as rejected, and the one before as the last that was
    /// applied. Its error is shown in health and logs, with the errors that caused it, and without the user and the password of URLs: put
    /// no other secret into it.
    ///
    /// # Errors
    /// `InvalidInput` if `default` is no JSON object, or is none of a `T`.
    pub fn new<T, R, E>(
        default: impl Into<String>,
        receive: impl Fn(Received<T>) -> R + Send + Sync + 'static,
    ) -> Result<Self>
    where
        T: DeserializeOwned + JsonSchema + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let refused = |why: &str| Error::invalid_input(OP, format!("the default: {why}"));
        let default = default.into();
        if !default.trim_start().starts_with('{') {
            return Err(refused("it must be a JSON object, for instance {}"));
        }
        read::<T>(default.as_bytes()).map_err(|why| refused(&why))?;
        let default = RawValue::from_string(default);
        Ok(Self {
            schema: schema_of::<T>()?,
            default: default.map_err(|_| refused("it cannot be read"))?,
            overrides: None,
            timeout: DEFAULT_CONFIG_TIMEOUT,
            receiver: Arc::new(Typed {
                handle: receive,
                previous: Mutex::new(None),
                of: PhantomData,
            }),
        })
    }

    /// Sets local values in place of those that the service keeps: a JSON object. Objects are merged, and everything else replaces, also
    /// lists and `null`. The service does not see them. Default: none.
    ///
    /// # Errors
    /// `InvalidInput` if it is no JSON object. Nothing of it is repeated.
    pub fn with_overrides(self, json: &str) -> Result<Self> {
        self.overridden(json, Merging::Replacing)
    }

    /// As [`with_overrides`](Self::with_overrides), but merges as isp-kit does with `remoteConfigOverride`: lists item by item, so that
    /// `[9]` makes `[9,2]` of `[1,2]`. An empty list or object changes nothing, and a scalar of the service stays where the local value
    /// is an object or a list. For values that were written for a module in Go.
    ///
    /// # Errors
    /// As [`with_overrides`](Self::with_overrides).
    pub fn with_overrides_as_in_go(self, json: &str) -> Result<Self> {
        self.overridden(json, Merging::AsGo)
    }

    fn overridden(mut self, json: &str, merging: Merging) -> Result<Self> {
        let overrides: Option<Value> = serde_json::from_str(json).ok();
        let overrides = overrides.filter(Value::is_object);
        if overrides.is_none() {
            let why = "the overrides must be a JSON object, for instance {}";
            return Err(Error::invalid_input(OP, why));
        }
        self.overrides = overrides.map(|overrides| (overrides, merging));
        Ok(self)
    }

    /// Sets another schema, as JSON, byte for byte. Default: that of the type, with the title `Remote config`.
    ///
    /// # Errors
    /// `InvalidInput` if it is no JSON.
    pub fn with_schema(mut self, json: impl Into<String>) -> Result<Self> {
        self.schema = RawValue::from_string(json.into())
            .map_err(|_| Error::invalid_input(OP, "the schema is no JSON"))?;
        Ok(self)
    }

    /// Limits how long the receiver may take for one configuration. Its future is dropped then. Default: [`DEFAULT_CONFIG_TIMEOUT`].
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The schema, as it is sent.
    pub fn schema(&self) -> &str {
        self.schema.get()
    }

    /// What the service is told.
    pub(crate) fn data(&self, version: &str) -> ConfigData {
        ConfigData {
            version: version.to_owned(),
            schema: Some(self.schema.clone()),
            config: Some(self.default.clone()),
        }
    }

    /// Hands a configuration over, with what is overridden. Cancel-safe: a dropped call drops what the receiver does.
    ///
    /// # Errors
    /// Why it was not applied, without any value of it.
    pub(crate) async fn apply(&self, json: &[u8]) -> Result<(), String> {
        let merged = match &self.overrides {
            None => None,
            Some((overrides, merging)) => {
                let mut value: Value = read(json)?;
                if !value.is_object() {
                    return Err("it is no JSON object".to_owned());
                }
                merging.merge(&mut value, overrides);
                Some(value.to_string())
            }
        };
        let json = merged.as_ref().map_or(json, String::as_bytes);
        match timeout(self.timeout, self.receiver.receive(json)).await {
            Ok(received) => received,
            Err(_) => Err(format!("it was not applied within {:?}", self.timeout)),
        }
    }
}

/// The schema of a type, without references: some readers of schemas do not follow them.
fn schema_of<T: JsonSchema>() -> Result<Box<RawValue>> {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), TITLE.into());
    serde_json::value::to_raw_value(&schema).map_err(|error| {
        Error::invalid_input(OP, "the schema cannot be written").with_source(error)
    })
}

/// Shows neither the default nor the overrides: they may hold secrets.
impl fmt::Debug for RemoteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteConfig")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        workers: u32,
        #[serde(default)]
        database: Database,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    struct Database {
        password: Option<String>,
    }

    type Log = Arc<Mutex<Vec<(u32, Option<u32>)>>>;

    /// Refuses 0, panics at 13, takes for ever at 99.
    fn logging(log: &Log) -> RemoteConfig {
        let log = Arc::clone(log);
        RemoteConfig::new(
            r#"{ "workers" : 4 }"#,
            move |received: Received<Settings>| {
                let log = Arc::clone(&log);
                async move {
                    let previous = received.previous.map(|previous| previous.workers);
                    let workers = received.config.workers;
                    assert_eq!(received.config.database.password, None);
                    match workers {
                        0 => return Err("workers: at least one\n"),
                        13 => panic!("unlucky"),
                        99 => std::future::pending().await,
                        _ => {}
                    }
                    lock(&log).push((workers, previous));
                    Ok(())
                }
            },
        )
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_gets_the_new_and_the_last_that_was_applied() {
        let log = Log::default();
        let config = logging(&log);
        let apply = async |workers: u32| {
            let json = format!(r#"{{"workers":{workers}}}"#);
            config.apply(json.as_bytes()).await
        };
        apply(1).await.unwrap();
        assert_eq!(apply(0).await.unwrap_err(), "workers: at least one\\n");
        assert!(apply(13).await.unwrap_err().contains("panicked: unlucky"));
        let before = tokio::time::Instant::now();
        assert!(apply(99).await.unwrap_err().contains("within 5s"));
        assert_eq!(before.elapsed(), DEFAULT_CONFIG_TIMEOUT);
        apply(2).await.unwrap();
        assert_eq!(*lock(&log), [(1, None), (2, Some(1))]);
    }

    #[tokio::test]
    async fn a_configuration_that_cannot_be_read_is_rejected_without_its_values() {
        let config = logging(&Log::default());
        for (json, why) in [
            (r#"{"workers":"hunter2"}"#, "workers: invalid type"),
            (
                r#"{"workers":1,"database":{"password":77}}"#,
                "database.password: invalid type",
            ),
            (r#"{"workers":1,"hunter2":1}"#, "unknown field"),
            ("hunter2", "it: "),
            ("{}", "missing field `workers`"),
        ] {
            let reason = config.apply(json.as_bytes()).await.unwrap_err();
            assert!(reason.contains(why), "{reason}");
            assert!(
                !reason.contains("hunter2") || json.contains(r#""hunter2":1"#),
                "{reason}"
            );
        }
    }

    #[tokio::test]
    async fn local_values_replace_those_of_the_service_and_are_not_sent() {
        let log = Log::default();
        let config = logging(&log).with_overrides(r#"{"workers":7}"#).unwrap();
        config.apply(br#"{"workers":1}"#).await.unwrap();
        assert_eq!(*lock(&log), [(7, None)]);
        let sent = serde_json::to_string(&config.data("1")).unwrap();
        assert!(sent.contains(r#""config":{ "workers" : 4 }"#), "{sent}");
        assert!(config.apply(b"[]").await.is_err());
        // The one before is as it was handed over.
        config
            .apply(br#"{"workers":2,"database":{}}"#)
            .await
            .unwrap();
        assert_eq!(*lock(&log), [(7, None), (7, Some(7))]);
        let as_in_go = r#"{"workers":{"a":1}}"#;
        let config = logging(&log).with_overrides_as_in_go(as_in_go).unwrap();
        config.apply(br#"{"workers":1}"#).await.unwrap();
        assert_eq!(lock(&log).last(), Some(&(1, None)));
        for json in ["7", "hunter2", "[]"] {
            let error = logging(&log).with_overrides(json).unwrap_err();
            assert!(!error.report().to_string().contains("hunter2"));
        }
    }

    #[test]
    fn the_schema_is_that_of_the_type_without_references() {
        let config = logging(&Log::default());
        let schema: Value = serde_json::from_str(config.schema()).unwrap();
        assert_eq!(schema["title"], TITLE);
        assert_eq!(schema["type"], "object");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["required"], serde_json::json!(["workers"]));
        assert!(schema["properties"]["database"]["properties"]["password"].is_object());
        assert!(schema.get("$schema").is_none() && !config.schema().contains("$ref"));
        let other = config.with_schema(r#"{ "type":"object" }"#).unwrap();
        assert_eq!(other.schema(), r#"{ "type":"object" }"#);
        assert!(other.with_schema("{").is_err());
    }

    #[test]
    fn a_default_that_is_none_of_the_type_is_refused_and_not_shown() {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        for default in ["null", "[]", "hunter2", r#"{"workers":"hunter2"}"#, "{}"] {
            let refused = RemoteConfig::new(default, async |_: Received<Settings>| {
                CALLS.fetch_add(1, Ordering::Relaxed);
                Ok::<(), String>(())
            });
            let report = refused.unwrap_err().report().to_string();
            assert!(report.contains("the default: "), "{report}");
            assert!(!report.contains("hunter2"), "{report}");
        }
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
        let shown = format!("{:?}", logging(&Log::default()));
        assert!(!shown.contains("workers"), "{shown}");
    }
}
