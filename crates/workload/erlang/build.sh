#!/bin/sh
# Builds meshx_epmd.beam from meshx_epmd.erl with Erlang/OTP 25.
#
#   build.sh          writes the file beside its source
#   build.sh --check  builds it elsewhere and compares; ends with 1 if they differ
#
# The compiler's target is OTP 23; portable.escript checks that the result also loads on later
# releases, and reduces it to what does not depend on the machine.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
pinned=25

release=$(erl -noshell -eval 'io:put_chars(erlang:system_info(otp_release)), halt().')
if [ "$release" != "$pinned" ]; then
    echo "build.sh: Erlang/OTP $pinned is needed, this is $release" >&2
    exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
erlc -Werror +deterministic +r23 -o "$work" "$here/meshx_epmd.erl"
escript "$here/portable.escript" "$work/meshx_epmd.beam" "$work/portable.beam"

case "${1:-}" in
--check)
    if ! cmp -s "$work/portable.beam" "$here/meshx_epmd.beam"; then
        echo "build.sh: meshx_epmd.beam is not what meshx_epmd.erl compiles to; run build.sh" >&2
        exit 1
    fi
    ;;
"")
    cp "$work/portable.beam" "$here/meshx_epmd.beam"
    ;;
*)
    echo "usage: build.sh [--check]" >&2
    exit 2
    ;;
esac
