// A C node by OTP's own library: the peer that answers, as `meshx_bench:peer/0` does.
// Arguments: NODE (without its host) COOKIE. Built and run by `meshx-benches node`.
#include <ei.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Sends `{Pid, Message}`'s message to its pid, or `flushed` to that of `{flush, Pid}`; anything
// else is taken and forgotten.
static void answer(int fd, const erlang_msg *message, ei_x_buff *in, ei_x_buff *out)
{
    int at = 0, version, arity;
    erlang_pid to;
    char atom[MAXATOMLEN];
    if (ei_decode_version(in->buff, &at, &version) || ei_decode_tuple_header(in->buff, &at, &arity))
        return;
    out->index = 0;
    ei_x_encode_version(out);
    if (strcmp(message->toname, "sink") == 0) {
        if (ei_decode_atom(in->buff, &at, atom) || ei_decode_pid(in->buff, &at, &to))
            return;
        ei_x_encode_atom(out, "flushed");
    } else {
        if (ei_decode_pid(in->buff, &at, &to))
            return;
        ei_x_append_buf(out, in->buff + at, in->index - at);
    }
    if (ei_send(fd, &to, out->buff, out->index) < 0)
        exit(1);
}

int main(int argc, char **argv)
{
    ei_cnode node;
    int port = 0, listener;
    struct in_addr address;
    ErlConnect peer;
    if (argc != 3)
        return 2;
    address.s_addr = htonl(INADDR_LOOPBACK);
    char full[256];
    snprintf(full, sizeof full, "%s@127.0.0.1", argv[1]);
    if (ei_init() || ei_connect_xinit(&node, "127.0.0.1", argv[1], full, &address, argv[2], 1) < 0)
        return 1;
    if ((listener = ei_listen(&node, &port, 5)) < 0 || ei_publish(&node, port) < 0)
        return 1;
    puts("ready");
    fflush(stdout);
    ei_x_buff in, out;
    ei_x_new(&in);
    ei_x_new(&out);
    // One driver after the other.
    for (;;) {
        int fd = ei_accept(&node, listener, &peer);
        if (fd < 0)
            continue;
        for (;;) {
            erlang_msg message;
            in.index = 0;
            int got = ei_xreceive_msg(fd, &message, &in);
            if (got == ERL_TICK)
                continue;
            if (got == ERL_ERROR)
                break;
            if (message.msgtype == ERL_REG_SEND)
                answer(fd, &message, &in, &out);
        }
        close(fd);
    }
}
