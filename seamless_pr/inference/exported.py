"""A network as one graph from pixels to the id map, for runtimes that do not know this package.

Letters: N images, H, W an image, S segments that may be.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram

from seamless_pr.models.fusion.on_device import FixedFusion
from seamless_pr.models.networks.separate import SeparateNets
from seamless_pr.models.networks.two_branch import FusedNetwork, TwoBranchNet
from seamless_pr.ops.class_maps import best_classes
from seamless_pr.ops.fixed_shapes import fixed_shapes
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment

# Names of what `WholePrediction` and `ClassMap` return.
OUTPUTS = ("id_map", "segment_ids", "train_ids", "areas", "scores", "settled")
CLASS_MAP = ("class_map",)
DESCRIPTION = "network.json"
ONNX_OPSET = 18


class WholePrediction(nn.Module):
    """Raw pixels to panoptic maps, in shapes that depend on no number.

    forward: [N, 3, H, W] uint8 RGB -> id_map [N, H, W], 0 = void, segment_ids [N, S] int32, 0:
    there is no such segment, train_ids [N, S] int64, areas [N, S] int32 pixels, scores [N, S]
    float32, and settled [N] bool: where it is False, a chain of suppressions was longer than the
    graph follows, and the image must be predicted by the package itself. Crowd is void.

    Args:
        network: in evaluation mode.
        amp_dtype: 16-bit arithmetic of what autocast makes cheaper; None: single precision.

    Raises:
        ValueError: the network has no prediction of fixed shapes.
    """

    def __init__(self, network: nn.Module, amp_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.network = _branches(network)
        self.amp_dtype = amp_dtype

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        batch, sizes = _batch(pixels)
        with fixed_shapes(), _autocast(pixels.device, self.amp_dtype):
            fusions = self.network.predict_fixed(batch, sizes).fusions
            rows = [self._without_crowd(fused) for fused in fusions]
        return tuple(torch.stack(values) for values in zip(*rows, strict=True))

    def _without_crowd(self, fused: FixedFusion) -> tuple[Tensor, ...]:
        space = self.network.label_space
        num_segments, num_instances = len(fused.segment_ids), len(fused.scores)
        classes = torch.arange(num_segments - num_instances, device=fused.scores.device)
        train_ids = torch.cat([fused.thing_indices + space.num_stuff, classes])
        scores = F.pad(fused.scores, (0, len(classes)), value=1.0)
        first_crowd = min(num_instances + space.num_stuff, num_segments)
        kept = torch.arange(num_segments + 1, device=classes.device)
        kept = kept.scatter(0, fused.segment_ids[first_crowd:].long(), 0).to(fused.id_map.dtype)
        id_map = kept.index_select(0, fused.id_map.flatten().int()).view_as(fused.id_map)
        ids = F.pad(fused.segment_ids[:first_crowd], (0, num_segments - first_crowd))
        return id_map, ids, train_ids, fused.areas, scores, fused.settled


class ClassMap(nn.Module):
    """Raw pixels to the class of every pixel: the dense part of a network alone.

    forward: [N, 3, H, W] uint8 RGB -> [N, H, W] int16 train ids; where the branch does not tell
    things apart, the number of stuff classes stands for all of them.

    Args:
        network: in evaluation mode.
        amp_dtype: as in `WholePrediction`.

    Raises:
        ValueError: the network has no semantic branch.
    """

    def __init__(self, network: nn.Module, amp_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        found = _branches(network)
        dense = found.semantic_net if isinstance(found, SeparateNets) else found
        if not (isinstance(dense, TwoBranchNet) and dense.semantics is not None):
            raise ValueError("the network has no semantic branch, so no class for every pixel")
        self.network = dense
        self.amp_dtype = amp_dtype

    def forward(self, pixels: Tensor) -> Tensor:
        batch, sizes = _batch(pixels)
        with fixed_shapes(), _autocast(pixels.device, self.amp_dtype):
            batch = batch.padded_to(self.network.size_divisor)
            assert self.network.semantics is not None
            features = self.network.features(batch)
            logits = self.network.semantics.logits(features, batch.padded_size)
            maps = [best_classes(each, batch.padded_size, sizes[0], sizes[0]) for each in logits]
        return torch.stack(maps)


def _branches(network: nn.Module) -> FusedNetwork:
    if not (isinstance(network, FusedNetwork) and network.has_fixed_shapes):
        raise ValueError(
            f"{type(network).__name__} has no prediction of fixed shapes, which a graph needs; "
            "networks of a semantic branch, an instance branch, or both have"
        )
    return network


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[None]:
    if dtype is None:
        return nullcontext()
    # A graph must not find weights in a cache that belongs to the pass that made it.
    return torch.autocast(device.type, dtype, cache_enabled=False)


def _batch(pixels: Tensor) -> tuple[ImageBatch, list[tuple[int, int]]]:
    size = (pixels.shape[2], pixels.shape[3])
    return ImageBatch(pixels, (size,) * len(pixels)), [size] * len(pixels)


@torch.no_grad()
def exported_program(module: nn.Module, pixels: Tensor) -> ExportedProgram:
    """The graph of a module for images of one size.

    Args:
        module: `WholePrediction` or `ClassMap`; its weights are not to be trained from now on.
        pixels: [N, 3, H, W] uint8; only the size counts.
    """
    # Else whoever runs the graph would have to ask for no gradients.
    module = module.eval().requires_grad_(False)
    program = torch.export.export(module, (pixels,), strict=False)
    # Two that few runtimes know, and what they do in others that all know.
    table: dict[Any, Any] = dict(torch.export.default_decompositions())
    table[torch.ops.aten._embedding_bag_forward_only.default] = _summed_bags
    return program.run_decompositions(table)


def _summed_bags(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted sums of as many rows for every bag, one row of each bag after the other."""
    assert per_sample_weights is not None
    assert mode == 0
    assert padding_idx < 0
    num_bags = len(offsets)
    positions = indices.view(num_bags, -1).unbind(1)
    factors = per_sample_weights.view(num_bags, -1, 1).unbind(1)
    total = weight.index_select(0, positions[0]) * factors[0]
    for position, factor in zip(positions[1:], factors[1:], strict=True):
        total = total + weight.index_select(0, position) * factor
    unused = offsets.new_empty(0)
    return total, unused, unused, unused


def described(label_space: LabelSpace, outputs: Sequence[str]) -> dict[str, Any]:
    """What a program needs to know about a graph, as plain JSON values.

    Args:
        label_space: of the network; category i is that of train id i.
        outputs: names of the outputs, in their order.
    """
    return {"outputs": list(outputs), "categories": label_space.to_dict()["categories"]}


def segmentations(outputs: Sequence[Tensor], label_space: LabelSpace) -> list[PanopticSegmentation]:
    """The outputs of a graph of either kind as maps of this package; of a class map all pixels of
    a class are one segment.

    Args:
        outputs: on the CPU.
        label_space: of the network.
    """
    if len(outputs) == len(CLASS_MAP):
        return [_of_classes(class_map, label_space) for class_map in outputs[0]]
    maps = []
    for id_map, *columns, _settled in zip(*outputs, strict=True):
        rows = zip(*(column.tolist() for column in columns), strict=True)
        segments = tuple(Segment(*row) for row in rows if row[0] != LabelSpace.VOID_SEGMENT_ID)
        maps.append(PanopticSegmentation(id_map.int(), segments, label_space))
    return maps


def _of_classes(class_map: Tensor, label_space: LabelSpace) -> PanopticSegmentation:
    found, areas = class_map.unique(return_counts=True)
    rows = zip(found.tolist(), areas.tolist(), strict=True)
    segments = tuple(Segment(train_id + 1, train_id, area, 1.0) for train_id, area in rows)
    return PanopticSegmentation(class_map.int() + 1, segments, label_space)


def save_program(program: ExportedProgram, path: Path, description: Mapping[str, Any]) -> None:
    """Writes a graph for `torch.export.load`, which needs torch alone.

    Args:
        program: of `exported_program`.
        path: ends with .pt2.
        description: plain values that travel with it, as `network.json`.
    """
    with warnings.catch_warnings():
        # torch's word for weights whose channels are innermost in memory.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, path, extra_files={DESCRIPTION: json.dumps(description)})


def compile_program(program: ExportedProgram, path: Path) -> None:
    """Compiles a graph to machine code for `torch._inductor.aoti_load_package`, for C++ as well.

    Args:
        program: of `exported_program`; the code is for the processor of this machine.
        path: ends with .pt2.
    """
    (pixels,), _ = program.example_inputs
    # Weights are constants then: norms are folded into convolutions, weights laid out for them.
    options = {"freezing": pixels.device.type == "cpu", "always_keep_tensor_constants": True}
    torch._inductor.aoti_compile_and_package(
        program, package_path=str(path), inductor_configs=options
    )


def save_onnx(program: ExportedProgram, path: Path, output_names: tuple[str, ...]) -> None:
    """Writes a graph in ONNX.

    Args:
        program: of `exported_program`.
        path: ends with .onnx; weights stand beside it in a file of that name and .data.
        output_names: names of the outputs.

    Raises:
        ModuleNotFoundError: onnxscript is missing.
    """
    table: dict[Any, Any] = dict(torch.export.default_decompositions())
    # In ONNX, of equals the one with the lower index comes first, so that this sort is stable.
    table[torch.ops.aten.sort.stable] = _sorted_by_topk
    # ONNX would make sequences of the parts, which few runtimes know, and of few types.
    table[torch.ops.aten.split_with_sizes.default] = _sliced
    # ONNX Runtime has these for bytes and for int32, not for int16.
    aten = torch.ops.aten
    for op in (aten.where.self, aten.clamp.default, aten.maximum.default, aten.amax.default):
        table[op] = _in_int32(op)
    onnx_program = torch.onnx.export(
        program.run_decompositions(table),
        dynamo=True,
        input_names=["pixels"],
        output_names=list(output_names),
        opset_version=ONNX_OPSET,
        # Runtimes do that themselves, in less time.
        optimize=False,
        verbose=False,
    )
    assert onnx_program is not None
    onnx_program.save(path, external_data=True)


def _sliced(values: Tensor, split_sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    """`split_with_sizes`."""
    ends = itertools.accumulate(split_sizes)
    return [
        values.narrow(dim, end - size, size) for size, end in zip(split_sizes, ends, strict=True)
    ]


def _in_int32(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operation whose int16 arguments are widened; of others nothing changes."""

    def widened(*args: Any, **options: Any) -> Tensor:
        if not any(_is_int16(value) for value in args):
            return NotImplemented
        wide = [value.int() if _is_int16(value) else value for value in args]
        return op(*wide, **options).to(torch.int16)

    return widened


def _is_int16(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.int16


def _sorted_by_topk(
    values: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """`sort` of floats and bytes."""
    count = values.shape[dim]
    found, order = values.float().topk(count, dim, largest=descending, sorted=True)
    return found.to(values.dtype), order
