%% What stock nodes run in `meshx-benches node`: the peer that answers, and the driver that asks.
-module(meshx_bench).
-export([peer/0, drive/2]).

-define(SMALL, 100).
-define(LARGE, 1048576).

%% Registers `sink` and `echo`, as the Rust peer does.
peer() ->
    register(sink, spawn(fun sink/0)),
    register(echo, spawn(fun echo/0)),
    io:format("ready~n").

sink() ->
    receive
        {flush, From} -> From ! flushed, sink();
        _ -> sink()
    end.

echo() ->
    receive {From, Message} -> From ! Message, echo() end.

%% Runs each workload against a peer: a line before, a line with count and microseconds after.
drive(Peer, Counts) ->
    connect(Peer, 500),
    lists:foreach(
        fun({Name, Count}) ->
            run(Name, Peer, Count div 10 + 1),
            say("begin ~s~n", [Name]),
            {Micros, ok} = timer:tc(fun() -> run(Name, Peer, Count) end),
            say("end ~b ~b~n", [Count, Micros])
        end, Counts),
    say("done~n", []).

%% The reader looks at the peer's CPU time when a line comes.
say(Format, Arguments) ->
    timer:sleep(50),
    io:format(Format, Arguments),
    timer:sleep(50).

connect(_, 0) -> halt(1);
connect(Peer, Left) ->
    case net_kernel:connect_node(Peer) of
        true -> ok;
        _ -> timer:sleep(20), connect(Peer, Left - 1)
    end.

run(oneway, Peer, Count) ->
    stream({sink, Peer}, binary:copy(<<1>>, ?SMALL), Count);
run(large, Peer, Count) ->
    stream({sink, Peer}, binary:copy(<<1>>, ?LARGE), Count);
run(rtt1, Peer, Count) ->
    ping({echo, Peer}, binary:copy(<<1>>, ?SMALL), Count);
run(rtt64, Peer, Count) ->
    Binary = binary:copy(<<1>>, ?SMALL),
    Each = Count div 64 + 1,
    Pids = [spawn_monitor(fun() -> ping({echo, Peer}, Binary, Each) end) || _ <- lists:seq(1, 64)],
    [receive {'DOWN', Ref, process, _, normal} -> ok end || {_, Ref} <- Pids],
    ok.

stream(To, _, 0) ->
    To ! {flush, self()},
    receive flushed -> ok end;
stream(To, Binary, Count) ->
    To ! Binary,
    stream(To, Binary, Count - 1).

ping(_, _, 0) -> ok;
ping(To, Binary, Count) ->
    To ! {self(), Binary},
    receive Binary -> ping(To, Binary, Count - 1) end.
