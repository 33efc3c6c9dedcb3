//! Which of several agents did not answer.

use std::error::Error as StdError;
use std::fmt;

use reqwest::Url;
use sd_core::Error;

/// The address of an agent, before what went wrong there.
#[derive(Debug)]
struct At {
    address: String,
    error: Error,
}

/// The same error, with the host and port that were asked. Nothing else of the URL is told.
pub(crate) fn at(url: Option<&Url>, error: Error) -> Error {
    let Some((url, host)) = url.and_then(|url| Some((url, url.host_str()?))) else {
        return error;
    };
    let port = url.port_or_known_default().unwrap_or_default();
    let address = format!("{host}:{port}");
    Error::new(error.kind(), error.op()).with_source(At { address, error })
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl StdError for At {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // Its kind and operation are told already.
        self.error.source()
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn the_agent_that_was_asked_is_named_and_nothing_else_of_its_url() {
        let error = Error::new(ErrorKind::Unavailable, "consul: list").because("refused");
        let url = "http://u:sesame@[::1]:8500/v1/x?token=sesame"
            .parse()
            .unwrap();
        let named = at(Some(&url), error.clone());
        assert_eq!(named.kind(), ErrorKind::Unavailable);
        let report = named.report().to_string();
        assert_eq!(report, "consul: list: unavailable: [::1]:8500: refused");
        assert_eq!(
            at(None, error).report().to_string(),
            "consul: list: unavailable: refused"
        );
    }
}
