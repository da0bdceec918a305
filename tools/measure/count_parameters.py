"""Counts parameters and multiply-adds of the Cityscapes networks and writes docs/model_size.md.

Dense parts run without data (on the meta device), the point heads on zeros: how many points they
see does not depend on the image.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.instances.mask_rcnn import ConvMasks
from seamless_pr.models.instances.two_stage import TwoStageBranch
from seamless_pr.models.necks.fpn import FPN
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.models.semantics.points import PointSemantics, refine_semantic_logits
from seamless_pr.structures.features import Features
from seamless_pr.structures.instances import Instances
from tools.measure import part_costs

ROOT = Path(__file__).parents[2]
NETWORKS = {
    "Seamless: four convolutions for masks": "configs/cityscapes/seamless_r50.yaml",
    "Seamless with PointRend in both branches": "configs/cityscapes/seamless_pointrend_r50.yaml",
}

IMAGE_SIZE = (1024, 2048)
NUM_PROPOSALS = 1000
NUM_DETECTIONS = 100
GIGA = 1e9

BACKBONE = "backbone"
PYRAMID = "pyramid, P2 to P5"
EXTRA_LEVELS = "pyramid, extra level"
PROPOSALS = "proposals"
BOXES = f"boxes ({NUM_PROPOSALS} proposals)"
MASKS = f"masks ({NUM_DETECTIONS} detections)"
SEMANTICS = "semantics"
BOTH = "both, frozen layers once"

INTRODUCTION = f"""# Size of the networks

Cityscapes (11 stuff, 8 thing classes), ResNet-50, one image of {IMAGE_SIZE[0]}x{IMAGE_SIZE[1]},
{NUM_PROPOSALS} proposals and {NUM_DETECTIONS} detections; written by
tools/measure/count_parameters.py.
Parameters are weights and the affine parameters of the norms, without running statistics;
multiply-adds are those of convolutions and matrix products as PyTorch counts them.

The Seamless paper gives 51.43 M parameters for the joint network and 78.06 M for two independent
ones. It gives 0.514 T and 0.864 T multiply-adds, "50.4 % more", which do not fit each other; the
ratio is that of the counts below with the extra pyramid level in both networks."""


@dataclass(frozen=True)
class Size:
    """Parameters, and multiply-adds of one image."""

    parameters: int
    multiply_adds: int

    def __add__(self, other: Size) -> Size:
        return Size(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)

    def __sub__(self, other: Size) -> Size:
        return Size(self.parameters - other.parameters, self.multiply_adds - other.multiply_adds)


def sum_sizes(sizes: Iterable[Size]) -> Size:
    return sum(sizes, start=Size(0, 0))


def num_parameters(modules: Iterable[nn.Module | None]) -> int:
    """Weights, affine parameters of norms included, running statistics not."""
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


def multiply_adds(run: Callable[[], object]) -> int:
    """Of convolutions and matrix products; a pooling or an interpolation counts nothing."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_flops})
    with counter, torch.no_grad():
        run()
    return counter.get_total_flops() // 2


def _addmm_flops(
    sum_shape: tuple[int, int], left: tuple[int, int], right: tuple[int, int], **_: object
) -> int:
    """The counter of torch knows the product that adds to its output only out of place."""
    return 2 * left[0] * left[1] * right[1]


def part_sizes(net: TwoBranchNet) -> dict[str, Size]:
    """Each part of the network on one image of `IMAGE_SIZE`.

    The extra pyramid levels are a part of their own: a network for semantics alone has none.
    """
    dense = copy.deepcopy(net).eval().to("meta")
    branch, semantics, fpn = dense.instances, dense.semantics, dense.trunk.neck
    assert isinstance(branch, TwoStageBranch)
    assert semantics is not None
    assert isinstance(fpn, FPN)
    images = torch.zeros(1, 3, *IMAGE_SIZE, device="meta")
    stages = dense.trunk.backbone(images)
    features = dense.trunk.features(stages)
    size = branch.roi.size

    def rois(count: int) -> Tensor:
        return torch.zeros(count, fpn.out_channels, size, size, device="meta")

    def extra_levels() -> None:
        coarsest = stages[-1]
        for extra in fpn.extra:
            coarsest = extra(coarsest)

    def run_masks() -> None:
        if isinstance(branch.masks, ConvMasks):
            branch.masks.head(rois(NUM_DETECTIONS))
        else:
            render_masks(net)

    extra = Size(num_parameters([fpn.extra]), multiply_adds(extra_levels))
    pyramid = Size(num_parameters([fpn]), multiply_adds(lambda: fpn(stages)))
    backbone = dense.trunk.backbone
    sizes = {
        BACKBONE: Size(num_parameters([backbone]), multiply_adds(lambda: backbone(images))),
        PYRAMID: pyramid - extra,
        EXTRA_LEVELS: extra,
        PROPOSALS: Size(
            num_parameters([branch.rpn_head]),
            multiply_adds(lambda: branch.rpn_head(features.levels)),
        ),
        BOXES: Size(
            num_parameters([branch.box_head]),
            multiply_adds(lambda: branch.box_head(rois(NUM_PROPOSALS))),
        ),
        MASKS: Size(num_parameters([branch.masks]), multiply_adds(run_masks)),
        SEMANTICS: Size(
            num_parameters([semantics]),
            multiply_adds(lambda: semantics.head(features.levels))
            + multiply_adds(lambda: refine_semantics(net)),
        ),
    }
    total = sum_sizes(sizes.values())
    if total.parameters != num_parameters([net]):
        raise RuntimeError(
            f"the parts have {total.parameters} parameters, the network {num_parameters([net])}; "
            f"name the part that is missing in part_sizes"
        )
    return sizes


def finest_level(net: TwoBranchNet) -> Tensor:
    height, width = IMAGE_SIZE
    stride = net.trunk.strides[0]
    assert isinstance(net.trunk.neck, FPN)
    return torch.zeros(1, net.trunk.neck.out_channels, height // stride, width // stride)


def render_masks(net: TwoBranchNet) -> None:
    """PointRend masks of `NUM_DETECTIONS` boxes; which points are refined makes no difference."""
    assert isinstance(net.instances, TwoStageBranch)
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0]]).expand(NUM_DETECTIONS, -1)
    things = torch.zeros(NUM_DETECTIONS, dtype=torch.int64)
    instances = [Instances(torch.ones(NUM_DETECTIONS), things, boxes)]
    features = Features((finest_level(net),), net.trunk.strides[:1])
    net.instances.masks.add_masks(features, instances, IMAGE_SIZE)


def refine_semantics(net: TwoBranchNet) -> None:
    branch = net.semantics
    if not isinstance(branch, PointSemantics):
        return
    level = finest_level(net)
    logits = torch.zeros(1, net.label_space.num_classes, *level.shape[-2:])
    pixels = torch.zeros(1, 3, *IMAGE_SIZE, dtype=torch.uint8)
    refine_semantic_logits(branch.point_head, level, logits, IMAGE_SIZE, branch.points, pixels)


def separate_sizes(net: TwoBranchNet, sizes: dict[str, Size]) -> dict[str, Size]:
    """The paper's baseline: one network for objects, one for semantics, each with its own trunk.

    Parameters that do not train (stem and first stage, equal in both) count once, as in the paper.
    """
    trunk = sizes[BACKBONE] + sizes[PYRAMID]
    objects = [sizes[EXTRA_LEVELS], sizes[PROPOSALS], sizes[BOXES], sizes[MASKS]]
    frozen = sum(p.numel() for p in net.trunk.backbone.parameters() if not p.requires_grad)
    instances = sum_sizes([trunk, *objects])
    semantics = trunk + sizes[SEMANTICS]
    both = instances + semantics
    return {
        "objects alone": instances,
        "semantics alone": semantics,
        BOTH: Size(both.parameters - frozen, both.multiply_adds),
    }


def table(heading: str, sizes: dict[str, Size], total: Size | None = None) -> str:
    rows = {**sizes, "**total**": total} if total else sizes
    lines = [f"| {heading} | parameters | multiply-adds (G) |", "| --- | ---: | ---: |"]
    lines += [
        f"| {name} | {size.parameters:,} | {size.multiply_adds / GIGA:,.2f} |"
        for name, size in rows.items()
    ]
    return "\n".join(lines)


def document() -> str:
    """docs/model_size.md as text."""
    sections = []
    for title, path in NETWORKS.items():
        config = load_config(ROOT / path, ["model.backbone.weights=null"])
        net = build_network(config.model, load_label_space(config.data.label_space))
        assert isinstance(net, TwoBranchNet)
        sizes = part_sizes(net)
        total = sum_sizes(sizes.values())
        separate = separate_sizes(net, sizes)
        two = separate[BOTH].multiply_adds
        ratio = two / total.multiply_adds
        ratio_with_extra = (two + sizes[EXTRA_LEVELS].multiply_adds) / total.multiply_adds
        sections += [
            f"## {title}\n\n`{path}`",
            table("part", sizes, total),
            f"Two independent networks instead of one, {ratio:.3f} times the multiply-adds "
            f"({ratio_with_extra:.3f} times with the extra level in the semantic network too):",
            table("networks", separate),
        ]
    parts = part_costs.section(json.loads(part_costs.STORED.read_text(encoding="utf-8")))
    return "\n\n".join([INTRODUCTION, *sections, parts]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "model_size.md")
    options = parser.parse_args()
    text = document()
    options.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
