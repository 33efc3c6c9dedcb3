//! Who may ask for what.

use std::net::{IpAddr, SocketAddr};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, StatusCode};
use sd_backend::Secret;
use sd_core::{Error, Result};

use crate::server::tls::ServerTls;

const SHORTEST_TOKEN: usize = 16;

/// Settings of the HTTP API for operators.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Admin {
    token: Option<Secret>,
    pub(super) tls: Option<ServerTls>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// What holds no secret is read.
    Look,
    /// Anything else.
    Token,
}

impl Admin {
    /// Without a token: modules and routes can be looked at from this host, and nothing else can be done.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the token that lets its holder read and change everything.
    ///
    /// # Errors
    /// `InvalidInput` unless it has at least 16 printable characters of ASCII. Make it at random.
    pub fn token(mut self, token: impl Into<String>) -> Result<Self> {
        let token = token.into();
        if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid_input(
                "config service: token of operators",
                format!("at least {SHORTEST_TOKEN} printable characters of ASCII, made at random"),
            ));
        }
        self.token = Some(Secret::new(token));
        Ok(self)
    }

    /// Has operators ask over HTTPS. The token is needed as it is without.
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Whether operators may be listened for at this address.
    ///
    /// # Errors
    /// `InvalidInput` if other hosts reach it and no token is set.
    pub fn check_listener(&self, address: SocketAddr) -> Result<()> {
        if address.ip().is_loopback() || self.token.is_some() {
            return Ok(());
        }
        Err(Error::invalid_input(
            "config service: listen for operators",
            format!("{address} is reached from other hosts: set a token, or listen at 127.0.0.1"),
        ))
    }

    /// # Errors
    /// The status, and why.
    pub(super) fn check(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        need: Need,
    ) -> Result<(), (StatusCode, &'static str)> {
        // A browser on this host must not ask for a page of elsewhere.
        if headers.contains_key(ORIGIN) {
            return Err((StatusCode::FORBIDDEN, "web pages may not ask"));
        }
        // A page can have its own name resolve to this host. It has no token.
        let is_by_address = headers
            .get(HOST)
            .is_none_or(|host| is_address(host.as_bytes()));
        let is_look_from_here = need == Need::Look && peer.to_canonical().is_loopback();
        if is_look_from_here && is_by_address {
            return Ok(());
        }
        let Some(token) = &self.token else {
            return Err(if is_look_from_here {
                (
                    StatusCode::MISDIRECTED_REQUEST,
                    "ask for an IP address, or for localhost",
                )
            } else {
                (
                    StatusCode::FORBIDDEN,
                    "start the service with a token for operators",
                )
            });
        };
        let sent = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let (scheme, sent) = sent
            .and_then(|sent| sent.split_at_checked(7))
            .unwrap_or_default();
        if scheme.eq_ignore_ascii_case(b"bearer ") && is_same(token.expose().as_bytes(), sent) {
            return Ok(());
        }
        Err((
            StatusCode::UNAUTHORIZED,
            "send the header Authorization: Bearer and the token",
        ))
    }
}

fn is_address(host: &[u8]) -> bool {
    let host = std::str::from_utf8(host).unwrap_or_default();
    let bare = host
        .parse::<SocketAddr>()
        .map(|address| address.ip())
        .or_else(|_| host.trim_start_matches('[').trim_end_matches(']').parse());
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    bare.is_ok() || name.eq_ignore_ascii_case("localhost")
}

/// Takes as long for any two texts of the same length.
fn is_same(ours: &[u8], sent: &[u8]) -> bool {
    let differences = ours
        .iter()
        .zip(sent)
        .fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    ours.len() == sent.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn checked(
        admin: &Admin,
        peer: &str,
        headers: &[(&'static str, &'static str)],
        need: Need,
    ) -> u16 {
        let headers = headers
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let checked = admin.check(peer.parse().unwrap(), &headers.collect(), need);
        checked.map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn only_the_holder_of_the_token_changes_anything_and_others_look_from_this_host() {
        let (open, with_token) = (Admin::new(), Admin::new().token(TOKEN).unwrap());
        let bearer: &[_] = &[("authorization", "bearer 0123456789abcdef")];
        for (admin, peer, headers, need, status) in [
            (&open, "127.0.0.1", &[][..], Need::Look, 200),
            (&open, "::ffff:127.0.0.1", &[], Need::Look, 200),
            (&open, "10.0.0.1", &[], Need::Look, 403),
            (&open, "127.0.0.1", bearer, Need::Token, 403),
            (&with_token, "127.0.0.1", &[], Need::Token, 401),
            (&with_token, "10.0.0.1", &[], Need::Look, 401),
            (&with_token, "10.0.0.1", bearer, Need::Look, 200),
            (&with_token, "10.0.0.1", bearer, Need::Token, 200),
            (
                &with_token,
                "::1",
                &[("authorization", "Bearer 0123456789abcdeF")],
                Need::Token,
                401,
            ),
            (
                &with_token,
                "::1",
                &[("authorization", "Bearer")],
                Need::Token,
                401,
            ),
        ] {
            assert_eq!(
                checked(admin, peer, headers, need),
                status,
                "{peer} {headers:?} {need:?}"
            );
        }
        assert!(!format!("{with_token:?}").contains(TOKEN));
        assert!(Admin::new().token("short").is_err());
        assert!(open.check_listener("0.0.0.0:1".parse().unwrap()).is_err());
        with_token
            .check_listener("0.0.0.0:1".parse().unwrap())
            .unwrap();
    }

    #[test]
    fn web_pages_and_names_that_a_page_may_have_are_refused() {
        let admin = Admin::new();
        let with_token = Admin::new().token(TOKEN).unwrap();
        let (named, bearer) = (
            ("host", "config.internal:9003"),
            ("authorization", "Bearer 0123456789abcdef"),
        );
        for (headers, status) in [(&[named, bearer][..], 200), (&[named], 401)] {
            let checked = checked(&with_token, "127.0.0.1", headers, Need::Look);
            assert_eq!(checked, status, "{headers:?}");
        }
        for (headers, status) in [
            (&[("host", "127.0.0.1:9003")][..], 200),
            (&[("host", "[::1]:9003")], 200),
            (&[("host", "localhost:9003")], 200),
            (&[("host", "LOCALHOST")], 200),
            (&[("host", "evil.example:9003")], 421),
            (
                &[("host", "127.0.0.1"), ("origin", "http://evil.example")],
                403,
            ),
        ] {
            assert_eq!(
                checked(&admin, "127.0.0.1", headers, Need::Look),
                status,
                "{headers:?}"
            );
        }
    }
}
