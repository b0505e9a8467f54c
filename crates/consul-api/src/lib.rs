//! JSON types of Consul's HTTP API, shared by client and agent.
