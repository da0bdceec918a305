"""The forward code of a traced network cut into its residual blocks, to be run one by one."""

from __future__ import annotations

from torch import fx


def cut_into_blocks(graph_module: fx.GraphModule) -> list[fx.GraphModule]:
    """Parts that one after the other compute what the whole network does.

    Cut is where one map alone passes on and is read more than once: between residual blocks. Such a
    map is never overwritten in place.

    Args:
        graph_module: one input; returns a tuple of maps.

    Returns:
        Parts with one input each, the output of the part before. A part returns a tuple of those of
        the network's maps that it makes and, last, what the next part reads.
    """
    nodes = [node for node in graph_module.graph.nodes if node.op not in ("placeholder", "output")]
    (start,) = (node for node in graph_module.graph.nodes if node.op == "placeholder")
    (output,) = (node for node in graph_module.graph.nodes if node.op == "output")
    (wanted,) = output.args
    assert isinstance(wanted, tuple)
    place = {node: index for index, node in enumerate(nodes)}
    readers = {node: [place[user] for user in node.users if user is not output] for node in nodes}
    parts: list[fx.GraphModule] = []
    first, furthest = 0, -1
    for index, node in enumerate(nodes):
        is_last = index == len(nodes) - 1
        # Nothing from before this node is read after it.
        if is_last or (furthest <= index and len(readers[node]) > 1):
            part = nodes[first : index + 1]
            made = [each for each in wanted if each in part]
            parts.append(_part(graph_module, start, part, [*made, node]))
            first, start = index + 1, node
        furthest = max(furthest, *readers[node], -1)
    return parts


def _part(
    graph_module: fx.GraphModule, start: fx.Node, nodes: list[fx.Node], results: list[fx.Node]
) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {start: graph.placeholder("x")}
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda old: copies[old])
    graph.output(tuple(copies[node] for node in results))
    return fx.GraphModule(graph_module, graph)
