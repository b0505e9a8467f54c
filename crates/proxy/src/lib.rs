//! The L4 mTLS sidecar: inbound, outbound, balancing, authorisation on live connections, drain.
