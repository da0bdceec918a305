"""Measures what each backbone, neck and head costs for one image, and prints that section of
docs/model_size.md.

Processor time of one thread, all parts in one run, the least of some passes; weights are random and
deformable layers read off their places. `--output` stores the numbers, `count_parameters.py` writes
the section into the page.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.config.networks import (
    BalancedPyramidSettings,
    BiasSettings,
    FixedBatchNormSettings,
    FPNSettings,
    ImplicitPointRendSettings,
    MaskRCNNSettings,
    PointRendSettings,
    TimmBackboneSettings,
    TwoBranchSettings,
)
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.instances.branch import InstanceBranch
from seamless_pr.models.instances.solo_head import SoloOutput
from seamless_pr.models.instances.solov2 import SoloV2, mask_probs
from seamless_pr.models.instances.two_stage import ProposingBranch
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.kinds import Kinded
from seamless_pr.structures.settings import (
    BoxSettings,
    CoarseMaskSettings,
    ConvMaskSettings,
    PointSettings,
)

ROOT = Path(__file__).parents[2]
STORED = ROOT / "docs/results/part_costs.json"
IMAGE_SIZE = (256, 256)
NUM_BOXES = 20
NUM_PROPOSALS = 1000
GIGA = 1e9

FINE = {"num_train_points": 576, "subdivision_points": 4900, "start_size": 52, "output_size": 416}
WINNER_COARSE = CoarseMaskSettings(conv_channels=256, mixes_first=True, roi_size=26)
BACKBONES: Mapping[str, Mapping[str, Any]] = {
    "ResNet-50": {"name": "resnet50"},
    "ResNet-50, context 1/4": {"name": "resnet50", "context_ratio": 1 / 4},
    "ResNet-101": {"name": "resnet101"},
    "ResNeXt-101 64x4d": {"name": "resnext101_64x4d"},
    "ResNeXt-101 64x4d, deformable v1": {"name": "resnext101_64x4d", "deformable": "v1"},
    "ResNeXt-101 64x4d, deformable v2, context 1/16": {
        "name": "resnext101_64x4d",
        "deformable": "v2",
        "context_ratio": 1 / 16,
    },
    "Res2Net-101 26w4s": {"name": "res2net101d"},
    "Res2Net-101 26w4s, deformable v1": {"name": "res2net101d", "deformable": "v1"},
}
NECKS: Mapping[str, FPNSettings] = {
    "FPN": FPNSettings(activation="identity", extra="pool"),
    "BFP, one non-local block": BalancedPyramidSettings(activation="identity", extra="pool"),
    "BFP, two non-local blocks": BalancedPyramidSettings(
        activation="identity", extra="pool", num_refinements=2
    ),
}
HEADS: Mapping[str, Kinded] = {
    "4 convolutions, 28x28": MaskRCNNSettings(mask=ConvMaskSettings(roi_size=14)),
    "PointRend, 224x224": PointRendSettings(),
    "implicit PointRend, 224x224": ImplicitPointRendSettings(),
    "winner's PointRend, 416x416": PointRendSettings(
        mask=WINNER_COARSE, points=PointSettings(num_levels=5, **FINE)
    ),
}
# By configs of 3D-FUTURE.
BRANCHES: Mapping[str, str] = {
    "Mask R-CNN": "ablation_mask_rcnn_r50",
    "PointRend": "pointrend_x101",
    "PointRend, widest heads": "pointrend_res2net101_bfp2_roi10",
    "HTC, boxes of 12x12, masks of 32x32, not scored": "htc_res2net101",
    "SOLOv2, deformable v2": "solov2_x101",
}

# Beside a backbone or neck that is measured alone.
SMALL_HEAD = MaskRCNNSettings(box=BoxSettings(hidden_channels=8))


@dataclass(frozen=True)
class Cost:
    """Of one part, for one image.

    Attributes:
        parameters: of weights and the affine parameters of norms.
        multiply_adds: of convolutions, deformable ones too, and matrix products.
        seconds: processor time of one thread.
    """

    parameters: int
    multiply_adds: int
    seconds: float


def measured(part: nn.Module, run: Callable[[], object], passes: int) -> Cost:
    """Counts one pass, and times the others."""
    mapping = {
        torch.ops.torchvision.deform_conv2d: _deformable_flops,
        torch.ops.aten.addmm_: _addmm_flops,
    }
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    with torch.inference_mode():
        with counter:
            run()
        times = []
        for _ in range(passes):
            start = time.process_time()
            run()
            times.append(time.process_time() - start)
    parameters = sum(parameter.numel() for parameter in part.parameters())
    return Cost(parameters, counter.get_total_flops() // 2, min(times))


def _deformable_flops(
    _: object, weight: tuple[int, ...], *__: object, out_shape: tuple[int, ...], **___: object
) -> int:
    """As a plain convolution; what samples between pixels is left out."""
    return 2 * torch.Size(out_shape).numel() * torch.Size(weight[1:]).numel()


def _addmm_flops(_: object, left: tuple[int, int], right: tuple[int, int], **__: object) -> int:
    return 2 * left[0] * left[1] * right[1]


def network(
    backbone: Mapping[str, Any], neck: FPNSettings, head: Kinded = SMALL_HEAD
) -> TwoBranchNet:
    settings = TwoBranchSettings(
        backbone=TimmBackboneSettings(**backbone),
        norm_act=FixedBatchNormSettings(slope=0.0),
        head_norm_act=BiasSettings(slope=0.0),
        neck=neck,
        instances=head,
        size_divisor=32,
    )
    torch.manual_seed(0)
    built = build_network(settings, load_label_space("future3d"))
    assert isinstance(built, TwoBranchNet)
    return built.eval()


def costs(passes: int = 2) -> Iterator[tuple[str, str, Cost]]:
    """(kind of part, its name, its cost) of all parts."""
    neck, backbone = NECKS["FPN"], BACKBONES["ResNet-50"]
    image = torch.randn(1, 3, *IMAGE_SIZE)
    for name, settings in BACKBONES.items():
        part = network(settings, neck).trunk.backbone
        for module in part.modules():
            if hasattr(module, "conv_offset"):
                nn.init.normal_(module.conv_offset.bias)
        yield "backbone", name, measured(part, lambda part=part: part(image), passes)
    with torch.inference_mode():
        stages = network(backbone, neck).trunk.backbone(image)
    for name, settings in NECKS.items():
        part = network(backbone, settings).trunk.neck
        yield "neck", name, measured(part, lambda part=part: part(stages), passes)
    strides = (4, 8, 16, 32, 64)
    levels = tuple(torch.randn(1, 256, IMAGE_SIZE[0] // s, IMAGE_SIZE[1] // s) for s in strides)
    for name, settings in HEADS.items():
        branch = network(backbone, neck, settings).instances
        run = mask_run(branch.masks, Features(levels, strides))
        yield "masks", name, measured(branch.masks, run, passes)
    for name, config in BRANCHES.items():
        settings = branch_settings(config)
        branch = network(backbone, neck, settings).instances
        run = branch_run(branch, Features(levels, strides))
        yield "branch", name, measured(branch, run, passes)


def branch_settings(config: str) -> Kinded:
    changes = ["model.instances.mask_scoring=false"] if config.startswith("htc") else []
    model = load_config(ROOT / f"configs/future3d/{config}.yaml", changes).model
    settings: Kinded = model.instances
    return settings


def random_boxes(count: int) -> Tensor:
    corners = torch.rand(count, 2) * 100
    return torch.cat([corners, corners + 30 + 120 * torch.rand(count, 2)], dim=1)


def mask_run(masks: nn.Module, features: Features) -> Callable[[], object]:
    things: Tensor = torch.arange(NUM_BOXES) % 34
    instances = [Instances(torch.ones(NUM_BOXES), things, random_boxes(NUM_BOXES))]
    return lambda: masks.add_masks(features, instances, IMAGE_SIZE)


def branch_run(branch: InstanceBranch, features: Features) -> Callable[[], object]:
    """All that a branch computes, of as many objects as if its weights were trained."""
    if isinstance(branch, SoloV2):
        return lambda: masks_of_cells(branch.head(features.levels))
    assert isinstance(branch, ProposingBranch)
    batch = ImageBatch.from_images([torch.zeros(3, *IMAGE_SIZE, dtype=torch.uint8)])
    proposals, things = [random_boxes(NUM_PROPOSALS)], torch.arange(NUM_BOXES) % 34
    instances = [Instances(torch.ones(NUM_BOXES), things, random_boxes(NUM_BOXES))]

    def run() -> object:
        branch.score_anchors(features)
        branch.score_boxes(features, batch, proposals)
        return branch.add_masks(features, batch, instances)

    return run


def masks_of_cells(output: SoloOutput) -> Tensor:
    kernels = output.kernels[0][0].flatten(1)[:, :NUM_BOXES].t()
    return mask_probs(kernels, output.mask_features[0])


HEADINGS = {
    "backbone": "backbone",
    "neck": "neck",
    "masks": f"masks of {NUM_BOXES} boxes",
    "branch": f"whole branch: {NUM_PROPOSALS} proposals, if any, and {NUM_BOXES} masks",
}


def section(stored: Mapping[str, Any]) -> str:
    """The section of docs/model_size.md."""
    lines = [
        "## Backbones, necks and heads beside each other",
        "",
        f"One image of {IMAGE_SIZE[0]}x{IMAGE_SIZE[1]}, {NUM_BOXES} boxes, 34 classes (3D-FUTURE);",
        "measured by `tools/measure/part_costs.py`. Deformable layers count as plain ones with",
        "their offsets. Time is that of one processor thread, all in one run "
        f"({stored['processor']}, PyTorch {stored['torch']}):",
        "only differences between rows mean something.",
    ]
    for kind, heading in HEADINGS.items():
        lines += [
            "",
            f"| {heading} | parameters | multiply-adds (G) | seconds |",
            "| --- | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {row['name']} | {row['parameters']:,} | {row['multiply_adds'] / GIGA:,.2f} "
            f"| {row['seconds']:.2f} |"
            for row in stored["parts"]
            if row["part"] == kind
        ]
    return "\n".join(lines)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=STORED)
    parser.add_argument("--passes", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    for part, name, cost in costs(options.passes):
        parts.append({"part": part, "name": name, **asdict(cost)})
        print(parts[-1], flush=True)
    stored = {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "processor": processor(),
        "image_size": list(IMAGE_SIZE),
        "num_boxes": NUM_BOXES,
        "passes": options.passes,
        "parts": parts,
    }
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    print(section(stored))
    return 0


if __name__ == "__main__":
    sys.exit(main())
