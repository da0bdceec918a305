"""Counts parameters and multiply-adds of the published MaskFormers: docs/maskformer_size.md.

Networks run without data, on the meta device, from their configs. Multiply-adds are those of
convolutions and matrix products, the products of mask embeddings and pixels and the sum over
queries of the semantic rule included, as PyTorch counts them; the published numbers also count
norms and resizing, which are about one in a hundred.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.models.networks.maskformer import MaskFormer
from seamless_pr.models.networks.network import Network
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import Category, LabelSpace

ROOT = Path(__file__).parents[2]
GIGA = 1e9


@dataclass(frozen=True)
class Published:
    """What is known of a released network.

    Attributes:
        config: below `configs`.
        num_classes: of its dataset.
        size: (height, width) of the image that multiply-adds are counted for.
        parameters: that train.
        multiply_adds: in 1e9, with the mask products of the last decoder layer only.
    """

    config: str
    num_classes: int
    size: tuple[int, int]
    parameters: int
    multiply_adds: float


_ADE, _LARGE, _COCO = (512, 512), (640, 640), (800, 1200)
PUBLISHED = (
    Published("ade20k/per_pixel_r50", 150, _ADE, 31_033_942, 47.9),
    Published("ade20k/per_pixel_plus_r50", 150, _ADE, 41_228_736, 49.9),
    Published("ade20k/maskformer_r50", 150, _ADE, 41_254_743, 53.0),
    Published("ade20k/maskformer_r101", 150, _ADE, 60_194_647, 72.5),
    Published("ade20k/maskformer_r101c", 150, _ADE, 60_318_039, 79.6),
    Published("ade20k/maskformer_swin_tiny", 150, _ADE, 41_757_009, 55.2),
    Published("ade20k/maskformer_swin_small", 150, _ADE, 63_074_913, 78.9),
    Published("ade20k/maskformer_swin_base", 150, _LARGE, 101_829_391, 195.0),
    Published("ade20k/maskformer_swin_large", 150, _LARGE, 211_575_627, 374.8),
    Published("coco_stuff_10k/maskformer_r50", 171, _LARGE, 41_260_140, 83.2),
    Published("coco_stuff_10k/maskformer_r101", 171, _LARGE, 60_200_044, 113.6),
    Published("coco_stuff_10k/maskformer_r101c", 171, _LARGE, 60_323_436, 124.7),
    Published("coco_stuff_10k/per_pixel_r50", 171, _LARGE, 31_039_339, 75.1),
    Published("coco_stuff_10k/per_pixel_plus_r50", 171, _LARGE, 41_234_112, 77.6),
    Published("ade20k_full/per_pixel_r50", 847, _ADE, 31_213_071, 52.3),
    Published("ade20k_full/per_pixel_plus_r50", 847, _ADE, 41_407_168, 63.9),
    Published("ade20k_full/maskformer_r50", 847, _ADE, 41_433_872, 72.1),
    Published("ade20k_full/maskformer_r101", 847, _ADE, 60_373_776, 91.6),
    Published("ade20k_full/maskformer_r101c", 847, _ADE, 60_497_168, 98.7),
    Published("cityscapes/maskformer_r101", 19, _ADE, 60_160_980, 68.9),
    Published("cityscapes/maskformer_r101c", 19, _ADE, 60_284_372, 76.0),
    Published("vistas/maskformer_r50", 65, (1280, 1280), 41_232_898, 311.5),
    Published("coco/maskformer_panoptic_r50", 133, _COCO, 45_012_038, 196.2),
    Published("coco/maskformer_panoptic_r101", 133, _COCO, 63_951_942, 267.4),
    Published("coco/maskformer_panoptic_swin_tiny", 133, _COCO, 41_752_640, 193.9),
    Published("coco/maskformer_panoptic_swin_small", 133, _COCO, 63_070_544, 279.6),
    Published("coco/maskformer_panoptic_swin_base", 133, _COCO, 101_825_022, 449.0),
    Published("coco/maskformer_panoptic_swin_large", 133, _COCO, 211_571_258, 865.0),
    Published("ade20k/maskformer_panoptic_r50", 150, (640, 853), 45_016_407, 113.4),
    Published("ade20k/maskformer_panoptic_r101", 150, (640, 853), 63_956_311, 154.4),
)

INTRODUCTION = """# Size of MaskFormer and its baselines

Parameters are those that train (batch norms are frozen, their numbers are not among them);
multiply-adds are those of convolutions and matrix products of one image, with the mask products of
the last decoder layer and the sum over queries of the semantic rule; written by
tools/measure/count_maskformer.py. Beside them stand the numbers of the released code, whose counter
also counts norms and resizing.

| config | image | parameters | released | multiply-adds (G) | released |
| --- | --- | ---: | ---: | ---: | ---: |
"""


def numbered_classes(num_classes: int) -> LabelSpace:
    """Classes without names; how many there are decides the size."""
    return LabelSpace(
        "numbered",
        tuple(Category(i, f"class {i}", False, (0, 0, 0)) for i in range(num_classes)),
    )


def meta_network(published: Published) -> Network:
    """The network of a config without memory for its weights, in evaluation mode."""
    config = load_config(ROOT / "configs" / f"{published.config}.yaml")
    with torch.device("meta"):
        return build_network(config.model, numbered_classes(published.num_classes)).eval()


def num_parameters(network: Network) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@torch.no_grad()
def multiply_adds(network: Network, size: tuple[int, int], num_classes: int) -> int:
    """Of one image, from pixels to class scores at the size of the network input."""
    images = torch.zeros(1, 3, *size, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        outputs = network.outputs(ImageBatch(images, (size,)))
        if isinstance(network, MaskFormer):
            queries = outputs.class_logits.shape[1]
            masks = torch.zeros(1, queries, outputs.padded_size[0] * outputs.padded_size[1])
            torch.zeros(1, num_classes, queries, device="meta") @ masks.to("meta")
    return counter.get_total_flops() // 2


def table() -> str:
    """The page."""
    rows = []
    for published in PUBLISHED:
        network = meta_network(published)
        counted = multiply_adds(network, published.size, published.num_classes) / GIGA
        rows.append(
            f"| {published.config} | {published.size[0]}x{published.size[1]} "
            f"| {num_parameters(network):,} | {published.parameters:,} "
            f"| {counted:.1f} | {published.multiply_adds} |"
        )
    return INTRODUCTION + "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "maskformer_size.md")
    options = parser.parse_args()
    options.output.write_text(table(), encoding="utf-8")
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
