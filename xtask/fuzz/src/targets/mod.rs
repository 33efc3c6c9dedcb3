//! One target for each reader.

mod agent;
mod cluster;
mod consul;
mod dns;
mod endpoint;
mod etcd;
mod file;
mod grpc;
mod instance;
mod names;
mod redis;
mod url;

/// A reader of untrusted input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called on the command line, and the folder of its corpus.
    pub name: &'static str,
    /// Panics if the input does harm.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 12] = [
    Target {
        name: "url",
        run: url::run,
    },
    Target {
        name: "names",
        run: names::run,
    },
    Target {
        name: "endpoint",
        run: endpoint::run,
    },
    Target {
        name: "instance",
        run: instance::run,
    },
    Target {
        name: "file",
        run: file::run,
    },
    Target {
        name: "etcd",
        run: etcd::run,
    },
    Target {
        name: "consul",
        run: consul::run,
    },
    Target {
        name: "redis",
        run: redis::run,
    },
    Target {
        name: "dns",
        run: dns::run,
    },
    Target {
        name: "cluster",
        run: cluster::run,
    },
    Target {
        name: "grpc",
        run: grpc::run,
    },
    Target {
        name: "agent",
        run: agent::run,
    },
];
