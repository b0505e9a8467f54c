//! Erlang distribution handshake and EPMD as pure codecs: no sockets, no clock.
