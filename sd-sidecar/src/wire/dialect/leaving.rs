//! `POST /drain` and `POST /deregister`.

use std::time::Duration;

use super::{BadBody, port};
use crate::wire::AppInstance;
use crate::wire::go_duration::parse_duration;
use crate::wire::go_json::{decode, go_struct};

/// How long a drain lasts that does not say so.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(20);

go_struct! {
    /// All that any generation sends.
    struct Body {
        app_id: String,
        app_instance_id: String,
        service_name: String,
        service_port: i64,
        name: String,
        port: i64,
        grace_period: String,
    }
}

/// Which registrations a body means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those of one run of an application, where a service or a port narrows them.
    App {
        /// The run.
        app: AppInstance,
        /// Only this service.
        service: Option<String>,
        /// Only at this port.
        port: Option<u16>,
    },
    /// That of a service at a port of this host.
    Port {
        /// The service.
        service: String,
        /// The port.
        port: u16,
    },
}

/// A body of `POST /drain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// What is to be drained.
    pub target: Target,
    /// For how long.
    pub grace: Duration,
}

/// A body of `POST /deregister`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deregister {
    /// What is to be deregistered.
    pub target: Target,
}

impl Drain {
    /// Reads a body of any generation. A grace period that is blank or absent is [`DEFAULT_GRACE`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Self, BadBody> {
        let body: Body = decode(body)?;
        let grace = match body.grace_period.trim() {
            "" => DEFAULT_GRACE,
            text => parse_duration(text).map_err(BadBody::new)?,
        };
        let target = target(body)?;
        if grace.is_zero() {
            return Err(BadBody::new("grace_period must be greater than zero"));
        }
        Ok(Self { target, grace })
    }
}

impl Deregister {
    /// Reads a body of any generation.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Self, BadBody> {
        let target = target(decode(body)?)?;
        Ok(Self { target })
    }
}

fn target(body: Body) -> Result<Target, BadBody> {
    let is_blank = |text: &str| text.trim().is_empty();
    let nested = !is_blank(&body.service_name);
    let service = if nested { body.service_name } else { body.name };
    let number = match body.service_port {
        0 => body.port,
        number => number,
    };
    if is_blank(&body.app_id) || is_blank(&body.app_instance_id) {
        if is_blank(&service) {
            return Err(BadBody::required("name"));
        }
        let port = port(number)?;
        return Ok(Target::Port { service, port });
    }
    Ok(Target::App {
        app: AppInstance {
            app_id: body.app_id,
            app_instance_id: body.app_instance_id,
        },
        service: Some(service).filter(|service| !is_blank(service)),
        port: match number {
            0 => None,
            number => Some(port(number)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(service: Option<&str>, port: Option<u16>) -> Target {
        Target::App {
            app: AppInstance {
                app_id: "a-1".into(),
                app_instance_id: "run".into(),
            },
            service: service.map(Into::into),
            port,
        }
    }

    #[test]
    fn each_generation_says_in_its_way_what_leaves() {
        let ids = r#""app_id":"a-1","app_instance_id":"run""#;
        for (body, target) in [
            (
                r#"{"name":"auth","port":9090}"#.to_owned(),
                Target::Port {
                    service: "auth".into(),
                    port: 9090,
                },
            ),
            (
                format!(r#"{{{ids},"service_name":"auth","service_port":9090}}"#),
                app(Some("auth"), Some(9090)),
            ),
            (
                format!(r#"{{{ids},"service_name":"auth"}}"#),
                app(Some("auth"), None),
            ),
            (format!("{{{ids}}}"), app(None, None)),
            (
                format!(r#"{{{ids},"name":"auth","port":9090}}"#),
                app(Some("auth"), Some(9090)),
            ),
            (
                r#"{"app_id":" ","app_instance_id":"run","service_name":"auth","service_port":1}"#
                    .to_owned(),
                Target::Port {
                    service: "auth".into(),
                    port: 1,
                },
            ),
        ] {
            let read = Deregister::parse(body.as_bytes()).unwrap();
            assert_eq!(read.target, target, "{body}");
            let read = Drain::parse(body.as_bytes()).unwrap();
            assert_eq!((read.target, read.grace), (target, DEFAULT_GRACE), "{body}");
        }
    }

    #[test]
    fn a_grace_period_is_gos_text() {
        let drain = |grace: &str| {
            Drain::parse(format!(r#"{{"name":"auth","port":1,"grace_period":{grace}}}"#).as_bytes())
                .map(|drain| drain.grace)
                .map_err(|error| error.to_string())
        };
        assert_eq!(drain(r#""1m30s""#), Ok(Duration::from_secs(90)));
        assert_eq!(drain(r#"" ""#), Ok(DEFAULT_GRACE));
        assert_eq!(drain("null"), Ok(DEFAULT_GRACE));
        for none in [r#""0s""#, r#""0""#, r#""-3s""#] {
            let error = drain(none).unwrap_err();
            assert_eq!(error, "grace_period must be greater than zero");
        }
        assert_eq!(
            drain(r#""soon""#).unwrap_err(),
            r#"time: invalid duration "soon""#
        );
        let error = drain("20").unwrap_err();
        assert!(
            error.starts_with("grace_period: invalid type: integer `20`"),
            "{error}"
        );
    }

    #[test]
    fn a_body_that_means_nothing_is_refused() {
        for (body, error) in [
            ("{}", "name is required"),
            (r#"{"name":"auth"}"#, "port is invalid: 0"),
            (r#"{"name":"auth","port":65536}"#, "port is invalid: 65536"),
            (r#"{"name":"auth","port":-1}"#, "port is invalid: -1"),
            (
                r#"{"app_id":"a","app_instance_id":"r","service_port":70000}"#,
                "port is invalid: 70000",
            ),
        ] {
            assert_eq!(
                Deregister::parse(body.as_bytes()).unwrap_err().to_string(),
                error
            );
            assert_eq!(
                Drain::parse(body.as_bytes()).unwrap_err().to_string(),
                error
            );
        }
    }
}
