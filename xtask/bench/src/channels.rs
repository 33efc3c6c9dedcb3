//! The channels that compete: ours, tonic's balanced one, tonic's plain one.

use std::net::SocketAddr;
use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::{Instance, RegistrationGuard, Registry};
use sd_grpc::{BalancedChannel, ChannelConfig};
use tonic::transport::channel::Change;
use tonic::transport::{Channel, Endpoint};

use crate::Result;
use crate::calls::Client;

pub(crate) const OURS: &str = "sd-grpc BalancedChannel";
pub(crate) const OURS_ALONE: &str = "sd-grpc, one endpoint";
pub(crate) const TONIC_BALANCED: &str = "tonic balance_channel";
pub(crate) const TONIC: &str = "tonic Channel, one endpoint";

const SERVICE: &str = "greeter";

/// What must live as long as our channel.
type Kept = (Registry, Vec<RegistrationGuard>);

/// Ours over an embedded registry.
pub(crate) async fn ours(
    name: &'static str,
    addresses: &[SocketAddr],
    config: ChannelConfig,
) -> Result<Client> {
    let registry = Memory::new().connect();
    let mut guards = Vec::new();
    for address in addresses {
        let instance = Instance::new(SERVICE, address.to_string())?;
        guards.push(registry.register(instance).await?);
    }
    let channel = BalancedChannel::builder(&registry, SERVICE)
        .config(config)
        .build()?;
    let kept: Kept = (registry, guards);
    Ok(Client::new(name, true, channel, kept))
}

/// tonic's over the same addresses, given before the first call.
pub(crate) async fn tonic_balanced(addresses: &[SocketAddr]) -> Result<Client> {
    let (channel, changes) = Channel::balance_channel(addresses.len().max(1));
    for address in addresses {
        changes
            .send(Change::Insert(*address, endpoint(*address)?))
            .await?;
    }
    Ok(Client::new(TONIC_BALANCED, false, channel, changes))
}

/// tonic's plain channel to one address.
pub(crate) fn tonic(address: SocketAddr) -> Result<Client> {
    let channel = endpoint(address)?.connect_lazy();
    Ok(Client::new(TONIC, false, channel, ()))
}

/// As its users are told to set it, with a limit for connecting as ours has.
fn endpoint(address: SocketAddr) -> Result<Endpoint> {
    let connect_timeout = ChannelConfig::default().connect_timeout;
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect_timeout(connect_timeout.max(Duration::from_secs(1))))
}
