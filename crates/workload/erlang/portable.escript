#!/usr/bin/env escript
%% portable.escript IN OUT: makes of a compiled module the file that we check in.
%%
%% It refuses instructions that OTP 23 to 29 do not all load, and writes only the chunks that a
%% loader needs, so that the bytes depend on nothing but the source and the code generator: no
%% compiler version, no options, no debug information, and literals stored instead of compressed.
-mode(compile).

%% Each is in the loader of OTP 23 (up to instruction 170 of the compiler's genop.tab), and none is
%% marked there as obsolete in OTP 29. Before adding one, look it up.
-define(INSTRUCTIONS,
        [allocate, allocate_heap, badmatch, bif, call, call_ext, call_ext_last, call_ext_only,
         call_last, call_only, case_end, deallocate, func_info, gc_bif, get_hd, get_list, get_tl,
         get_tuple_element, is_atom, is_eq_exact, is_ge, is_list, is_lt, is_ne_exact, is_nil,
         is_nonempty_list, is_tagged_tuple, is_tuple, jump, label, line, loop_rec, loop_rec_end,
         move, put_list, put_tuple2, raise, remove_message, return, select_tuple_arity, select_val,
         send, swap, test_arity, test_heap, timeout, trim, 'try', try_case, try_end, wait,
         wait_timeout]).
-define(CHUNKS, ["AtU8", "Code", "StrT", "ImpT", "ExpT", "LitT", "Line"]).

main([In, Out]) ->
    case instructions(In) -- ?INSTRUCTIONS of
        [] ->
            {ok, _Module, Chunks} = beam_lib:all_chunks(In),
            {ok, Beam} = beam_lib:build_module([chunk(Name, Chunks) || Name <- ?CHUNKS]),
            ok = file:write_file(Out, Beam);
        Others ->
            io:format(standard_error,
                      "~s: not loadable by all of OTP 23 to 29, it has ~p; see the head of "
                      "meshx_epmd.erl for the style that avoids them~n", [In, Others]),
            halt(1)
    end.

instructions(File) ->
    {beam_file, _, _, _, _, Functions} = beam_disasm:file(File),
    lists:usort([name(I) || {function, _, _, _, Code} <- Functions, I <- Code]).

name({test, Test, _, _}) -> Test;
name({test, Test, _, _, _, _}) -> Test;
name(Instruction) when is_tuple(Instruction) -> element(1, Instruction);
name(Instruction) -> Instruction.

chunk("LitT" = Name, Chunks) ->
    {Name, <<Size:32, Compressed/binary>>} = lists:keyfind(Name, 1, Chunks),
    Literals = zlib:uncompress(Compressed),
    Size = byte_size(Literals),
    Stream = zlib:open(),
    ok = zlib:deflateInit(Stream, none),
    Stored = iolist_to_binary(zlib:deflate(Stream, Literals, finish)),
    {Name, <<Size:32, Stored/binary>>};
chunk(Name, Chunks) ->
    lists:keyfind(Name, 1, Chunks).
