"""Counts what one mask costs (PointRend, table 2) and prints that section of docs/fidelity.md.

Nothing runs: multiply-adds and activations follow from the shapes of the layers.
`python tools/measure/fidelity.py --stored` writes the section into the page.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.instances.coarse_masks import CoarseMaskHead
from seamless_pr.models.instances.mask_rcnn import MaskHead
from seamless_pr.ops.refinement import num_subdivision_steps
from seamless_pr.structures.settings import PointSettings

CHANNELS = 256
NUM_THINGS = 80
PAPER = {
    "4 convolutions, 28x28": ("0.5 B", "0.5 M"),
    "4 convolutions, 224x224": ("34 B", "33 M"),
    "PointRend, 224x224": ("0.9 B", "0.7 M"),
}
# 4.25 * 28^2: the paper's count for 7x7 to 224x224.
PAPER_POINTS = 3332


@dataclass(frozen=True)
class Cost:
    """One mask: multiply-adds, outputs of layers with weights, and the features that go in."""

    multiply_adds: int
    outputs: int
    inputs: int

    @property
    def activations(self) -> int:
        return self.outputs + self.inputs


def layer_costs(head: nn.Module, features: Tensor) -> Cost:
    """Convolutions and fully connected layers of a head on [1, C, S, S] features."""
    counts = {"multiply_adds": 0, "outputs": 0}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.weight
        # Each weight meets each position of the smaller of both maps once.
        positions = min(inputs[0].shape[2:].numel(), output.shape[2:].numel())
        counts["multiply_adds"] += weight.numel() * positions
        counts["outputs"] += output.numel()

    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    hooks = [m.register_forward_hook(count) for m in head.modules() if isinstance(m, layers)]
    head.to("meta")(features.to("meta"))
    for hook in hooks:
        hook.remove()
    return Cost(counts["multiply_adds"], counts["outputs"], features.numel())


def conv_cost(num_things: int, mask_size: int) -> Cost:
    """Four convolutions, one upsampling, one predictor."""
    head = MaskHead(CHANNELS, num_things, make_norm_act("bias"))
    return layer_costs(head, torch.zeros(1, CHANNELS, mask_size // 2, mask_size // 2))


def coarse_cost(num_things: int) -> Cost:
    return layer_costs(CoarseMaskHead(CHANNELS, num_things), torch.zeros(1, CHANNELS, 14, 14))


def point_cost(num_things: int) -> Cost:
    """One point of the point head."""
    head = PointHead(CHANNELS, num_things)
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    return Cost(
        sum(layer.weight.numel() for layer in layers),
        sum(layer.out_features for layer in layers),
        0,
    )


def num_points(settings: PointSettings, coarse_size: int = 7) -> list[int]:
    """Point predictions: the complete first grid (if any), then each subdivision step."""
    start = settings.start_size or coarse_size
    counts = [start * start] if settings.start_size else []
    for step in range(1, num_subdivision_steps(start, settings.output_size) + 1):
        counts.append(min(settings.subdivision_points, (start * 2**step) ** 2))
    return counts


def point_rend_cost(num_things: int) -> Cost:
    """All points, but the activations of one subdivision step: they are not kept."""
    settings, coarse, point = PointSettings(), coarse_cost(num_things), point_cost(num_things)
    points = num_points(settings)
    return Cost(
        coarse.multiply_adds + sum(points) * point.multiply_adds,
        coarse.outputs + max(points) * point.outputs,
        coarse.inputs,
    )


def costs(num_things: int) -> dict[str, Cost]:
    """Rows of table 2."""
    return {
        "4 convolutions, 28x28": conv_cost(num_things, 28),
        "4 convolutions, 224x224": conv_cost(num_things, 224),
        "PointRend, 224x224": point_rend_cost(num_things),
    }


def cost_table() -> str:
    lines = [
        "| head, mask | paper | multiply-adds | activations | without RoI input |",
        "|---|---|---|---|---|",
    ]
    for name, cost in costs(NUM_THINGS).items():
        flops, activations = PAPER[name]
        lines.append(
            f"| {name} | {flops}, {activations} | {cost.multiply_adds / 1e6:,.2f} M "
            f"| {cost.activations:,} | {cost.outputs:,} |"
        )
    return "\n".join(lines)


def points_table() -> str:
    released = num_points(PointSettings())
    text = num_points(PointSettings(start_size=0))
    rows = [
        ("start from a complete 28x28 grid (released code, default)", released),
        ("start from the 7x7 coarse mask (`start_size: 0`)", text),
    ]
    lines = ["| subdivision to 224x224, N = 28^2 | each step | points |", "|---|---|---|"]
    for name, counts in rows:
        lines.append(f"| {name} | {' + '.join(map(str, counts))} | {sum(counts)} |")
    return "\n".join(lines)


def section() -> str:
    """The section of docs/fidelity.md."""
    per_point = point_cost(NUM_THINGS).multiply_adds
    return f"""## What a PointRend mask costs

Nothing is measured here: all follows from the shapes of this package's layers with the {NUM_THINGS}
thing classes of COCO (`tools/measure/count_mask_flops.py`).

### Table 2 of the paper: one mask

{cost_table()}

The counting rule is inferred, as the only one that gives the paper's numbers: FLOPs are
multiply-adds of convolutions and fully connected layers; activations are their outputs and the
pooled features that go in; PointRend counts the points of one subdivision step there, because no
step keeps those of another. One point costs {per_point:,} multiply-adds, the coarse head
{coarse_cost(NUM_THINGS).multiply_adds / 1e6:.2f} M.

### Point predictions (section 3.1)

{points_table()}

The paper counts {PAPER_POINTS} = 4.25 * 28^2 from 7x7: the cells of 14x14 (a quarter of 28^2) and
four times 28^2. Of 3136, the released code predicts the first 784 as a grid and skips 14x14.

### Training points (table 4)

| strategy | settings (`model.instances.points`) |
|---|---|
| regular grid | `train_points: grid` |
| uniform | `oversample_ratio: 1`, `importance_fraction: 0.0` |
| mildly biased (default) | `oversample_ratio: 3`, `importance_fraction: 0.75` |
| heavily biased | `oversample_ratio: 10`, `importance_fraction: 1.0` |"""


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(section())
    return 0


if __name__ == "__main__":
    sys.exit(main())
