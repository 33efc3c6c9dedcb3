//! The names of the variables of [`variables`](super::variables), with a release line and without.

use crate::servers::server::Server;

/// Where the URL of a running server of this kind may be named; the one that means no other release line first.
pub(crate) fn url_names(server: &dyn Server) -> [String; 2] {
    [with_line(server), without_line(server)]
}

/// Where its program may be named, in the same order.
pub(crate) fn program_names(server: &dyn Server) -> [String; 2] {
    url_names(server).map(|name| format!("{name}_BIN"))
}

pub(crate) fn with_line(server: &dyn Server) -> String {
    let (major, minor) = server.line();
    let product = server.product().to_ascii_uppercase();
    format!("SD_TEST_{product}_{major}_{minor}")
}

pub(crate) fn without_line(server: &dyn Server) -> String {
    format!("SD_TEST_{}", server.backend().to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::all::ALL;

    #[test]
    fn a_variable_with_the_release_line_goes_first() {
        let named = |name: &str| {
            let mut all = ALL.iter().copied();
            let server = all.find(|server| server.name() == name).unwrap();
            (url_names(server), program_names(server))
        };
        let (urls, programs) = named("etcd-3.4");
        assert_eq!(urls, ["SD_TEST_ETCD_3_4", "SD_TEST_ETCD"]);
        assert_eq!(programs, ["SD_TEST_ETCD_3_4_BIN", "SD_TEST_ETCD_BIN"]);
        let (urls, _) = named("valkey-9.1");
        assert_eq!(urls, ["SD_TEST_VALKEY_9_1", "SD_TEST_REDIS"]);
    }
}
