"""Norms and activations replaced in the forward code of a network, which torch.fx has traced."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from seamless_pr.layers.abn import InPlaceABN, NormActFactory
from seamless_pr.layers.deformable import DeformableConv2d
from seamless_pr.layers.global_context import GlobalContext
from seamless_pr.layers.norm_act import LEAKY_SLOPE, Activated

RELU_FUNCTIONS = (F.relu, torch.relu, torch.relu_, F.relu_)
RELU_METHODS = ("relu", "relu_")


def trace(name: str, network: nn.Module) -> fx.GraphModule:
    """The forward code of a network, with its own modules.

    Args:
        name: of the network, for the message.

    Raises:
        ValueError: its code cannot be traced.
    """
    try:
        return fx.GraphModule(network, _LayerTracer().trace(network))
    except Exception as error:
        raise ValueError(
            f"backbone '{name}' cannot be traced by torch.fx ({error}); choose another one"
        ) from error


class _LayerTracer(fx.Tracer):
    """Takes norms, convolutions and whatever holds no norm or ReLU as single steps."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own_layers = nn.BatchNorm2d | nn.Conv2d | GlobalContext
        if isinstance(m, own_layers) or super().is_leaf_module(m, module_qualified_name):
            return True
        return not any(isinstance(part, nn.BatchNorm2d | nn.ReLU) for part in m.modules())


def replace_norms(graph_module: fx.GraphModule, norm_act: NormActFactory) -> None:
    """Puts a new layer in place of each BatchNorm2d, and of the ReLU behind it."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if isinstance(_module_of(graph_module, node), nn.Identity):
            _bypass(node)
    for node in list(graph.nodes):
        norm = _module_of(graph_module, node)
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        # timm's BatchNormAct2d brings its own activation.
        is_active = isinstance(getattr(norm, "act", None), nn.ReLU)
        readers = list(node.users)
        if not is_active and len(readers) == 1 and _is_relu(graph_module, readers[0]):
            is_active = True
            _bypass(readers[0])
        layer = norm_act(norm.num_features, "leaky_relu" if is_active else "identity")
        graph_module.set_submodule(str(node.target), layer)
        _protect_input(graph_module, node)


def _bypass(node: fx.Node) -> None:
    """Removes a step: its readers read its input."""
    node.replace_all_uses_with(node.all_input_nodes[0])
    node.graph.erase_node(node)


def _protect_input(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """The norm may overwrite its input: fine for a convolution's result that nobody else reads."""
    (source,) = node.all_input_nodes
    convolutions = (nn.Conv2d, DeformableConv2d)
    if len(source.users) == 1 and isinstance(_module_of(graph_module, source), convolutions):
        return
    with node.graph.inserting_before(node):
        node.replace_input_with(source, node.graph.call_method("clone", (source,)))


def replace_relus(graph_module: fx.GraphModule) -> None:
    """Makes the ReLUs that are left leaky, as those in the new layers are."""
    graph = graph_module.graph
    slope = _norm_slope(graph_module)
    # Sums are traced out of place, also where timm writes +=: a norm's output stays as it is.
    for node in list(graph.nodes):
        if not _is_relu(graph_module, node):
            continue
        (source,) = node.all_input_nodes
        is_sum = source.op == "call_function" and source.target in (operator.add, torch.add)
        in_place = is_sum and len(source.users) == 1
        with graph.inserting_before(node):
            leaky = _summing_norm(graph_module, source, slope) if in_place else None
            if leaky is None:
                leaky = graph.call_function(F.leaky_relu, (source, slope, in_place))
        node.replace_all_uses_with(leaky)
        graph.erase_node(node)
    graph.eliminate_dead_code()


def _summing_norm(graph_module: fx.GraphModule, total: fx.Node, slope: float) -> fx.Node | None:
    """An in-place norm that adds the other part of a sum itself, and activates it.

    Args:
        graph_module: into whose code it goes, where new steps are inserted.
        total: the sum of two maps.
        slope: of the activation.

    Returns:
        None: neither part is the result of such a norm that nobody else reads.
    """
    if len(total.args) != 2 or total.kwargs:
        return None
    for norm, shortcut in (total.args, total.args[::-1]):
        if not (isinstance(norm, fx.Node) and isinstance(shortcut, fx.Node)):
            continue
        layer = _module_of(graph_module, norm)
        if not isinstance(layer, InPlaceABN) or layer.activation != "identity":
            continue
        if len(norm.users) == 1 and norm is not shortcut:
            layer.sum_slope = slope
            return graph_module.graph.call_module(str(norm.target), (norm.args[0], shortcut))
    return None


def _norm_slope(graph_module: fx.GraphModule) -> float:
    """Slope of the activations inside the norm layers, to be used for the others, too."""
    slopes = {
        module.slope
        for module in graph_module.modules()
        if isinstance(module, Activated) and module.activation == "leaky_relu"
    }
    return slopes.pop() if slopes else LEAKY_SLOPE


def _module_of(graph_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_relu(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    return (
        isinstance(_module_of(graph_module, node), nn.ReLU)
        or (node.op == "call_function" and node.target in RELU_FUNCTIONS)
        or (node.op == "call_method" and node.target in RELU_METHODS)
    )


def modules_by_stage(graph: fx.Graph, feature_indices: list[int]) -> list[list[str]]:
    """Module names of the stem and of each stage: what its map needs beyond the map before."""
    features = _output_features(graph)
    ends = [features[index] for index in feature_indices]
    stem_end = features[feature_indices[0] - 1] if feature_indices[0] > 0 else None
    seen: set[fx.Node] = set()
    stages = []
    for end in [stem_end, *ends]:
        names, waiting = [], [end] if end is not None else []
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting.extend(node.all_input_nodes)
                if node.op == "call_module":
                    names.append(str(node.target))
        stages.append(names)
    return stages


def keep_outputs(graph_module: fx.GraphModule, feature_indices: list[int]) -> None:
    """Leaves only these of the maps that the network returns, and what they need."""
    features = _output_features(graph_module.graph)
    (output,) = (node for node in graph_module.graph.nodes if node.op == "output")
    output.args = (tuple(features[index] for index in feature_indices),)
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.graph.lint()
    graph_module.recompile()


def _output_features(graph: fx.Graph) -> list[fx.Node]:
    (output,) = (node for node in graph.nodes if node.op == "output")
    return list(output.args[0])  # type: ignore[arg-type]
