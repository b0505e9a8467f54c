//! The embedded control plane for one machine: Consul's HTTP and DNS API, registry, checks, CA, intentions.
