%% The epmd module that `meshx exec` gives to the VM (`erl -epmd_module meshx_epmd`).
%%
%% Instead of EPMD it asks the private front door of its own workload, over the Unix socket named by
%% the environment variable MESHX_EPMD_SOCKET. The wire format is EPMD's (erl_dist_protocol, "EPMD
%% Protocol"). Three fields say more than EPMD knows; the other end is the Rust module
%% meshx_dist::epmd::front_door:
%%
%%   extra of ALIVE2_REQ         "meshx1:FAMILY:HOST", HOST empty if it is not known yet
%%   name of PORT_PLEASE2_REQ    "NODE@HOST", or "NODE@HOST/inet6" if an IPv6 address is wanted
%%   extra of PORT2_RESP         empty: dial 127.0.0.1 or ::1; or "meshx1:ADDRESS": dial this one
%%
%% FAMILY is inet or inet6. NAMES_REQ is EPMD's own.
%%
%% The registration lives as long as its connection. A process of our own, registered as meshx_epmd,
%% holds it, registers again every 2 s while the front door is away, and ends with the process that
%% called register_node/3, which is net_kernel: so net_kernel:stop() gives the name back.
%%
%% The VM registers before it sets its name, so the host may be unknown then (net_kernel:start/1 in a
%% VM without -name), or be another than the command line's. The process therefore looks until node()
%% is set, and if that host is not the one it told, registers again with the true one over a new
%% connection, then closes the old one. The VM keeps the creation of the first registration.
%%
%% One compiled file serves OTP 23 to 29, so it may only hold instructions that all of them load.
%% No single compiler target gives that: OTP 28 dropped instructions that OTP 23 needs for funs, for
%% building binaries, and for clearing stack slots. Hence the style: no funs, no binaries, bytes as
%% lists, and small functions that keep the same values from their first call to their last. build.sh
%% refuses a file with any other instruction.
-module(meshx_epmd).

%% What the VM calls.
-export([start_link/0, register_node/3, address_please/3, names/1]).
%% Where the process that holds the lease begins; nobody else calls it.
-export([lease/2]).

-define(SOCKET, "MESHX_EPMD_SOCKET").

-define(ALIVE2_REQ, 120).
-define(ALIVE2_RESP, 121).
-define(ALIVE2_X_RESP, 118).
-define(PORT_PLEASE2_REQ, 122).
-define(PORT2_RESP, 119).
-define(NAMES_REQ, 110).

-define(NODE_NORMAL, 77).
-define(PROTOCOL_TCP, 0).
-define(DIST_HIGH, 6).
-define(DIST_LOW, 5).

%% How long a registration may take, as with EPMD.
-define(REGISTER_MS, 10000).
%% How long a question may take. The VM asks twice within the 7 s of net_setuptime, the first time
%% in the process net_kernel, for which everybody waits.
-define(ASK_MS, 2500).
%% How often the node's name is looked at until it is set, which is right after a registration, and
%% how many times at most (10 s).
-define(LOOK_MS, 20).
-define(LOOKS, 500).
%% Between attempts to register again.
-define(RETRY_MS, 2000).
%% How long the lease of an earlier start of the distribution may take to end.
-define(END_MS, 1000).
%% The most bytes of a reply: PORT2_RESP has at most 1289, NAMES one line for each node.
-define(REPLY_MAX, 1048576).
-define(OPTIONS, [local, list, {active, false}, {packet, raw}, {send_timeout, ?ASK_MS}]).

%% One request and what became of it. Fields are read in patterns only (see above).
-record(ask, {kind, request, deadline, socket}).
%% A registration: who, the connection that holds it, and how often to look for the node's name yet.
-record(lease, {name, host, port, family, monitor, socket, looks = ?LOOKS}).

%% ---- callbacks

%% Nothing to supervise: the lease starts with the registration.
start_link() ->
    ignore.

%% Called by net_kernel once it listens. Name is the part before the @, an atom or a string; Driver
%% is inet_tcp or inet6_tcp up to OTP 25, inet or inet6 later.
register_node(Name, Port, Driver) ->
    register_text(text(Name), Port, family(Driver)).

%% Called twice for each connection, with strings. Host may be an address, too.
address_please(Name, Host, Family) ->
    address(family(Family), text(Name), text(Host)).

%% The nodes that the front door knows, whatever Host is.
names(_Host) ->
    names_reply(exchange(?ASK_MS, #ask{kind = names, request = [?NAMES_REQ]})).

%% ---- registration

register_text(Name, Port, Family) ->
    register_text(Name, own_host(Name), Port, Family).

register_text(Name, Host, Port, Family) ->
    start_lease(#lease{name = Name, host = Host, port = Port, family = Family}).

start_lease(Lease) ->
    ended = earlier_lease(whereis(?MODULE)),
    await_lease(spawn_monitor(?MODULE, lease, [self(), Lease])).

await_lease({Lease, Monitor}) ->
    receive
        {Lease, Result} -> forget(Monitor, Result);
        {'DOWN', Monitor, process, Lease, Reason} -> {error, Reason}
    end.

%% A quick stop and start under the same name must not find its own old lease. Its owner has ended by
%% now, so if it does not end by itself it waits for the front door.
earlier_lease(undefined) -> ended;
earlier_lease(Lease) -> await_end(Lease, monitor(process, Lease)).

await_end(Lease, Monitor) ->
    receive
        {'DOWN', Monitor, process, _, _} -> ended
    after ?END_MS ->
        end_lease(Lease, Monitor)
    end.

end_lease(Lease, Monitor) ->
    true = exit(Lease, kill),
    receive
        {'DOWN', Monitor, process, _, _} -> ended
    end.

forget(Monitor, Result) ->
    _ = demonitor(Monitor, [flush]),
    Result.

%% The process behind a registration.
lease(Owner, Lease) ->
    true = register(?MODULE, self()),
    watched(Owner, with_monitor(Lease, monitor(process, Owner))).

watched(Owner, Lease) ->
    granted(alive(Lease), Owner, Lease).

granted({ok, Socket, Creation}, Owner, Lease) ->
    Owner ! {self(), {ok, Creation}},
    hold(with_socket(Lease, Socket));
granted(Error, Owner, _Lease) ->
    Owner ! {self(), Error}.

hold(Lease = #lease{socket = Socket, looks = 0}) ->
    hold(inet:setopts(Socket, [{active, once}]), infinity, Lease);
hold(Lease = #lease{socket = Socket}) ->
    hold(inet:setopts(Socket, [{active, once}]), ?LOOK_MS, Lease).

%% Any word from the front door, and its end, mean that the registration is lost.
hold(ok, Ms, Lease = #lease{monitor = Monitor, socket = Socket}) ->
    receive
        {'DOWN', Monitor, process, _, _} -> gen_tcp:close(Socket);
        {tcp_closed, Socket} -> lost(Lease);
        {tcp_error, Socket, _} -> lost(Lease);
        {tcp, Socket, _} -> lost(Lease)
    after Ms ->
        look(node(), Lease)
    end;
hold({error, _}, _Ms, Lease) ->
    lost(Lease).

look(nonode@nohost, Lease = #lease{looks = Looks}) ->
    hold(with_looks(Lease, Looks - 1));
look(Node, Lease) ->
    look_at(atom_to_list(Node), with_looks(Lease, 0)).

look_at(Full, Lease = #lease{name = Name}) ->
    found_host(without(Name, Full), Lease).

found_host("@" ++ Host, Lease = #lease{host = Host}) -> hold(Lease);
found_host("@" ++ Host, Lease) -> correct(with_host(Lease, Host));
found_host(_, Lease) -> hold(Lease).

correct(Lease) ->
    corrected(alive(Lease), Lease).

%% The VM keeps the creation that it has.
corrected({ok, Socket, _Creation}, Lease = #lease{socket = Old}) ->
    hold(close(Old, with_socket(Lease, Socket)));
corrected({error, _}, Lease) ->
    lost(Lease).

lost(Lease = #lease{socket = Socket}) ->
    _ = gen_tcp:close(Socket),
    renew(Lease).

renew(Lease = #lease{monitor = Monitor}) ->
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    after ?RETRY_MS ->
        renewed(alive(Lease), Lease)
    end.

renewed({ok, Socket, _Creation}, Lease) -> hold(with_socket(Lease, Socket));
renewed({error, _}, Lease) -> renew(Lease).

alive(#lease{name = Name, host = Host, port = Port, family = Family}) ->
    alive(Name, Port, ["meshx1:", atom_to_list(Family), ":", Host]).

alive(Name, Port, Extra) ->
    alive_request(Port, counted(Name), Extra).

alive_request(Port, Name, Extra) ->
    alive_fields(Port, Name, counted(lists:append(Extra))).

alive_fields(Port, Name, Extra) ->
    Fixed = [?ALIVE2_REQ, u16(Port), ?NODE_NORMAL, ?PROTOCOL_TCP, 0, ?DIST_HIGH, 0, ?DIST_LOW],
    alive_ask(#ask{kind = alive, request = [Fixed, Name, Extra]}).

alive_ask(Ask) ->
    alive_reply(exchange(?REGISTER_MS, Ask)).

%% What a record update compiles to is not for all releases (see above).
with_host(Lease, Host) -> setelement(#lease.host, Lease, Host).
with_monitor(Lease, Monitor) -> setelement(#lease.monitor, Lease, Monitor).
with_socket(Lease, Socket) -> setelement(#lease.socket, Lease, Socket).
with_looks(Lease, Looks) -> setelement(#lease.looks, Lease, Looks).

alive_reply({ok, Socket, {0, Creation}}) -> {ok, Socket, Creation};
alive_reply({ok, Socket, {_Refused, _}}) -> close(Socket, {error, duplicate_name});
alive_reply({closed, _}) -> {error, epmd_close};
alive_reply(Error) -> Error.

%% ---- questions

address(Family, Name, Host) ->
    Wanted = lists:append([[?PORT_PLEASE2_REQ], Name, "@", Host, suffix(Family)]),
    found(exchange(?ASK_MS, #ask{kind = port, request = Wanted}), Family).

suffix(inet) -> "";
suffix(inet6) -> "/inet6".

found({ok, Socket, Reply}, Family) -> found(close(Socket, Reply), Family);
found({found, Port, Highest, Extra}, Family) -> found(target(Extra, Family), Port, Highest);
found({closed, _}, _Family) -> {error, epmd_close};
found({error, _} = Error, _Family) -> Error.

found({ok, Address}, Port, Highest) -> {ok, Address, Port, min(Highest, ?DIST_HIGH)};
found(error, _Port, _Highest) -> {error, eafnosupport}.

target("", inet) -> {ok, {127, 0, 0, 1}};
target("", inet6) -> {ok, {0, 0, 0, 0, 0, 0, 0, 1}};
target("meshx1:" ++ Address, inet) -> parsed_target(inet:parse_ipv4strict_address(Address));
target("meshx1:" ++ Address, inet6) -> parsed_target(inet:parse_ipv6strict_address(Address));
target(_, _) -> error.

parsed_target({ok, _} = Address) -> Address;
parsed_target(_) -> error.

names_reply({closed, [_, _, _, _ | Text]}) -> {ok, names_lines(string:lexemes(Text, "\n"))};
names_reply(_) -> {error, address}.

names_lines([]) -> [];
names_lines([Line | Lines]) -> names_line(string:lexemes(Line, " "), Lines).

names_line(["name", Name, "at", "port", Digits], Lines) -> name_at(Name, port(Digits), Lines);
names_line(_, Lines) -> names_lines(Lines).

name_at(_Name, error, Lines) -> names_lines(Lines);
name_at(Name, Port, Lines) -> [{Name, Port} | names_lines(Lines)].

port(Digits) ->
    try list_to_integer(Digits) catch error:badarg -> error end.

%% ---- one request, one reply
%%
%% exchange/2 gives {ok, Socket, Reply} once a whole reply is there, {closed, Bytes} if the front
%% door closed before, or {error, Reason}; only the first leaves the socket open.

exchange(Ms, Ask) ->
    connect(os:getenv(?SOCKET), Ms, Ask).

connect(false, _Ms, _Ask) -> no_socket();
connect(Path, Ms, Ask) -> connect(Path, Ms, erlang:monotonic_time(millisecond) + Ms, Ask).

connect(Path, Ms, Deadline, #ask{kind = Kind, request = Request}) ->
    connected(try_connect(Path, Ms), Kind, Request, Deadline).

%% A path that cannot be a socket's is an exception, and should not be one here.
try_connect(Path, Ms) ->
    try gen_tcp:connect({local, Path}, 0, ?OPTIONS, Ms) catch _:_ -> {error, einval} end.

connected({ok, Socket}, Kind, Request, Deadline) ->
    send(Socket, counted(Request), #ask{kind = Kind, deadline = Deadline, socket = Socket});
connected(Error, _Kind, _Request, _Deadline) ->
    Error.

send(Socket, Bytes, Ask) ->
    sent(gen_tcp:send(Socket, Bytes), Ask).

sent(ok, Ask) -> collect("", Ask);
sent(Error, #ask{socket = Socket}) -> close(Socket, Error).

collect(Bytes, Ask = #ask{kind = Kind}) when length(Bytes) =< ?REPLY_MAX ->
    collected(reply(Kind, Bytes), Bytes, Ask);
collect(_Bytes, #ask{socket = Socket}) ->
    close(Socket, {error, emsgsize}).

collected(more, Bytes, Ask) -> received(receive_more(Ask), Bytes, Ask);
collected({error, _} = Error, _Bytes, #ask{socket = Socket}) -> close(Socket, Error);
collected(Reply, _Bytes, #ask{socket = Socket}) -> {ok, Socket, Reply}.

receive_more(#ask{socket = Socket, deadline = Deadline}) ->
    gen_tcp:recv(Socket, 0, max(0, Deadline - erlang:monotonic_time(millisecond))).

received({ok, More}, Bytes, Ask) -> collect(Bytes ++ More, Ask);
received({error, closed}, Bytes, #ask{socket = Socket}) -> close(Socket, {closed, Bytes});
received(Error, _Bytes, #ask{socket = Socket}) -> close(Socket, Error).

close(Socket, Result) ->
    _ = gen_tcp:close(Socket),
    Result.

%% What the bytes so far are: more, {error, Reason} or the reply.
reply(alive, [?ALIVE2_X_RESP, Result, A, B, C, D]) ->
    {Result, A bsl 24 bor (B bsl 16) bor (C bsl 8) bor D};
reply(alive, [?ALIVE2_RESP, Result, A, B]) ->
    {Result, A bsl 8 bor B};
reply(alive, Bytes) when length(Bytes) < 6 ->
    more;
reply(port, [?PORT2_RESP, 0, P1, P0, _Type, _Protocol, H1, H0, _, _, N1, N0 | Rest]) ->
    port_reply(P1 bsl 8 bor P0, H1 bsl 8 bor H0, N1 bsl 8 bor N0, Rest);
reply(port, [?PORT2_RESP, Result | _]) when Result =/= 0 ->
    {error, nxdomain};
reply(port, Bytes) when length(Bytes) < 12 ->
    more;
reply(names, _Bytes) ->
    more; % ends with the connection
reply(_Kind, _Bytes) ->
    {error, garbage_from_epmd}.

port_reply(Port, Highest, NameLength, Rest) when length(Rest) >= NameLength + 2 ->
    port_extra(Port, Highest, lists:nthtail(NameLength, Rest));
port_reply(_Port, _Highest, _NameLength, _Rest) ->
    more.

port_extra(Port, Highest, [E1, E0 | Extra]) when length(Extra) >= E1 bsl 8 bor E0 ->
    {found, Port, Highest, lists:sublist(Extra, E1 bsl 8 bor E0)};
port_extra(_Port, _Highest, _Extra) ->
    more.

%% ---- small parts

counted(Text) ->
    [u16(iolist_size(Text)) | Text].

u16(Number) ->
    [Number bsr 8 band 255, Number band 255].

family(inet6) -> inet6;
family(inet6_tcp) -> inet6;
family(_) -> inet.

text(Atom) when is_atom(Atom) -> atom_to_list(Atom);
text(Address) when is_tuple(Address) -> inet:ntoa(Address);
text(String) -> String.

%% The VM does not say its host when it registers; the command line may. After a -sname without a host
%% the VM takes that of the machine.
own_host(Name) ->
    own_host(init:get_argument(sname), Name).

own_host({ok, Values}, Name) -> own_short_host(lists:member([Name], Values), Name, Values);
own_host(error, Name) -> own_long_host(init:get_argument(name), Name).

own_short_host(true, _Name, _Values) -> inet_db:gethostname();
own_short_host(false, Name, Values) -> host_of(Name, Values).

own_long_host({ok, Values}, Name) -> host_of(Name, Values);
own_long_host(error, _Name) -> "".

host_of(_Name, []) -> "";
host_of(Name, [[Full] | More]) -> host_of(without(Name, Full), Name, More);
host_of(Name, [_ | More]) -> host_of(Name, More).

host_of("@" ++ Host, _Name, _More) -> Host;
host_of(_, Name, More) -> host_of(Name, More).

without([Same | Name], [Same | Full]) -> without(Name, Full);
without([], Rest) -> Rest;
without(_, _) -> "".

%% The VM's own message at boot has only the reason, so this says what to do.
no_socket() ->
    _ = try_print("meshx_epmd: the environment variable " ?SOCKET
                  " is not set; this module works only under meshx exec\n"),
    {error, {not_set, ?SOCKET}}.

%% Early at boot there may be no standard_error yet.
try_print(Line) ->
    try io:put_chars(standard_error, Line) catch _:_ -> erlang:display_string(Line) end.
