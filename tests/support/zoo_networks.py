"""Networks with the seeded weights of the golden detectron2 cases, made again with numpy alone."""

from __future__ import annotations

import ast
import math
import zlib
from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.weights.detectron2 import fit_zoo_weights
from seamless_pr.weights.detectron2_config import zoo_config_values
from tests.support.golden import GOLDEN_FOLDER

# Gains of layers beside that of He's initialisation.
GAINS = {
    "fpn_lateral": 0.7,
    "fpn_output": 0.7,
    "anchor_deltas": 0.3,
    "bbox_pred": 0.3,
}


def zoo_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """detectron2's names and shapes of "instance_cityscapes", "panoptic_fpn_coco", ..."""
    text = (GOLDEN_FOLDER / "pointrend" / f"STATE_DICT_{network}.txt").read_text()
    entries = (line.split("\t") for line in text.splitlines() if line.strip())
    return {name: ast.literal_eval(shape) for name, shape, _ in entries}


def zoo_tensor(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """The parameter or buffer of this name in the golden network of this seed."""
    random = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
    values = _vector(random, name, shape[0]) if len(shape) == 1 else _matrix(random, name, shape)
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def zoo_tensors(seed: int, network: str) -> dict[str, Tensor]:
    """All weights of a golden network under detectron2's names."""
    return {name: zoo_tensor(seed, name, shape) for name, shape in zoo_shapes(network).items()}


@cache
def zoo_network(seed: int, network: str) -> TwoBranchNet:
    """The golden network, imported; in evaluation mode."""
    return imported_network(zoo_tensors(seed, network), network)


def imported_network(tensors: Mapping[str, Tensor], name: str) -> TwoBranchNet:
    """The network of weights under detectron2's names, as the importer makes it."""
    config = config_from_dict(zoo_config_values(tensors), name)
    net = build_network(config.model, load_label_space(config.data.label_space))
    state, report = fit_zoo_weights(tensors, net.state_dict())
    report.check(name)
    net.load_state_dict(state)
    assert isinstance(net, TwoBranchNet)
    return net.eval()


def rgb_batch(image_bgr: Tensor) -> ImageBatch:
    """uint8 [H, W, 3] as detectron2 reads it -> a batch of our network."""
    return ImageBatch.from_images([image_bgr.flip(-1).permute(2, 0, 1).contiguous()])


def _vector(random: np.random.RandomState, name: str, length: int) -> np.ndarray:
    kind = name.rsplit(".", 1)[-1]
    if kind == "running_mean":
        return 0.1 * random.randn(length)
    if kind in ("running_var", "weight"):
        values = 0.8 + 0.4 * random.rand(length)
        if kind == "weight" and ".conv3.norm" in name:
            values *= 0.3
        if kind == "weight" and "stem.conv1.norm" in name:
            values /= 64.0
        return values
    values = 0.05 * random.randn(length)
    if name.endswith("cls_score.bias"):
        values[-1] += 4.0
    return values


def _matrix(random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = random.randn(math.prod(shape)) * np.sqrt(2.0 / math.prod(shape[1:]))
    for part, gain in GAINS.items():
        if part in name:
            values *= gain
    return values
