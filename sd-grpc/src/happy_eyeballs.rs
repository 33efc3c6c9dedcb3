//! Several addresses of one name: the first that connects is taken (RFC 8305).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// How long an attempt is waited for before the next one starts beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Starts the attempts in their order, each when the one before has failed or had its head start. Returns the first success, or the
/// last error.
pub(crate) async fn race<T, F>(attempts: impl IntoIterator<Item = F>) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut attempts = attempts.into_iter().fuse();
    let mut running = FuturesUnordered::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        let next = attempts.next();
        let is_last = next.is_none();
        running.extend(next);
        tokio::select! {
            ended = running.next() => match ended {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(failed)) => error = failed,
                None => return Err(error),
            },
            () = sleep(HEAD_START), if !is_last => {}
        }
    }
}

/// Both families by turns, beginning with that of the first address.
pub(crate) fn by_turns(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<_> = addresses.into_iter().collect();
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (ours, others): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first);
    let most = ours.len().max(others.len());
    (0..most)
        .flat_map(|turn| [ours.get(turn), others.get(turn)])
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use futures_util::future::{BoxFuture, FutureExt, pending, ready};
    use tokio::time::Instant;

    use super::*;

    fn after(millis: u64, what: &'static str) -> BoxFuture<'static, io::Result<&'static str>> {
        async move {
            sleep(Duration::from_millis(millis)).await;
            Ok(what)
        }
        .boxed()
    }

    fn refused() -> BoxFuture<'static, io::Result<&'static str>> {
        ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_hangs_delays_the_next_one_by_its_head_start_only() {
        let began = Instant::now();
        let attempts = [pending().boxed(), pending().boxed(), after(10, "third")];
        assert_eq!(race(attempts).await.unwrap(), "third");
        assert_eq!(began.elapsed(), 2 * HEAD_START + Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_delays_nothing_and_a_slow_one_may_still_win() {
        let began = Instant::now();
        let attempts = [refused(), after(300, "slow"), pending().boxed()];
        assert_eq!(race(attempts).await.unwrap(), "slow");
        assert_eq!(began.elapsed(), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_is_told_when_all_have_failed() {
        let error = race([refused(), refused()]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let none: [BoxFuture<'static, io::Result<()>>; 0] = [];
        assert_eq!(
            race(none).await.unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn families_take_turns() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (
            address("[::1]:1"),
            address("[::2]:1"),
            address("127.0.0.1:1"),
        );
        assert_eq!(by_turns([a, b, c]), [a, c, b]);
        assert_eq!(by_turns([]), []);
    }
}
