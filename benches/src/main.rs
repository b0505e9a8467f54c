//! Numbers that a user feels: how fast things start, how fast a deny works, what a round trip through
//! two sidecars costs, how much memory an idle one takes.
//!
//! Peers are measured in the same run on the same machine: plain Erlang distribution, and Consul's
//! own proxy. What is not there (Erlang, Consul) is left out. `MESHX_BIN` should name a release
//! build; `cargo xtask bench` sees to that.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to say")]

mod echo;
mod memory;
mod policy;
mod sample;
mod startup;
mod traffic;

use sample::say;

fn main() {
    say("| what | peer | p50 | p99 or worst | aim |");
    say("|---|---|--:|--:|--:|");
    startup::agent_ready();
    startup::exec_true();
    startup::two_nodes_connected();
    policy::deny_to_cut();
    memory::idle_sidecar();
    traffic::through_a_pair_of_sidecars();
}
