//! The built `sdctl`, as its users run it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers as well"
)]

#[cfg(target_os = "linux")]
mod beating;
#[cfg(target_os = "linux")]
mod broken_output;
mod command_line;
mod config_service;
#[cfg(all(feature = "config-service", target_os = "linux"))]
mod config_service_program;
#[cfg(all(feature = "consul", target_os = "linux"))]
mod consul;
#[cfg(feature = "etcd")]
mod dead_etcd;
#[cfg(feature = "dns")]
mod dns;
#[cfg(target_os = "linux")]
mod elect;
#[cfg(all(feature = "etcd", target_os = "linux"))]
mod elect_etcd;
#[cfg(target_os = "linux")]
mod electing;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
mod exit_status;
#[cfg(feature = "etcd")]
mod gateway;
mod hostile;
#[cfg(feature = "cluster")]
mod isp;
#[cfg(all(feature = "etcd", target_os = "linux"))]
mod leaving;
#[cfg(any(
    feature = "etcd",
    feature = "consul",
    feature = "redis",
    feature = "zk"
))]
mod operating;
#[cfg(all(feature = "redis", target_os = "linux"))]
mod redis;
#[cfg(any(
    feature = "etcd",
    feature = "consul",
    feature = "redis",
    feature = "zk"
))]
mod registering;
#[cfg(target_os = "linux")]
mod registering_command;
#[cfg(all(feature = "etcd", target_os = "linux"))]
mod registering_command_etcd;
mod running;
#[cfg(target_os = "linux")]
mod signals;
#[cfg(target_os = "linux")]
mod watchdog;
#[cfg(all(feature = "zk", target_os = "linux"))]
mod zk;
