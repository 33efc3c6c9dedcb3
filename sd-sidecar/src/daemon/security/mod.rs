//! Who may do what: tokens, users of Unix sockets, and what browsers are kept from.

mod origin;
mod tokens;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use sd_core::ServiceName;
use tokio_util::sync::CancellationToken;

pub use self::origin::{BrowserRules, OtherOrigin};
pub use self::tokens::{Right, Tokens};
use super::registrations::Caller;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this host, over a loopback address.
    Loopback,
    /// A process of another host.
    Remote(IpAddr),
    /// A process of this user, over a Unix socket.
    User(u32),
}

/// Who asks, and what they may do. Part of each request's extensions, beside the [`Caller`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    caller: Caller,
    /// Reading needs none of them at a loopback address.
    rights: Vec<Right>,
    /// The services that may be registered: names, or beginnings of names with `*`. `None`: all.
    services: Option<Arc<[String]>>,
}

/// Ends what a request has opened once what it was let in with no longer counts: tokens, or the certificate of its connection. Part of each
/// request's extensions.
#[derive(Clone, Debug, Default)]
pub struct Access {
    tokens: CancellationToken,
    connection: CancellationToken,
}

impl Access {
    /// One that ends with either of these.
    pub fn new(tokens: CancellationToken, connection: CancellationToken) -> Self {
        Self { tokens, connection }
    }

    /// Returns once it has ended.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn revoked(&self) {
        tokio::select! {
            () = self.tokens.cancelled() => {}
            () = self.connection.cancelled() => {}
        }
    }
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A token is needed.
    NoToken,
    /// Only an administrator may do this, and the caller has shown no token.
    NoAdministrator,
    /// The token is none of ours.
    UnknownToken,
    /// The caller is known and has no right to do this.
    NoRight(Right),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("a token is needed: send Authorization: Bearer TOKEN, or use the agent's Unix socket"),
            Self::NoAdministrator => f.write_str(
                "this needs the right admin: ask through the agent's Unix socket as root or as the agent's user, or send a token that has it",
            ),
            Self::UnknownToken => f.write_str("the agent does not know this token"),
            Self::NoRight(right) => write!(
                f,
                "the caller does not have the right {right}: see rights in the file of tokens"
            ),
        }
    }
}

impl Permission {
    /// Finds out who sends a request.
    ///
    /// # Errors
    /// `NoToken` or `UnknownToken`.
    pub fn of(
        peer: Peer,
        headers: &HeaderMap,
        tokens: Option<&Tokens>,
        own_user: u32,
    ) -> Result<Self, Denied> {
        if let Some(tokens) = tokens
            && let Some(authorization) = headers.get(AUTHORIZATION)
        {
            return tokens.permission(authorization).ok_or(Denied::UnknownToken);
        }
        match peer {
            // The mode of the socket says which users may connect. Those that could stop the agent by a signal may do so here.
            Peer::User(user) => {
                let mut rights = vec![Right::Read, Right::Register];
                if user == 0 || user == own_user {
                    rights.push(Right::Admin);
                }
                Ok(Self::new(&format!("uid:{user}"), rights, None))
            }
            Peer::Loopback if tokens.is_none() => Ok(Self::new(
                ANONYMOUS,
                vec![Right::Read, Right::Register],
                None,
            )),
            Peer::Loopback => Ok(Self::new(ANONYMOUS, vec![Right::Read], None)),
            Peer::Remote(_) => Err(Denied::NoToken),
        }
    }

    fn new(name: &str, rights: Vec<Right>, services: Option<Arc<[String]>>) -> Self {
        Self {
            caller: Caller(name.into()),
            rights,
            services,
        }
    }

    /// Who asks.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the caller may do what a request asks for, as far as method and path say it.
    ///
    /// # Errors
    /// `NoRight`, or `NoToken` and `NoAdministrator` for one who has shown none.
    pub fn check(&self, method: &Method, path: &str) -> Result<(), Denied> {
        let needed = if path == STOP {
            Right::Admin
        } else if method == Method::GET || method == Method::HEAD {
            Right::Read
        } else {
            Right::Register
        };
        if self.rights.contains(&needed) {
            Ok(())
        } else if &*self.caller.0 == ANONYMOUS {
            Err(match needed {
                Right::Admin => Denied::NoAdministrator,
                Right::Read | Right::Register => Denied::NoToken,
            })
        } else {
            Err(Denied::NoRight(needed))
        }
    }

    /// Whether the caller may register instances of a service.
    pub fn may_register(&self, service: &ServiceName) -> bool {
        self.services.as_ref().is_none_or(|services| {
            services
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(begin) => service.as_str().starts_with(begin),
                    None => service.as_str() == pattern,
                })
        })
    }

    /// Whether the caller may act for the owner of any registration.
    pub fn is_admin(&self) -> bool {
        self.rights.contains(&Right::Admin)
    }
}

/// The caller at a loopback address who has shown no token.
const ANONYMOUS: &str = "anonymous";
/// Where the agent is told to stop.
pub(crate) const STOP: &str = "/v1/agent/stop";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OWN: u32 = 1000;

    fn bearer(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    fn tokens() -> Tokens {
        Tokens::parse_toml(
            r#"
            [[token]]
            name = "team-a"
            token = "sesame-sesame-sesame"
            services = ["greeter", "a-*"]
            [[token]]
            name = "ops"
            token = "open-open-open-open"
            rights = ["read", "register", "admin"]
            [[token]]
            name = "scraper"
            token = "look-look-look-look"
            rights = ["read"]
            "#,
        )
        .unwrap()
    }

    fn permission(
        peer: Peer,
        headers: &HeaderMap,
        tokens: Option<&Tokens>,
    ) -> Result<Permission, Denied> {
        Permission::of(peer, headers, tokens, OWN)
    }

    #[test]
    fn without_tokens_loopback_may_register_and_not_stop() {
        let anyone = permission(Peer::Loopback, &HeaderMap::new(), None).unwrap();
        assert_eq!(anyone.caller(), &Caller("anonymous".into()));
        assert_eq!(anyone.check(&Method::POST, "/register"), Ok(()));
        let denied = anyone.check(&Method::POST, STOP).unwrap_err();
        assert_eq!(denied, Denied::NoAdministrator);
        assert!(denied.to_string().contains("as root"), "{denied}");
        let remote = Peer::Remote("10.0.0.1".parse().unwrap());
        assert_eq!(
            permission(remote, &HeaderMap::new(), None),
            Err(Denied::NoToken)
        );
    }

    #[test]
    fn with_tokens_one_is_needed_for_each_change_and_from_other_hosts() {
        let tokens = tokens();
        let none = HeaderMap::new();
        let anyone = permission(Peer::Loopback, &none, Some(&tokens)).unwrap();
        assert_eq!(anyone.check(&Method::GET, "/v1/services"), Ok(()));
        for method in [Method::POST, Method::DELETE, Method::PUT, Method::OPTIONS] {
            assert_eq!(
                anyone.check(&method, "/v1/registrations"),
                Err(Denied::NoToken)
            );
        }
        let remote = Peer::Remote("10.0.0.1".parse().unwrap());
        assert_eq!(
            permission(remote, &none, Some(&tokens)),
            Err(Denied::NoToken)
        );
        for peer in [Peer::Loopback, remote, Peer::User(5)] {
            let denied = permission(peer, &bearer("sesame"), Some(&tokens));
            assert_eq!(denied, Err(Denied::UnknownToken));
            let team = permission(peer, &bearer("sesame-sesame-sesame"), Some(&tokens)).unwrap();
            assert_eq!(team.caller(), &Caller("team-a".into()));
            assert_eq!(team.check(&Method::POST, "/register"), Ok(()));
            assert_eq!(
                team.check(&Method::POST, STOP),
                Err(Denied::NoRight(Right::Admin))
            );
        }
        let scraper = permission(remote, &bearer("look-look-look-look"), Some(&tokens)).unwrap();
        assert_eq!(scraper.check(&Method::GET, "/metrics"), Ok(()));
        let denied = scraper.check(&Method::POST, "/register");
        assert_eq!(denied, Err(Denied::NoRight(Right::Register)));
        let text = denied.unwrap_err().to_string();
        assert!(text.contains("the right register:"), "{text}");
    }

    #[test]
    fn a_token_registers_its_services_alone() {
        let tokens = tokens();
        let team = permission(
            Peer::Loopback,
            &bearer("sesame-sesame-sesame"),
            Some(&tokens),
        )
        .unwrap();
        let may = |service: &str| team.may_register(&ServiceName::new(service).unwrap());
        assert!(may("greeter") && may("a-1"));
        assert!(!may("greeter2") && !may("b") && !may("A-1"));
        let ops = permission(
            Peer::Loopback,
            &bearer("open-open-open-open"),
            Some(&tokens),
        )
        .unwrap();
        assert!(ops.may_register(&ServiceName::new("b").unwrap()) && ops.is_admin());
    }

    #[test]
    fn a_user_of_a_unix_socket_is_known_and_the_agents_own_may_stop_it() {
        let tokens = tokens();
        for (user, stops) in [(0, true), (OWN, true), (1001, false)] {
            let known = permission(Peer::User(user), &HeaderMap::new(), Some(&tokens)).unwrap();
            assert_eq!(known.caller(), &Caller(format!("uid:{user}").into()));
            assert_eq!(known.check(&Method::POST, "/register"), Ok(()));
            assert_eq!(known.check(&Method::POST, STOP).is_ok(), stops, "{user}");
        }
    }
}
