//! What meshx exec does: runs a program as a mesh service, with an EPMD front door for Erlang.
