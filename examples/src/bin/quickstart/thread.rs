//! A server in a thread with a runtime of its own, so that it can be killed and frozen like a process. Dropping the runtime
//! closes all its sockets without a word and ends all renewals. Blocking the thread stops everything in it.

use std::sync::mpsc as blocking;
use std::time::SystemTime;

use sd_core::memory::Memory;
use tokio::sync::{mpsc, oneshot};

use crate::{Result, server};

pub(crate) struct ServerThread {
    orders: mpsc::Sender<Order>,
    ended: oneshot::Receiver<Result<()>>,
    /// Dropping it lets a frozen thread go on.
    frozen: Option<blocking::Sender<()>>,
}

enum Order {
    Drain,
    /// Until the other end of this is dropped.
    Freeze(blocking::Receiver<()>),
}

impl ServerThread {
    /// Starts it. Returns when it began to register.
    pub(crate) async fn start(
        memory: &Memory,
        service: &str,
        name: &str,
    ) -> Result<(SystemTime, Self)> {
        let (orders, ordered) = mpsc::channel(1);
        let (began, begins) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (memory, service, name) = (memory.clone(), service.to_owned(), name.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let done = runtime.block_on(run(&memory, &service, &name, began, ordered));
                drop(runtime);
                // The story may have ended.
                let _ = end.send(done);
            })?;
        let thread = Self {
            orders,
            ended,
            frozen: None,
        };
        match begins.await {
            Ok(began) => Ok((began, thread)),
            Err(_) => Err(thread.ended.await?.err().unwrap_or("ended at once".into())),
        }
    }

    pub(crate) async fn drain(self) -> Result<()> {
        self.order(Order::Drain).await?;
        self.ended.await?
    }

    pub(crate) async fn kill(self) -> Result<()> {
        drop(self.orders);
        self.ended.await?
    }

    pub(crate) async fn freeze(&mut self) -> Result<()> {
        let (thaw, thawed) = blocking::channel();
        self.frozen = Some(thaw);
        self.order(Order::Freeze(thawed)).await
    }

    pub(crate) fn thaw(&mut self) {
        self.frozen = None;
    }

    async fn order(&self, order: Order) -> Result<()> {
        let sent = self.orders.send(order).await;
        sent.map_err(|_| "the server has ended".into())
    }
}

/// Serves and obeys orders. Ends when drained, or at once when the owner is gone.
async fn run(
    memory: &Memory,
    service: &str,
    name: &str,
    began: oneshot::Sender<SystemTime>,
    mut orders: mpsc::Receiver<Order>,
) -> Result<()> {
    let registry = memory.connect();
    let (drain, drained) = oneshot::channel::<()>();
    let mut drain = Some(drain);
    let drained = async {
        // Dropped only with the server itself.
        let _ = drained.await;
    };
    let serving = server::serve(&registry, service, name, began, drained);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            done = &mut serving => return done,
            order = orders.recv() => match order {
                Some(Order::Drain) => drop(drain.take()),
                Some(Order::Freeze(until)) => {
                    // Blocks this runtime on purpose: nothing in it answers, as after SIGSTOP.
                    let _ = until.recv();
                }
                None => return Ok(()),
            }
        }
    }
}
