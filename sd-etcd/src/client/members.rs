//! Where the members of the cluster say that clients reach them: read again and again while connected, if that is wanted.
//!
//! Then members may be replaced until none is left that the configuration names. What is learnt is a hint: it must be reached as the
//! configuration says, and prove to be of the same cluster.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{ClusterClient, Member, ResponseHeader};
use sd_core::sync::lock;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Uri;
use tracing::debug;

use crate::client::error::{caught, translate};

/// URLs that are kept. The largest clusters have 7 members, with one or two URLs each.
const MOST_URLS: usize = 64;

/// What was learnt of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Members(Mutex<Learnt>);

#[derive(Clone, Debug, Default)]
struct Learnt {
    cluster: u64,
    urls: Vec<String>,
}

/// An endpoint that may be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) url: String,
    /// The cluster that it must prove to be of. `None` for one that the configuration names.
    pub(crate) cluster: Option<u64>,
}

impl Members {
    /// The endpoints that the configuration names, then those that were learnt.
    pub(crate) fn beside(&self, named: &[String]) -> Vec<Candidate> {
        let learnt = lock(&self.0).clone();
        let named_ones = named.iter().map(|url| Candidate {
            url: url.clone(),
            cluster: None,
        });
        let further = learnt.urls.into_iter().filter(|url| !named.contains(url));
        let further = further.map(|url| Candidate {
            url,
            cluster: Some(learnt.cluster),
        });
        named_ones.chain(further).collect()
    }

    /// Takes what a member of `cluster` tells. What cannot be meant, or is not as safe as what the configuration names, is left out.
    fn take<'a>(&self, cluster: u64, is_tls: bool, told: impl Iterator<Item = &'a String>) {
        let mut urls: Vec<String> = told.filter_map(|url| usable(url, is_tls)).collect();
        urls.sort();
        urls.dedup();
        urls.truncate(MOST_URLS);
        // An answer without any is no reason to forget.
        if cluster != 0 && !urls.is_empty() {
            *lock(&self.0) = Learnt { cluster, urls };
        }
    }

    /// Learns until it is dropped. Must be called inside a runtime.
    pub(crate) fn follow(
        self: &Arc<Self>,
        mut asked: ClusterClient,
        is_tls: bool,
        every: Duration,
    ) -> AbortOnDropHandle<()> {
        let members = Arc::clone(self);
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                match timeout(every, caught(asked.member_list())).await {
                    Ok(Ok(told)) => {
                        let cluster = told.header().map_or(0, ResponseHeader::cluster_id);
                        let urls = told.members().iter().flat_map(Member::client_urls);
                        members.take(cluster, is_tls, urls);
                    }
                    Ok(Err(error)) => {
                        let error = translate("etcd: list members", error);
                        debug!(error = %error.report(), "the members of the cluster were not told");
                    }
                    Err(_) => debug!("the members of the cluster were not told in time"),
                }
                sleep(every).await;
            }
        }))
    }
}

/// The URL as we write it, if a client can be meant to dial it.
fn usable(url: &str, is_tls: bool) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    let scheme = if is_tls { "https" } else { "http" };
    let (host, port) = (url.host()?, url.port_u16()?);
    let is_unspecified = matches!(host, "0.0.0.0" | "[::]");
    (url.scheme_str() == Some(scheme) && port != 0 && !is_unspecified)
        .then(|| format!("{scheme}://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learnt_is_tried_after_what_is_named_and_only_if_it_is_as_safe() {
        let members = Members::default();
        let named = ["https://a:1".to_owned()];
        assert_eq!(members.beside(&named).len(), 1);
        let told = [
            "https://a:1",
            "https://b:2/",
            "https://b:2",
            "http://c:3",
            "https://0.0.0.0:4",
            "https://[::]:4",
            "127.0.0.1:23790",
            "https://d",
            "unix://e:1",
            "",
        ];
        members.take(7, true, told.map(str::to_owned).iter());
        let found = members.beside(&named);
        let urls: Vec<_> = found.iter().map(|one| one.url.as_str()).collect();
        assert_eq!(urls, ["https://a:1", "https://b:2"]);
        assert_eq!((found[0].cluster, found[1].cluster), (None, Some(7)));
    }

    #[test]
    fn an_answer_that_says_nothing_is_no_reason_to_forget_and_one_that_says_too_much_is_cut() {
        let members = Members::default();
        members.take(7, false, ["http://a:1".to_owned()].iter());
        members.take(7, false, [].iter());
        members.take(0, false, ["http://b:1".to_owned()].iter());
        assert_eq!(members.beside(&[])[0].url, "http://a:1");
        let many: Vec<_> = (1..1000).map(|n| format!("http://h{n}:1")).collect();
        members.take(7, false, many.iter());
        assert_eq!(members.beside(&[]).len(), MOST_URLS);
    }
}
