"""How good could masks and semantics of a given resolution be, with perfect values in each cell?

Each true mask is read on a grid of M x M cells over its true box (each cell: the share that the
object covers) and pasted back; each true class map is averaged to cells of some pixels and brought
back by bilinear upsampling and the largest value. What these lose, no head of that resolution can
regain, and what is left to gain by finer grids is the most that PointRend can add.

example, the scenes of docs/results.md:
  python tools/measure/resolution_ceiling.py --config configs/debug/street_scenes.yaml \\
      data.val.json=data/street_scenes_val/gtFine/cityscapes_panoptic_val.json \\
      data.val.images=data/street_scenes_val/leftImg8bit/val \\
      --write docs/results.md --json docs/results/resolution_ceiling.json

exit codes: 0 measured; 1 the message says why not; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align

from seamless_pr.build.configs import load_config
from seamless_pr.build.runs import build_images, build_label_space
from seamless_pr.files import write_json
from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.boundary import count_trimaps
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.metrics.semantic_iou import (
    ConfusionCounts,
    compute_semantic_scores,
    count_confusion,
)
from seamless_pr.ops.masks import paste_mask
from seamless_pr.structures.panoptic_target import PanopticTarget
from tools.measure.results_table import markdown_table, replace_between_marks

BEGIN, END = "<!-- resolution -->", "<!-- /resolution -->"
MASK_SIDES = (7, 14, 28, 56, 112)
STRIDES = (8, 4, 2, 1)
TRIMAP_PIXELS = (8, 20)
# COCO's limits of mask area.
SMALL, MEDIUM = 32**2, 96**2
SIZES = ("small", "medium", "large")


def mask_ceilings(target: PanopticTarget, sides: Sequence[int]) -> list[tuple[str, list[float]]]:
    """Of each object its size (COCO's words) and the IoU that masks of each side reach."""
    results = []
    for index in target.object_indices.tolist():
        mask, box = target.id_map == index + 1, target.boxes[index]
        area = int(mask.sum())
        size = SIZES[0] if area < SMALL else SIZES[1] if area < MEDIUM else SIZES[2]
        results.append((size, [_pasted_iou(mask, box, side) for side in sides]))
    return results


def _pasted_iou(mask: Tensor, box: Tensor, side: int) -> float:
    shares = roi_align(mask[None, None].float(), [box[None]], side, aligned=True)[0, 0]
    x0, y0, x1, y1 = box.tolist()
    crop = paste_mask(shares, (x0, y0, x1, y1), (mask.shape[0], mask.shape[1]), threshold=0.5)
    pasted = torch.zeros_like(mask)
    pasted[crop.window] = crop.mask
    return float((pasted & mask).sum() / (pasted | mask).sum())


def coarse_classes(target: PanopticTarget, stride: int, num_classes: int) -> Tensor:
    """[H, W] int64 classes after averaging over cells of `stride` pixels and upsampling."""
    classes = target.semantic_map
    is_class = torch.arange(num_classes)[:, None, None] == classes
    cells = functional.avg_pool2d(is_class[None].float(), stride, ceil_mode=True)
    size = (classes.shape[0], classes.shape[1])
    return functional.interpolate(cells, size, mode="bilinear", align_corners=False)[0].argmax(0)


def semantic_counts(
    target: PanopticTarget, stride: int, num_classes: int
) -> tuple[ConfusionCounts, ...]:
    """Confusion of the whole image, then of each trimap, at one stride."""
    gt = SegmentTable(
        np.arange(1, target.num_segments + 1, dtype=np.int64),
        target.train_ids.numpy(),
        target.is_crowd.numpy(),
    )
    ids = np.arange(1, num_classes + 1, dtype=np.int64)
    pred = SegmentTable(ids, ids - 1, np.zeros(num_classes, dtype=bool))
    gt_map = target.id_map.numpy().astype(np.uint32)
    pred_map = (coarse_classes(target, stride, num_classes) + 1).numpy().astype(np.uint32)
    whole = count_confusion(count_overlap(gt_map, pred_map), gt, pred, num_classes)
    return whole, *count_trimaps(gt_map, pred_map, gt, pred, num_classes, TRIMAP_PIXELS)


def measure(targets: Sequence[PanopticTarget]) -> dict[str, Any]:
    """Everything that the tables show, as JSON values in [0, 1]."""
    num_classes = targets[0].label_space.num_classes
    objects = [found for target in targets for found in mask_ceilings(target, MASK_SIDES)]
    boxes = torch.cat([target.boxes[target.object_indices] for target in targets])
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    sums = {
        stride: [ConfusionCounts.zeros(num_classes)] * (1 + len(TRIMAP_PIXELS))
        for stride in STRIDES
    }
    for target in targets:
        for stride in STRIDES:
            counts = semantic_counts(target, stride, num_classes)
            sums[stride] = [a + b for a, b in zip(sums[stride], counts, strict=True)]
    return {
        "num_images": len(targets),
        "num_objects": {
            **{size: sum(found == size for found, _ in objects) for size in SIZES},
            "all": len(objects),
        },
        "longer_side_pixels": {
            name: float(torch.quantile(sides, q))
            for name, q in {"median": 0.5, "90 %": 0.9}.items()
        },
        "mask_iou": {
            str(side): {
                size: _mean([ious[i] for found, ious in objects if size in (found, "all")])
                for size in (*SIZES, "all")
            }
            for i, side in enumerate(MASK_SIDES)
        },
        "semantic_iou": {
            str(stride): [compute_semantic_scores(counts).mean_iou for counts in sums[stride]]
            for stride in STRIDES
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def ceiling_tables(result: dict[str, Any]) -> str:
    """Mask IoU by side of the mask, and mean IoU by stride, as Markdown."""
    counts = result["num_objects"]
    masks = [["mask", *(f"{size} ({counts[size]})" for size in (*SIZES, "all"))]]
    masks += [
        [f"{side}x{side}", *map(_percent, ious.values())]
        for side, ious in result["mask_iou"].items()
    ]
    classes = [["cell of", "mIoU", *(f"trimap {width} px" for width in TRIMAP_PIXELS)]]
    classes += [
        [f"{stride} px", *map(_percent, ious)] for stride, ious in result["semantic_iou"].items()
    ]
    return f"{markdown_table(masks)}\n\n{markdown_table(classes)}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", required=True, metavar="YAML", help="its validation images are measured")
    add("--write", type=Path, metavar="MD", help=f"put the tables between {BEGIN} and {END} there")
    add("--json", type=Path, help="write every number there")
    add("overrides", nargs="*", metavar="key=value", help="changes of the config")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        config = load_config(options.config, options.overrides)
        images = build_images(config, build_label_space(config), is_training=False)
        result = measure([images[index][1] for index in range(len(images))])
        tables = ceiling_tables(result)
        if options.write:
            page = options.write.read_text(encoding="utf-8")
            options.write.write_text(
                replace_between_marks(page, tables, BEGIN, END), encoding="utf-8"
            )
        if options.json:
            write_json(options.json, result)
    except (OSError, ValueError) as error:
        print(f"resolution_ceiling: {error}", file=sys.stderr)
        return 1
    print(tables)
    print(f"longer side of a box, pixels: {result['longer_side_pixels']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
