//! The server that everything is measured at, and a client for it as a program has that has no more than the client crate.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Value};
use server_programs::Redis;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::Result;

/// A Redis or a Valkey that runs.
#[derive(Clone, Debug)]
pub(super) struct Server(String);

/// What is published on one channel.
pub(super) struct Messages {
    pushes: UnboundedReceiver<PushInfo>,
    /// Tells them.
    _connection: MultiplexedConnection,
}

impl Server {
    pub(super) fn from_env() -> Result<Self> {
        let named = std::env::var("SD_TEST_REDIS");
        let missing = "SD_TEST_REDIS must hold the URL of a Redis: `cargo xtask bench` starts one and sets it";
        Ok(Self(named.map_err(|_| missing)?))
    }

    pub(super) fn url(&self) -> &str {
        &self.0
    }

    /// `Valkey 9.1.2`
    pub(super) fn version(&self) -> Result<String> {
        let said = Redis::serving_at(&self.0)?;
        let (product, version) = said.split_once(' ').unwrap_or(("redis", &said));
        let product = if product == "valkey" {
            "Valkey"
        } else {
            "Redis"
        };
        Ok(format!("{product} {version}"))
    }

    /// The client crate alone.
    pub(super) async fn connection(&self) -> Result<MultiplexedConnection> {
        let client = Client::open(self.0.as_str())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// The client crate alone, which is told what is published on a channel.
    pub(super) async fn messages(&self, channel: &str) -> Result<Messages> {
        let client = Client::open(format!("{}?protocol=resp3", self.0))?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the client crate takes no other channel, and a sample publishes one message"
        )]
        let (sender, pushes) = unbounded_channel();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await?;
        connection.subscribe(channel).await?;
        Ok(Messages {
            pushes,
            _connection: connection,
        })
    }
}

impl Messages {
    /// The next message that begins with `beginning`, without that.
    pub(super) async fn next(&mut self, beginning: &str) -> Result<Vec<u8>> {
        loop {
            let push = self.pushes.recv().await.ok_or("the connection ended")?;
            let said = (push.kind, push.data.into_iter().nth(1));
            let (PushKind::Message, Some(Value::BulkString(message))) = said else {
                continue;
            };
            if let Some(rest) = message.strip_prefix(beginning.as_bytes()) {
                return Ok(rest.to_vec());
            }
        }
    }
}
