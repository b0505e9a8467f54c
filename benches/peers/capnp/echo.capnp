# `src/echo_capnp.rs` is made of this by the compiler of Cap'n Proto (Debian: `capnproto`, 0.9.2) and the
# plugin `capnpc-rust` (`cargo install capnpc --version 0.27.0`), and kept, so that no build wants them:
#
#     capnp compile -orust:src echo.capnp
#
# The plugin and what it writes are under the MIT licence, as capnproto-rust is.

@0x9e6f05c15405d040;

interface Echo {
  echo @0 (body :Data) -> (body :Data);
}
