//! What is done to find out how an instance is.

use sd_core::{Endpoint, Result};

use super::command::Program;
use super::grpc::GrpcProbe;
use super::http::HttpProbe;
use super::{LookUps, dial, invalid};
use crate::wire::{self, CheckKind};

/// What an attempt has found, in words: good or bad.
pub(super) type Answer = std::result::Result<String, String>;

/// What one attempt does.
#[derive(Debug)]
pub(super) enum Probe {
    Tcp(Endpoint),
    Http(HttpProbe),
    Grpc(GrpcProbe),
    Command(Program),
}

impl Probe {
    /// For a kind that is [repeated](super::repeated).
    pub(super) fn new(kind: &CheckKind, target: &Endpoint) -> Result<Self> {
        let given = |address: &Option<String>| match address {
            Some(address) => wire::endpoint("address", address).map_err(invalid),
            None => Ok(target.clone()),
        };
        Ok(match kind {
            CheckKind::Tcp { address } => Self::Tcp(given(address)?),
            CheckKind::Http { url } => {
                Self::Http(HttpProbe::new(url.as_deref(), target).map_err(invalid)?)
            }
            CheckKind::Grpc { address, service } => {
                Self::Grpc(GrpcProbe::new(given(address)?, service).map_err(invalid)?)
            }
            CheckKind::Command { command } => Self::Command(Program::new(command, target)),
            CheckKind::Ttl { .. } | CheckKind::Pid { .. } => {
                return Err(invalid("nothing to repeat"));
            }
        })
    }

    /// Cancel-safe: what is dropped leaves nothing behind.
    pub(super) async fn attempt(&self, look_ups: &LookUps) -> Answer {
        match self {
            Self::Tcp(endpoint) => dial::connects(endpoint, look_ups).await,
            Self::Http(probe) => probe.attempt(look_ups).await,
            Self::Grpc(probe) => probe.attempt(look_ups).await,
            Self::Command(program) => program.attempt().await,
        }
    }
}
