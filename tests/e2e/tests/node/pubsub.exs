# What Phoenix.PubSub with its adapter PG2 does between nodes: the same scope, groups, names of
# processes and messages. Dispatch on one node is by a Registry there, too.
defmodule LikePhoenix do
  def start(name, pool) do
    {:ok, _} = :pg.start(Phoenix.PubSub)
    {:ok, _} = Registry.start_link(keys: :duplicate, name: name)

    for number <- 1..pool do
      group = group(name, number)
      {:ok, _} = GenServer.start(LikePhoenix.Worker, {name, group}, name: group)
    end

    :ok
  end

  def subscribe(name, topic) do
    {:ok, _} = Registry.register(name, topic, nil)
    :ok
  end

  def broadcast(name, pool, topic, message) do
    group = group(name, 1 + :erlang.phash2(self(), pool))
    forward = {:forward_to_local, topic, message, Phoenix.PubSub}

    for pid <- :pg.get_members(Phoenix.PubSub, group), node(pid) != node() do
      send(pid, forward)
    end

    dispatch(name, topic, message)
  end

  def direct_broadcast(node, name, topic, message) do
    send({group(name, 1), node}, {:forward_to_local, topic, message, Phoenix.PubSub})
    :ok
  end

  def dispatch(name, topic, message) do
    Registry.dispatch(name, topic, fn subscribers ->
      for {pid, _} <- subscribers, do: send(pid, message)
    end)
  end

  defp group(name, 1), do: Module.concat(name, "Adapter")
  defp group(name, number), do: :"#{group(name, 1)}_#{number}"
end

defmodule LikePhoenix.Worker do
  use GenServer

  def init({name, group}) do
    :ok = :pg.join(Phoenix.PubSub, group, self())
    {:ok, name}
  end

  def handle_info({:forward_to_local, topic, message, Phoenix.PubSub}, name) do
    LikePhoenix.dispatch(name, topic, message)
    {:noreply, name}
  end
end
