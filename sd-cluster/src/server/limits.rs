//! What the service lets in and keeps.

/// What a service lets in and keeps at most. What comes beyond is refused, and harms nothing that is there.
///
/// ```
/// # use sd_cluster::server::Limits;
/// let mut limits = Limits::default();
/// limits.connections = 100;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections of modules at a time. 4096 by default.
    pub connections: usize,
    /// Those of them that are from one address, or one network (/64) of IPv6. 2048 by default. Behind a proxy all modules have its address:
    /// raise this and [`in_flight_bytes_per_peer`](Self::in_flight_bytes_per_peer) there to what all of them need.
    pub connections_per_peer: usize,
    /// Bytes of all large messages that are under way: half received, waiting to be handled, or sent to modules that take them slowly; what
    /// many are sent counts once. When there is no room, the connections whose messages are under way for longest are closed with code
    /// 1013. At least 8 MiB, 128 MiB by default.
    ///
    /// Large are messages that are sent and have more than 64 KiB, and those that are received and take more than 128 KiB of memory. Of
    /// smaller ones each connection has a few at most, which do not count: [`connections`](Self::connections) bounds them.
    pub in_flight_bytes: usize,
    /// Those of them of one address, or one network of IPv6. At least 8 MiB, 64 MiB by default.
    pub in_flight_bytes_per_peer: usize,
    /// Modules that are known: those that are connected or have a configuration. 10 000 by default.
    pub modules: usize,
    /// Modules that one connection may require. 256 by default.
    pub required_modules: usize,
    /// Bytes of what one instance declares when it is ready, as JSON. All declarations together have 4 MiB, which is what modules read
    /// of the routes: without this, one module could take the room of all others. 1 MiB by default, which is some 7000 endpoints.
    pub declaration_bytes: usize,
    /// Variables. 1000 by default.
    pub variables: usize,
    /// Versions that are kept of each configuration, the current one included: at least 1. 64 by default.
    pub versions: usize,
    /// Bytes of all configurations with their versions, schemas and variables. 256 MiB by default.
    pub stored_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_peer: 2048,
            in_flight_bytes: 128 << 20,
            in_flight_bytes_per_peer: 64 << 20,
            modules: 10_000,
            required_modules: 256,
            declaration_bytes: 1 << 20,
            variables: 1000,
            versions: 64,
            stored_bytes: 256 << 20,
        }
    }
}
