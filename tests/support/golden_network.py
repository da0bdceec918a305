"""The networks of the golden numbers: shipped configs with seeded weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.weights.key_report import fit_keys
from seamless_pr.weights.seamseg import our_name, our_tensor
from tests.support.golden import load_golden
from tests.support.seamseg_weights import seeded_state_dict

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class GoldenCase:
    """One file of golden numbers.

    Attributes:
        name: of the file.
        dataset: folder of the config, and of the seeded weights.
        seed: of the weights.
        overrides: what the reference was told besides its configuration.
    """

    name: str
    dataset: str
    seed: int
    overrides: tuple[str, ...] = ()


INFERENCE_CASES = (
    GoldenCase("city_s0_256x512", "cityscapes", 0),
    GoldenCase("city_s7_201x333", "cityscapes", 7),
    GoldenCase("city_s9_batch_128x256_150x200", "cityscapes", 9),
    GoldenCase("vistas_s8_160x250", "vistas", 8, ("model.fusion.stuff_area_pixels=512",)),
)
TRAINING_CASE = GoldenCase(
    "train_city_s5_256x512_evalbn",
    "cityscapes",
    5,
    (
        # No subsampling of anchors and proposals, so that no random draw decides.
        "model.instances.rpn.pre_nms_train=6000",
        "model.instances.rpn.post_nms_train=1000",
        "model.instances.rpn.num_samples=10000000",
        "model.instances.box.num_samples=10000000",
        # With norms in evaluation mode RoIs without an object pass the mask convolutions without
        # any effect, and cost 6 GB; `BATCH_NORM_CASE` is where they count.
        "model.instances.mask.norm_rois=positive",
    ),
)
# Norm layers in training mode, two images of different sizes, one without an object; made like the
# others, with the released code on its CPU path: tests/golden/seamseg/README.md.
BATCH_NORM_CASE = GoldenCase(
    "train_city_s32_batchnorm",
    "cityscapes",
    32,
    (
        "model.instances.rpn.pre_nms_train=3000",
        "model.instances.rpn.post_nms_train=300",
        "model.instances.rpn.num_samples=10000000",
        "model.instances.box.num_samples=10000000",
    ),
)


@lru_cache(maxsize=1)
def golden_network(case: GoldenCase) -> TwoBranchNet:
    """The network of the shipped config with the weights of the case, in evaluation mode."""
    config = load_config(ROOT / f"configs/{case.dataset}/seamless_r50.yaml", case.overrides)
    network = build_network(config.model, load_label_space(config.data.label_space))
    source = seeded_state_dict(case.seed, case.dataset)
    state, report = fit_keys(source, network.state_dict(), our_name, our_tensor)
    report.check(f"seeded weights of {case.name}")
    network.load_state_dict(state)
    assert isinstance(network, TwoBranchNet)
    return network.eval()


def golden_images(case: GoldenCase) -> ImageBatch:
    golden = load_golden(f"seamseg/{case.name}")
    keys = sorted(key for key in golden if key.startswith("img") and key[3:].isdigit())
    return ImageBatch.from_images([golden[key].permute(2, 0, 1) for key in keys])


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    """Largest difference over the largest magnitude of the reference."""
    largest = float(reference.abs().max())
    difference = float((ours.double() - reference.double()).abs().max())
    return difference / largest if largest > 0 else difference


def moments(tensor: Tensor) -> Tensor:
    """Mean, mean magnitude and mean square of the whole tensor, in float64."""
    values = tensor.double()
    return torch.stack([values.mean(), values.abs().mean(), values.square().mean()])
