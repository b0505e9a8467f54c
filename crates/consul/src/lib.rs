//! HTTP client for a Consul agent (blocking queries, tokens, TLS, unix socket) and the registration adapter.
