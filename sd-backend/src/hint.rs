//! What to do when a server cannot be reached or does not do what is asked. The libraries' words say what happened, not what to do.

use std::error::Error;
use std::fmt;

use sd_core::ErrorKind;

type AnyError = Box<dyn Error + Send + Sync>;

/// What in a cause's text means what. The first that fits counts.
const HINTS: [(&[&str], &str); 9] = [
    (
        &["HTTP request to an HTTPS server"],
        "the server speaks TLS: write https:// or set tls=true",
    ),
    (
        &["InvalidContentType", "corrupt message"],
        "the server does not speak TLS at this port: use its TLS port, or write http:// and leave out the settings of TLS",
    ),
    (
        // An authority that was made again under the same name has another key.
        &["UnknownIssuer", "BadSignature"],
        "no trusted authority signed the server's certificate: set ca to the PEM file of the one that did",
    ),
    (
        &["not valid for name", "NotValidForName"],
        "the server's certificate is for another name: connect by a name that it has, or set server_name to one",
    ),
    (
        &["certificate expired", "certificate: Expired"],
        "the server's certificate has expired: it must be renewed, or this machine's clock is wrong",
    ),
    (
        &["not valid yet", "NotValidYet"],
        "the server's certificate is not valid yet: look at the clocks of both machines",
    ),
    (
        &["CertificateRequired", "certificate required"],
        "the server asks for a client certificate: set cert and key",
    ),
    (
        &["received fatal alert"],
        "the server refused us: look at whether it trusts the authority of our cert, and at its versions of TLS",
    ),
    (&["Too many open files"], OUT_OF_FILES),
];
const OUT_OF_FILES: &str =
    "this process may open no more files: raise its limit (ulimit -n), or follow fewer services";

/// An error with what to look at before it.
#[derive(Debug)]
struct Hinted {
    hint: &'static str,
    error: AnyError,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hint)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.error)
    }
}

/// The error of a connection or request as a cause of ours, after a sentence that says what to look at, if it or one of its causes is
/// known: a failure of TLS, for example.
pub fn with_hint(error: impl Into<AnyError>) -> AnyError {
    let error = error.into();
    let mut text = String::new();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        text.push('\n');
        cause = error.source();
    }
    let says = |words: &&(&[&str], _)| words.0.iter().any(|words| text.contains(words));
    match HINTS.iter().find(says) {
        Some((_, hint)) => hinted(hint, error),
        None => error,
    }
}

/// An error as a cause of ours, after a sentence that says what to do.
pub fn hinted(hint: &'static str, error: impl Into<AnyError>) -> AnyError {
    let error = error.into();
    Box::new(Hinted { hint, error })
}

/// What is known of a server that answers as no server of its kind does.
#[derive(Debug)]
struct OtherServer {
    expected: &'static str,
    said: AnyError,
}

impl fmt::Display for OtherServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what answers there is no {}", self.expected)?;
        f.write_str(", or a proxy that does not pass this on")
    }
}

impl Error for OtherServer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.said)
    }
}

/// What something `said` that answers as no server of the `expected` kind does, as a cause of ours.
pub fn other_server(expected: &'static str, said: impl Into<AnyError>) -> AnyError {
    let said = said.into();
    Box::new(OtherServer { expected, said })
}

/// Whether something else seems to answer than the server that was asked.
pub fn is_other_server(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<OtherServer>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether a server was not reached or did not answer, so that another one may do better.
pub fn is_unreachable(error: &sd_core::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

/// Whether a connection failed because this process, or its machine, may open no more files: no server can mend that.
pub fn is_out_of_files(error: &(dyn Error + 'static)) -> bool {
    hint_in(error) == Some(OUT_OF_FILES)
}

/// The sentence that says what to do, if an error or one of its causes has one.
pub fn hint_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(hinted) = error.downcast_ref::<Hinted>() {
            return Some(hinted.hint);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use sd_core::{Error, ErrorKind};

    use super::*;

    fn report(error: AnyError) -> String {
        let error = Error::new(ErrorKind::Unavailable, "test").with_source(error);
        error.report().to_string()
    }

    #[test]
    fn what_is_no_server_of_its_kind_is_known_by_its_error() {
        let cause =
            Error::new(ErrorKind::Rejected, "list").with_source(other_server("etcd", "404"));
        let outer = Error::new(ErrorKind::Rejected, "watch").with_source(cause);
        assert!(is_other_server(&outer));
        let report = outer.report().to_string();
        assert!(
            report.contains("no etcd") && report.ends_with(": 404"),
            "{report}"
        );
        assert!(!is_other_server(
            &Error::new(ErrorKind::Rejected, "list").because("404")
        ));
    }

    #[test]
    fn each_known_failure_has_a_hint_before_it_also_as_a_cause_of_another_error() {
        for (words, hint) in [
            (
                "Client sent an HTTP request to an HTTPS server.",
                "write https://",
            ),
            (
                "received corrupt message of type InvalidContentType",
                "does not speak TLS",
            ),
            ("invalid peer certificate: UnknownIssuer", "set ca"),
            (
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is only valid for b",
                "server_name",
            ),
            (
                "invalid peer certificate: certificate expired: verification time 7 (UNIX)",
                "clock",
            ),
            ("received fatal alert: CertificateRequired", "cert and key"),
            ("received fatal alert: UnknownCA", "trusts the authority"),
            (
                "tcp connect error: Too many open files (os error 24)",
                "ulimit -n",
            ),
        ] {
            let cause = Error::new(ErrorKind::Unavailable, "cause").because(words);
            let report = report(with_hint(cause));
            let (hint, words) = (report.find(hint).unwrap(), report.find(words).unwrap());
            assert!(hint < words, "{report}");
        }
        let failed = |code| {
            let error = std::io::Error::from_raw_os_error(code);
            Error::new(ErrorKind::Unavailable, "test").with_source(with_hint(error))
        };
        let (refused, of_process, of_machine) = (111, 24, 23);
        assert!(is_unreachable(&failed(refused)) && !is_out_of_files(&failed(refused)));
        for code in [of_process, of_machine] {
            assert!(cfg!(not(target_os = "linux")) || is_out_of_files(&failed(code)));
        }
        let cause = Error::new(ErrorKind::Unavailable, "cause")
            .with_source(hinted("look there", "connection refused"));
        assert_eq!(hint_in(&cause), Some("look there"));
        let unknown = Error::new(ErrorKind::Unavailable, "cause").because("connection refused");
        assert_eq!(hint_in(&unknown), None);
        assert_eq!(
            report(with_hint("connection refused")),
            "test: unavailable: connection refused"
        );
    }
}
