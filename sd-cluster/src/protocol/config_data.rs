//! What a module tells of its configuration.

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::protocol::lenient::read_as_go;

/// The payload of `MODULE:SEND_CONFIG_SCHEMA`. Schema and configuration travel byte for byte, and are not shown: the default configuration
/// may hold secrets.
#[derive(Clone, Default, Serialize)]
pub(crate) struct ConfigData {
    pub(crate) version: String,
    pub(crate) schema: Option<Box<RawValue>>,
    /// The default configuration. The service keeps it if it has none.
    pub(crate) config: Option<Box<RawValue>>,
}

read_as_go!(ConfigData {
    "version" => version,
    "schema" => schema,
    "config" => config,
});

impl fmt::Debug for ConfigData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigData")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_configuration_travels_byte_for_byte_and_is_not_shown() {
        let default = r#"{ "b":1,  "a" : 9007199254740993, "é":"\u003c" }"#;
        let data = ConfigData {
            version: "1.2.3".to_owned(),
            schema: Some(RawValue::from_string("{\"type\": \"object\"}".to_owned()).unwrap()),
            config: Some(RawValue::from_string(default.to_owned()).unwrap()),
        };
        let json = serde_json::to_string(&data).unwrap();
        let expected =
            format!(r#"{{"version":"1.2.3","schema":{{"type": "object"}},"config":{default}}}"#);
        assert_eq!(json, expected);
        let read: ConfigData = serde_json::from_str(&json).unwrap();
        assert_eq!(read.config.unwrap().get(), default);
        assert!(!format!("{data:?}").contains("9007"));
        let none: ConfigData = serde_json::from_str(r#"{"version":"1","schema":null}"#).unwrap();
        assert!(none.schema.is_none() && none.config.is_none());
    }
}
