//! What `--help` says after the options: examples, and the exit statuses.

use std::fmt::Write;

use crate::exit::TABLE;

/// Of the whole program.
pub(super) fn after() -> String {
    let mut text = "Examples:
  export SDCTL_REGISTRY=etcd://127.0.0.1:2379/services
  sdctl register greeter 10.0.0.7:50051 --zone a &
  sdctl list greeter
  sdctl --registry consul://127.0.0.1:8500 services

Exit status:
"
    .to_owned();
    for (status, meaning) in TABLE {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {status:<8}  {meaning}");
    }
    text
}

pub(super) const SERVICES: &str = "Examples:
  sdctl services
  sdctl services --watch --json";

pub(super) const LIST: &str = "Examples:
  sdctl list greeter
  sdctl list greeter --timeout 1s --json | jq -r '.instances[].address'";

pub(super) const WATCH: &str = "Examples:
  sdctl watch greeter
  sdctl watch greeter --json";

pub(super) const WAIT_FOR: &str = "Examples:
  sdctl wait-for greeter
  sdctl wait-for greeter --count 3 --timeout 1m

It counts instances that are listed and ready, and not those that are only held.";

pub(super) const REGISTER: &str = "Examples:
  sdctl register greeter 10.0.0.7:50051
  sdctl register greeter 10.0.0.7:50051 --id g-1 --zone a --meta team=blue --ttl 30s
  sdctl register greeter 10.0.0.7:50051 --check tcp,interval=5s -- ./greeter
  sdctl register greeter 10.0.0.7:50051 --check http:/healthz --check grpc --drain-for 10s -- ./greeter

Checks, KIND[:WHAT][,OPTION=VALUE]... with a comma in WHAT or VALUE written twice:
  tcp[:HOST:PORT]                    a connection is accepted
  http[:PATH] or http://HOST/PATH    GET is answered with 2xx; /healthz by default
  grpc[:SERVICE][@HOST:PORT]         grpc.health.v1 says SERVING
  command:PROGRAM ARGUMENT ...       the program ends with 0; no shell runs
  pid:PID                            the process lives
Options: name; interval (10s), timeout (2s), passes_after (1), fails_after (2), initial (failing).

It is registered once all checks pass, and not ready while one fails. At a signal it drains,
stops the command and deregisters, in this order.";

pub(super) const DRAIN: &str = "Examples:
  sdctl drain greeter g-1";

pub(super) const READY: &str = "Examples:
  sdctl ready greeter g-1";

pub(super) const UNREADY: &str = "Examples:
  sdctl unready greeter g-1";

pub(super) const CLEAR: &str = "Examples:
  sdctl clear greeter g-1";

pub(super) const DEREGISTER: &str = "Examples:
  sdctl deregister greeter g-1";

pub(super) const ELECT: &str = "Examples:
  sdctl elect reports/nightly
  sdctl elect reports/nightly --value host-7 --ttl 10s -- ./worker";

pub(super) const LEADER: &str = "Examples:
  sdctl leader reports/nightly
  sdctl leader reports/nightly --watch --json";

pub(super) const AGENT: &str = "Examples:
  sdctl agent status
  sdctl agent --agent unix:/run/sd-agent.sock status --json
  sdctl agent --agent https://10.0.0.7:15443 --ca /etc/agent-ca.pem --token-file /etc/agent.token status
  sdctl agent stop --keep

--agent and all that says how it is asked stand before status or stop, or after it.";

#[cfg(feature = "config-service")]
pub(super) const CONFIG_SERVICE: &str = "Examples:
  sdctl config-service serve --file /var/lib/config-service.sqlite --token-file /etc/config-service.token
  sdctl config-service modules
  sdctl config-service get orders --json
  sdctl config-service set orders orders.json --over 3 --token-file /etc/config-service.token

Other than looking at the modules, everything needs the token.";

#[cfg(not(feature = "config-service"))]
pub(super) const CONFIG_SERVICE: &str = "Examples:
  sdctl config-service modules
  sdctl config-service get orders --json
  sdctl config-service set orders orders.json --over 3 --token-file /etc/config-service.token

It is the service of sd-cluster, with its address for operators. Other than looking at the modules, everything needs the token.
A sdctl that was built with the feature config-service also runs one.";

pub(super) const COMPLETION: &str = "Examples:
  sdctl completion bash > /etc/bash_completion.d/sdctl
  sdctl completion zsh > ~/.zfunc/_sdctl
  sdctl completion fish > ~/.config/fish/completions/sdctl.fish";

pub(super) const MAN: &str = "Examples:
  sdctl man > sdctl.1
  sdctl man /usr/local/share/man/man1";
