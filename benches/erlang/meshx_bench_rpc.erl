%% `:erpc' between two stock nodes, for `meshx-benches rpc': the same cells and the same lines as
%% `src/rpc/load.rs'.
-module(meshx_bench_rpc).
-export([serve/0, echo/1, drive/3]).

serve() -> io:format("ready ~s~n", [node()]).

echo(Body) -> Body.

%% A fifth of each cell before it, to warm up.
drive(Peer, Millis, Cells) ->
    connect(Peer, 500),
    lists:foreach(
        fun({What, AtOnce} = Cell) ->
            _ = run(Peer, Millis div 5, Cell),
            say("begin ~s:~b~n", [What, AtOnce]),
            {Calls, Micros, Times} = run(Peer, Millis, Cell),
            say("end ~b ~b~n", [Calls, Micros]),
            Sorted = list_to_tuple(lists:sort(Times)),
            say("times ~b ~b ~b~n", [percentile(Sorted, Rank) || Rank <- [500, 990, 999]])
        end, Cells),
    say("done~n", []).

%% The reader looks at CPU times when a line comes.
say(Format, Arguments) ->
    timer:sleep(20),
    io:format(Format, Arguments),
    timer:sleep(20).

connect(_, 0) -> halt(1);
connect(Peer, Left) ->
    case net_kernel:connect_node(Peer) of
        true -> ok;
        _ -> timer:sleep(20), connect(Peer, Left - 1)
    end.

run(Peer, Millis, {What, AtOnce}) ->
    Begun = now_ns(),
    Until = Begun + Millis * 1000000,
    Size = case What of small -> 32; _ -> 1048576 end,
    Callers = [start(Peer, Size, Until) || _ <- lists:seq(1, AtOnce)],
    Pings = [start(Peer, 32, Until) || What =:= beside],
    Done = [wait(Caller) || Caller <- Callers],
    Micros = (now_ns() - Begun) div 1000,
    Timed = case Pings of [] -> Done; _ -> [wait(Ping) || Ping <- Pings] end,
    {lists:sum([Calls || {Calls, _} <- Done]), Micros, lists:append([Times || {_, Times} <- Timed])}.

start(Peer, Size, Until) ->
    Body = binary:copy(<<1>>, Size),
    spawn_monitor(fun() -> exit({done, call(Peer, Body, Until, now_ns(), 0, [])}) end).

wait({_, Ref}) ->
    receive {'DOWN', Ref, process, _, {done, Result}} -> Result end.

call(_, _, Until, Last, Calls, Times) when Last >= Until ->
    {Calls, Times};
call(Peer, Body, Until, Last, Calls, Times) ->
    Body = erpc:call(Peer, ?MODULE, echo, [Body]),
    Now = now_ns(),
    call(Peer, Body, Until, Now, Calls + 1, [Now - Last | Times]).

now_ns() -> erlang:monotonic_time(nanosecond).

percentile({}, _) -> 0;
percentile(Sorted, Rank) ->
    Count = tuple_size(Sorted),
    element(min(Count * Rank div 1000 + 1, Count), Sorted).
