//! What connections run on: TCP, Unix sockets, own connectors, TLS and mutual TLS.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io;
use std::sync::Arc;

use common::echo::EchoClient;
use common::{Set, TestServer, ready};
use sd_core::{Endpoint, Instance};
use sd_grpc::{BalancedChannel, ChannelBuilder, ChannelConfig, Dial};
use tokio::net::{TcpStream, UnixListener, UnixStream};

#[tokio::test]
async fn unix_sockets_are_dialled_where_that_is_allowed() {
    let server = TestServer::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let address = server.address;
    let forwarding = tokio::spawn(async move {
        let (mut from, _) = listener.accept().await.unwrap();
        let mut to = TcpStream::connect(address).await.unwrap();
        // The end of either side is the end of the test.
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    });
    let endpoint = Endpoint::unix(path).unwrap();
    let set = Set::of([server.instance().with_endpoint(endpoint)]);
    let refusing = set.channel().build().unwrap();
    let status = EchoClient::new(refusing).say("hello").await.unwrap_err();
    assert!(status.message().contains("with_unix_sockets"), "{status}");

    let allowing = set.channel().connector(Dial::new().with_unix_sockets());
    let channel = allowing.build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel);
    assert_eq!(client.say("hello").await.unwrap(), address.to_string());
    forwarding.abort();
}

#[tokio::test]
async fn a_connector_of_ones_own_sees_the_instance() {
    let server = TestServer::start();
    let real = server.address;
    let connector = move |instance: Arc<Instance>| async move {
        match instance.metadata().get("tunnel") {
            Some(_) => TcpStream::connect(real).await,
            None => Err(io::Error::other("no tunnel")),
        }
    };
    let elsewhere = Instance::new("echo", "unreachable.invalid:1").unwrap();
    let set = Set::of([elsewhere.clone().with_metadata("tunnel", "a")]);
    let channel = set.channel().connector(connector).build().unwrap();
    ready(&channel, 1).await;
    EchoClient::new(channel).say("hello").await.unwrap();

    let set = Set::of([elsewhere]);
    let channel = set.channel().connector(connector).build().unwrap();
    let status = EchoClient::new(channel).say("hello").await.unwrap_err();
    assert!(status.message().contains("no tunnel"), "{status}");
}

#[tokio::test]
async fn a_connector_may_be_made_of_any_stream() {
    let server = TestServer::start();
    let address = server.address;
    let connector = move |_: Arc<Instance>| async move {
        let (ours, mut theirs) = UnixStream::pair()?;
        let mut stream = TcpStream::connect(address).await?;
        tokio::spawn(async move {
            // Ends with the connection.
            let _ = tokio::io::copy_bidirectional(&mut theirs, &mut stream).await;
        });
        Ok::<_, io::Error>(ours)
    };
    let set = Set::of([server.instance()]);
    let channel = set.channel().connector(connector).build().unwrap();
    ready(&channel, 1).await;
    EchoClient::new(channel).say("hello").await.unwrap();
}

#[tokio::test]
async fn calls_carry_the_origin_instead_of_the_endpoint() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let set = Set::of([common::instance_at(listener.local_addr().unwrap())]);
    let origin = "https://echo.example:8443".parse().unwrap();
    let channel = set.channel().origin(origin).build().unwrap();
    let call = tokio::spawn(async move { EchoClient::new(channel).say("hello").await });
    let carried = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, _) = connection.accept().await.unwrap().unwrap();
        request.uri().to_string()
    };
    let carried = common::within("the call", carried).await;
    assert_eq!(carried, "https://echo.example:8443/test.Echo/Unary");
    call.abort();
}

/// Answers nothing, and tells which authority each call on each connection carries.
async fn authorities(
    listener: tokio::net::TcpListener,
    told: tokio::sync::mpsc::Sender<(usize, String)>,
) {
    for nth in 1.. {
        let (stream, _) = listener.accept().await.unwrap();
        let told = told.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, _))) = connection.accept().await {
                let authority = request.uri().authority().unwrap().to_string();
                told.send((nth, authority)).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn each_instance_can_have_an_authority_of_its_own() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, mut carried) = tokio::sync::mpsc::channel(16);
    let server = tokio::spawn(authorities(listener, told));
    let instance = common::instance_at(address);
    let named = |host: &str| instance.clone().with_metadata("host", host);
    let set = Set::of([named("a.example:1")]);
    let channel = set.channel().authority_of(|instance| {
        let host = instance.metadata().get("host")?;
        assert_ne!(host, "panic");
        host.parse().ok()
    });
    let channel = channel.build().unwrap();
    for (nth, host, expected) in [
        (1, "a.example:1", "a.example:1".to_owned()),
        // A new name gets a new connection, and so does none.
        (2, "b.example:1", "b.example:1".to_owned()),
        (3, "no authority", address.to_string()),
        // The name is the same.
        (3, "panic", address.to_string()),
    ] {
        set.set([named(host)]);
        let expected = (nth, expected);
        let mut calls = tokio::task::JoinSet::new();
        let asked = async {
            loop {
                let mut client = EchoClient::new(channel.clone());
                calls.spawn(async move { client.say("hello").await });
                if carried.recv().await.unwrap() == expected {
                    break;
                }
            }
        };
        common::within("a call with this authority", asked).await;
    }
    server.abort();
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_a_reason() {
    let set = Set::of([]);
    let reason = |builder: ChannelBuilder| builder.build().unwrap_err().report().to_string();
    assert!(reason(set.channel().user_agent("a\nb")).contains("user agent"));
    assert!(reason(set.channel().origin("/path".parse().unwrap())).contains("origin"));
    let zero = set.channel().attempt_timeout(std::time::Duration::ZERO);
    assert!(reason(zero).contains("attempt_timeout"));
    assert!(reason(set.channel().idempotent_methods(["Method"])).contains("idempotent_methods"));
    let memory = sd_core::memory::Memory::new().connect();
    assert!(reason(BalancedChannel::builder(&memory, "bad\nname")).contains("service name"));
}

#[cfg(feature = "tls")]
mod tls {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use sd_grpc::ClientTls;
    use tonic::transport::{Certificate, Identity, ServerTlsConfig};

    use super::*;
    use crate::common::echo::Text;
    use crate::common::eventually;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            Self(CertifiedIssuer::self_signed(params, key).unwrap())
        }

        fn pem(&self) -> String {
            self.0.pem()
        }

        /// Chain and key in PEM.
        fn issue(&self, name: &str) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new([name.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap();
            (certificate.pem(), key.serialize_pem())
        }
    }

    fn server(tls: ServerTlsConfig) -> TestServer {
        TestServer::configured(
            |_| async { Ok(Text::new("done")) },
            |server| server.tls_config(tls).unwrap(),
        )
    }

    fn identity((chain, key): (String, String)) -> Identity {
        Identity::from_pem(chain, key)
    }

    async fn failure(server: &TestServer, tls: ClientTls) -> String {
        let set = Set::of([server.instance()]);
        let channel = set.channel().tls(tls).build().unwrap();
        let status = EchoClient::new(channel).say("hello").await.unwrap_err();
        status.message().to_owned()
    }

    #[tokio::test]
    async fn tls_checks_the_server_by_its_host_or_by_a_given_name() {
        let authority = Authority::new();
        let by_host =
            server(ServerTlsConfig::new().identity(identity(authority.issue("127.0.0.1"))));
        let by_name =
            server(ServerTlsConfig::new().identity(identity(authority.issue("echo.test"))));
        let trusting = || ClientTls::new().with_ca(authority.pem());
        for (server, tls) in [
            (&by_host, trusting()),
            (&by_name, trusting().with_server_name("echo.test")),
        ] {
            let set = Set::of([server.instance()]);
            let channel = set.channel().tls(tls).build().unwrap();
            ready(&channel, 1).await;
            EchoClient::new(channel.clone()).say("hello").await.unwrap();
            drop(channel);
            eventually("it says goodbye", || server.open() == 0).await;
        }
        let why = failure(&by_name, trusting()).await;
        assert!(why.contains("certificate"), "{why}");
        let other = ClientTls::new().with_ca(Authority::new().pem());
        let why = failure(&by_host, other).await;
        assert!(why.contains("certificate"), "{why}");
    }

    #[tokio::test]
    async fn tls_checks_each_server_by_the_name_of_its_instance() {
        let authority = Authority::new();
        let issue = |name| ServerTlsConfig::new().identity(identity(authority.issue(name)));
        let (one, other) = (server(issue("one.test")), server(issue("other.test")));
        let named = |server: &TestServer, host| server.instance().with_metadata("host", host);
        let set = Set::of([named(&one, "one.test"), named(&other, "other.test")]);
        // What is said for all does not count where an instance has its own.
        let tls = ClientTls::new()
            .with_ca(authority.pem())
            .with_server_name("neither.test");
        let by_host = |instance: &Instance| instance.metadata().get("host")?.parse().ok();
        let channel = set.channel().tls(tls).authority_of(by_host);
        let channel = channel.build().unwrap();
        ready(&channel, 2).await;
        for _ in 0..4 {
            EchoClient::new(channel.clone()).say("hello").await.unwrap();
        }
        let set = Set::of([named(&one, "other.test")]);
        let tls = ClientTls::new().with_ca(authority.pem());
        let channel = set.channel().tls(tls).authority_of(by_host);
        let channel = channel.build().unwrap();
        let status = EchoClient::new(channel).say("hello").await.unwrap_err();
        assert!(status.message().contains("certificate"), "{status}");
    }

    #[tokio::test]
    async fn mutual_tls_shows_our_certificate() {
        let authority = Authority::new();
        let server = server(
            ServerTlsConfig::new()
                .identity(identity(authority.issue("127.0.0.1")))
                .client_ca_root(Certificate::from_pem(authority.pem())),
        );
        let trusting = ClientTls::new().with_ca(authority.pem());
        let (chain, key) = authority.issue("client");
        let set = Set::of([server.instance()]);
        let tls = trusting.clone().with_identity(chain, key);
        assert!(!format!("{tls:?}").contains("PRIVATE"), "{tls:?}");
        let channel = set.channel().tls(tls).build().unwrap();
        ready(&channel, 1).await;
        EchoClient::new(channel).say("hello").await.unwrap();
        // The server's alert may be lost with the connection: it closes while our greeting is on its way.
        let why = failure(&server, trusting).await;
        assert!(
            why.contains("1 of 1 endpoints could not be connected"),
            "{why}"
        );
        assert_eq!(server.calls(), 1);
    }

    #[tokio::test]
    async fn files_are_read_again_for_each_connection() {
        let (old, new) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        let write = |authority: &Authority| {
            let (chain, key) = authority.issue("client");
            std::fs::write(file("ca"), authority.pem()).unwrap();
            std::fs::write(file("chain"), chain).unwrap();
            std::fs::write(file("key"), key).unwrap();
        };
        write(&old);
        let tls = ClientTls::new()
            .with_ca_file(file("ca"))
            .with_identity_files(file("chain"), file("key"));
        let server = server(
            ServerTlsConfig::new()
                .identity(identity(new.issue("127.0.0.1")))
                .client_ca_root(Certificate::from_pem(new.pem())),
        );
        let mut config = ChannelConfig::default();
        config.reconnect_cap = Duration::from_millis(100);
        let set = Set::of([server.instance()]);
        let channel = set.channel().config(config).tls(tls).build().unwrap();
        let mut client = EchoClient::new(channel.clone());
        client.say("hello").await.unwrap_err();
        // What cannot be read replaces nothing and ends nothing.
        std::fs::write(file("ca"), "no PEM").unwrap();
        client.say("hello").await.unwrap_err();
        write(&new);
        ready(&channel, 1).await;
        client.say("hello").await.unwrap();
    }

    #[tokio::test]
    async fn a_server_without_tls_is_not_waited_for() {
        let server = TestServer::start();
        let tls = ClientTls::new().with_ca(Authority::new().pem());
        let before = tokio::time::Instant::now();
        let why = failure(&server, tls).await;
        assert!(before.elapsed() < Duration::from_secs(5), "{why}");
    }

    #[tokio::test]
    async fn what_is_no_certificate_is_refused_before_anything_is_sent() {
        let set = Set::of([]);
        let authority = Authority::new();
        let (chain, _) = authority.issue("client");
        for (tls, hint) in [
            (ClientTls::new(), "no CA is trusted"),
            (ClientTls::new().with_ca("not PEM"), "none in the PEM text"),
            (
                ClientTls::new()
                    .with_ca(authority.pem())
                    .with_identity(chain, "no key"),
                "client key",
            ),
            (
                ClientTls::new()
                    .with_ca(authority.pem())
                    .with_server_name("a b"),
                "not a valid server name",
            ),
        ] {
            let error = set.channel().tls(tls).build().unwrap_err();
            let report = error.report().to_string();
            assert!(report.contains(hint), "{report}");
        }
    }
}
