"""What tools/measure/gpu.py times: prediction from end to end and by stage, and a training step.

Nothing here needs a GPU, so that its logic can be tried on a processor; there a graph of CUDA is
missing. Shapes depend on no number, so that random weights take as long as trained ones.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.build.predictor import fold_predictor_norms
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.fusion.on_device import FixedFusion, pack, unpack
from seamless_pr.models.networks.two_branch import FixedOutputs, TwoBranchNet
from seamless_pr.ops.fixed_shapes import fixed_shapes
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import PanopticTarget

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ARITHMETICS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
WAYS = ("eager", "CUDA graph", "compiled")
# Cells of a drawn ground truth along height and width, every other one an object.
TARGET_GRID = (4, 8)
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Case:
    """One row of the table of predictions.

    Attributes:
        config: below configs/.
        batch_size: images in a pass.
        way: of `WAYS`.
        arithmetic: of `ARITHMETICS`.
    """

    config: str
    batch_size: int
    way: str
    arithmetic: str


class Labeller(nn.Module):
    """Pixels to all that the host wants of their maps.

    forward: [N, 3, H, W] uint8 on the device -> [B] uint8 there.

    Args:
        network: on the device.
        case: how it is run.
    """

    def __init__(self, network: TwoBranchNet, case: Case) -> None:
        super().__init__()
        self.network = network
        self.case = case

    def forward(self, pixels: Tensor) -> Tensor:
        return pack(self.fused(pixels))

    def fused(self, pixels: Tensor) -> tuple[FixedFusion, ...]:
        """The maps before they are packed."""
        batch, sizes = image_batch(pixels)
        # A graph must not find weights in a cache that its first pass has filled.
        with autocast(pixels.device, self.case.arithmetic, cached=self.case.way == "eager"):
            return self.network.predict_fixed(batch, sizes).fusions


def image_batch(pixels: Tensor) -> tuple[ImageBatch, list[tuple[int, int]]]:
    size = (pixels.shape[2], pixels.shape[3])
    return ImageBatch(pixels, (size,) * len(pixels)), [size] * len(pixels)


def autocast(
    device: torch.device, arithmetic: str, *, cached: bool = True
) -> AbstractContextManager[Any]:
    dtype = ARITHMETICS[arithmetic]
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype, cache_enabled=cached)


def random_network(
    config: str, device: torch.device, overrides: Sequence[str], *, folded: bool = False
) -> TwoBranchNet:
    """A network of configs/ with random weights, in the layout of the predictor.

    Args:
        config: below configs/.
        device: where.
        overrides: of the config.
        folded: without norms, as predictors of 16-bit arithmetic are.
    """
    loaded = load_config(CONFIGS / config, ["model.backbone.weights=", *overrides])
    torch.manual_seed(0)
    network = build_network(loaded.model, load_label_space(loaded.data.label_space))
    assert isinstance(network, TwoBranchNet)
    network.eval()
    if folded:
        fold_predictor_norms(network)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def drawn_pixels(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """[count, 3, H, W] uint8 on the host, where a GPU can copy it from in the background."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)
    return pixels.pin_memory() if device.type == "cuda" else pixels


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(run: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Of `rounds` passes after one that does not count."""
    seconds = []
    for _ in range(rounds + 1):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def watched_memory(device: torch.device) -> Callable[[], int | None]:
    """Says later how many bytes there were at most beyond those that are there now."""
    if device.type != "cuda":
        return lambda: None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    return lambda: torch.cuda.max_memory_allocated(device) - before


def matrix_rate(arithmetic: str, device: torch.device, side: int, rounds: int) -> float:
    """Multiply-adds a second of a product of square matrices: what the device can do."""
    dtype = ARITHMETICS[arithmetic] or torch.float32
    left = torch.randn(side, side, device=device).to(dtype)
    right = torch.randn(side, side, device=device).to(dtype)
    return side**3 / median_seconds(lambda: left @ right, device, rounds)


@torch.no_grad()
def measured_case(
    network: TwoBranchNet,
    case: Case,
    size: tuple[int, int],
    device: torch.device,
    *,
    rounds: int,
) -> dict[str, Any]:
    """Images a second from pixels on the host to maps on the host, and the highest memory.

    Args:
        network: on the device.
        case: what of it.
        size: (height, width) of the images.
        device: where.
        rounds: passes that count.
    """
    labeller = Labeller(network, case)
    host = drawn_pixels(case.batch_size, size, device)
    peak_bytes = watched_memory(device)
    with fixed_shapes():
        # The host unpacks by their shapes.
        fusions = labeller.fused(host.to(device))
        label = _prepared(labeller, host.to(device), case.way)

        def from_end_to_end() -> None:
            packed = label(host.to(device, non_blocking=True)).cpu()
            unpack(packed, fusions, network.label_space)

        seconds = median_seconds(from_end_to_end, device, rounds)
    rate = case.batch_size / seconds
    return {**asdict(case), "images_per_second": rate, "peak_bytes": peak_bytes()}


def _prepared(labeller: Labeller, pixels: Tensor, way: str) -> Callable[[Tensor], Tensor]:
    """The labeller in one of the ways; `pixels` are on the device."""
    if way == "eager":
        return labeller
    if way == "compiled":
        program = torch.export.export(labeller, (pixels,), strict=False)
        compiled: Callable[[Tensor], Tensor] = torch.compile(program.module(), dynamic=False)
        return compiled
    if pixels.device.type != "cuda":
        raise ValueError(f"graphs of CUDA need a GPU; the pixels are on '{pixels.device}'")
    static = pixels.clone()
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(2):
            labeller(static)
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        packed = labeller(static)

    def replay(new_pixels: Tensor) -> Tensor:
        static.copy_(new_pixels)
        graph.replay()
        return packed

    return replay


@torch.no_grad()
def stage_seconds(
    network: TwoBranchNet,
    size: tuple[int, int],
    device: torch.device,
    arithmetic: str,
    *,
    rounds: int,
) -> dict[str, float]:
    """Seconds of the stages of one image, each with the device idle before and after it."""
    pixels = drawn_pixels(1, size, device).to(device)
    batch, sizes = image_batch(pixels)
    batch = batch.padded_to(network.size_divisor)
    found: dict[str, Any] = {}
    instances, semantics = network.instances, network.semantics
    assert instances is not None
    assert semantics is not None
    stages: dict[str, Callable[[], Any]] = {
        "trunk": lambda: network.features(batch),
        "instances": lambda: instances.detect_fixed(found["trunk"], batch),
        "semantics": lambda: semantics.logits(found["trunk"], batch.padded_size),
        "fusion": lambda: network.finish_fixed(
            FixedOutputs(batch, found["instances"], found["semantics"]), sizes
        ),
    }
    seconds = {}
    with fixed_shapes(), autocast(device, arithmetic):
        for name, run in stages.items():
            found[name] = run()
            seconds[name] = median_seconds(run, device, rounds)
    return seconds


@torch.no_grad()
def multiply_adds(network: TwoBranchNet, size: tuple[int, int], device: torch.device) -> int:
    """Of products and convolutions of one image."""
    batch, sizes = image_batch(drawn_pixels(1, size, device).to(device))
    counter = FlopCounterMode(display=False)
    with fixed_shapes(), counter:
        network.predict_fixed(batch, sizes)
    return counter.get_total_flops() // 2


def training_step(
    norm: str,
    config: str,
    size: tuple[int, int],
    device: torch.device,
    *,
    batch_size: int,
    overrides: Sequence[str],
    rounds: int,
) -> dict[str, Any]:
    """Seconds and highest memory of forward pass, backward pass and update.

    Args:
        norm: kind of norm and activation.
        config: below configs/.
        size: (height, width) of the images.
        device: where.
        batch_size: images in a step.
        overrides: of the config.
        rounds: steps that count.
    """
    changes = [f"model.norm_act.kind={norm}", "model.norm_act.sync=false", *overrides]
    peak_bytes = watched_memory(device)
    network = random_network(config, device, changes).train()
    batch, _ = image_batch(drawn_pixels(batch_size, size, device).to(device))
    targets = [drawn_target(network, size).to(device)] * batch_size
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE)
    generators = [torch.Generator().manual_seed(index) for index in range(batch_size)]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses = network.losses(batch, targets, generators)
        total = sum(loss.total / max(loss.count, 1) for loss in losses.values())
        assert isinstance(total, Tensor)
        total.backward()
        optimizer.step()

    seconds = median_seconds(step, device, rounds)
    return {"norm": norm, "batch_size": batch_size, "seconds": seconds, "peak_bytes": peak_bytes()}


def drawn_target(network: TwoBranchNet, size: tuple[int, int]) -> PanopticTarget:
    """A checkerboard of objects and regions of all classes in turn."""
    space = network.label_space
    rows, columns = TARGET_GRID
    is_object = (torch.arange(rows)[:, None] + torch.arange(columns)) % 2 == 1
    numbers = torch.arange(rows * columns)
    train_ids = torch.where(
        is_object.flatten(),
        space.num_stuff + numbers % space.num_things,
        numbers % space.num_stuff,
    )
    row = torch.arange(size[0]) * rows // size[0]
    column = torch.arange(size[1]) * columns // size[1]
    id_map = (row[:, None] * columns + column + 1).int()
    return PanopticTarget(id_map, train_ids, torch.zeros(len(numbers), dtype=torch.bool), space)


def free_memory(device: torch.device) -> None:
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
