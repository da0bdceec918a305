"""One training step beside the reference: losses, semantic confusion, mask targets, gradients.

Gradients are compared in double precision. In single precision the slope of a leaky ReLU whose
input is within rounding of 0 is decided by the order of additions, and some of millions are: the
total norm then moves by 1e-4 with the number of threads or the memory format, in which our network
differs from itself as much as from the reference.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seamless_pr.models.instances.mask_rcnn import ConvMasks
from seamless_pr.models.instances.two_stage import TwoStageBranch
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.ops.mask_targets import nearest_mask_targets
from seamless_pr.ops.resize import upsample_logits
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.training.losses import mean_losses
from seamless_pr.weights.seamseg import our_name, our_tensor
from tests.support.golden import GOLDEN_FOLDER, load_golden, xyxy
from tests.support.golden_network import (
    BATCH_NORM_CASE,
    TRAINING_CASE,
    GoldenCase,
    golden_images,
    golden_network,
    relative_difference,
)

pytestmark = pytest.mark.slow

LOSSES = {
    "rpn_objectness": "obj_loss",
    "rpn_box": "bbx_loss",
    "box_class": "roi_cls_loss",
    "box_delta": "roi_bbx_loss",
    "mask": "roi_msk_loss",
    "semantic": "sem_loss",
}
# The total of the reference moves by 3e-7 with its number of threads. Of our single losses one
# moves by up to 3e-6 (box deltas, with oneDNN and without), and is 2e-6 off double precision.
LOSS = 5e-6
# Of the norm. With one thread the reference's own is 5e-6 off (186.3696 against 186.3687).
TOTAL_GRADIENT = 1e-5
# Ours, in double precision, do not move. In single precision the worst one moves by 9e-4 (without
# oneDNN) to 4e-3, the whole by 1e-4; the reference's, in single precision, is off by 5e-4.
GRADIENT = 1e-3
SINGLE_PRECISION_GRADIENT = 3e-4
# Of the largest element of a gradient.
GRADIENT_ELEMENTS = 1e-2
# Both in single precision, where batch statistics pass differences on to all elements. Our
# network is off its own double precision, with oneDNN and without, by 1.3e-5 in the worst loss
# (box deltas), 9e-4 and 1.5e-3 in the norm of the gradient, 4e-6 and 2.2e-5 in the worst running
# statistic.
BATCH_NORM_LOSS = 1.5e-5
BATCH_NORM_GRADIENT = 2e-3
RUNNING_STATISTICS = 3e-5


def golden() -> dict[str, Tensor]:
    return load_golden(f"seamseg/{TRAINING_CASE.name}")


def target_of(
    net: TwoBranchNet, image: int = 0, case: GoldenCase = TRAINING_CASE
) -> PanopticTarget:
    numbers = load_golden(f"seamseg/{case.name}")
    return PanopticTarget(
        numbers[f"msk{image}"].int(),
        numbers[f"cat{image}"][1:].long(),
        numbers[f"iscrowd{image}"][1:].bool(),
        net.label_space,
        f"{case.name}/{image}",
    )


def losses_of(net: TwoBranchNet) -> dict[str, Tensor]:
    net.zero_grad()
    generator = torch.Generator().manual_seed(0)
    sums = net.losses(golden_images(TRAINING_CASE), [target_of(net)], [generator])
    return mean_losses(sums, torch.device("cpu"), global_counts=True)


@pytest.fixture(scope="module")
def single_net() -> TwoBranchNet:
    net = golden_network(TRAINING_CASE)
    assert not net.training, "the golden case has its norms in evaluation mode"
    return net


@pytest.fixture(scope="module")
def double_net(single_net: TwoBranchNet) -> TwoBranchNet:
    net = copy.deepcopy(single_net).double()
    assert isinstance(net.instances, TwoStageBranch)
    assert isinstance(net.instances.masks, ConvMasks)
    # Convolutions in double precision lay out the neighbours of all pixels of all RoIs at once.
    # The norms are in evaluation mode, so RoIs do not know of each other.
    net.instances.masks.head = InBlocks(net.instances.masks.head)
    sum(losses_of(net).values(), torch.zeros(())).backward()
    net.instances.masks.head = net.instances.masks.head.part
    return net


class InBlocks(nn.Module):
    """Gives entries of a batch to a part of a network a few at a time, and forgets in between what
    their gradients need: less memory, the same numbers."""

    def __init__(self, part: nn.Module, size: int = 16) -> None:
        super().__init__()
        self.part = part
        self.size = size

    def forward(self, batch: Tensor, kept: None = None) -> Tensor:
        blocks = batch.split(self.size)
        return torch.cat([checkpoint(self.part, block, use_reentrant=False) for block in blocks])


def golden_norms(case: GoldenCase = TRAINING_CASE, kind: str = "grad") -> dict[str, float]:
    with np.load(GOLDEN_FOLDER / f"seamseg/{case.name}.npz") as arrays:
        names, norms = arrays[f"{kind}_names"].tolist(), arrays[f"{kind}_norms"].tolist()
    return dict(zip(names, norms, strict=True))


def gradient(net: TwoBranchNet, seamseg_name: str) -> Tensor:
    key = our_name(seamseg_name)
    assert key is not None
    values = net.get_parameter(key).grad
    assert values is not None
    return our_tensor(key, values)


# What needs the most memory comes first, before networks and gradients are kept for others.
def test_a_step_on_batch_statistics(agree):
    """Losses, gradients and running statistics with the norm layers in training mode."""
    case = BATCH_NORM_CASE
    net = copy.deepcopy(golden_network(case)).train()
    batch = golden_images(case)
    targets = [target_of(net, image, case) for image in range(len(batch))]
    generators = [torch.Generator().manual_seed(i) for i in range(len(batch))]
    sums = net.losses(batch, targets, generators)
    losses = mean_losses(sums, torch.device("cpu"), global_counts=True)
    sum(losses.values(), torch.zeros(())).backward()
    for name, theirs in LOSSES.items():
        reference = float(load_golden(f"seamseg/{case.name}")[f"loss_{theirs}"])
        difference = abs(float(losses[name].detach()) - reference) / reference
        agree(f"{case.name}/loss_{theirs}", difference, BATCH_NORM_LOSS)
    norms = golden_norms(case)
    total = math.hypot(*norms.values())
    ours = math.hypot(*(float(gradient(net, name).norm()) for name in norms))
    agree(f"{case.name}/total gradient norm", abs(ours - total) / total, BATCH_NORM_GRADIENT)
    worst = 0.0
    for name, norm in golden_norms(case, "stat").items():
        key = our_name(name)
        assert key is not None
        worst = max(worst, abs(float(net.get_buffer(key).norm()) - norm) / norm)
    agree(f"{case.name}/running statistics, the worst of 156", worst, RUNNING_STATISTICS)


def test_gradient_norms(double_net, agree):
    norms = golden_norms()
    assert len(norms) == 221
    trained = {name for name, p in double_net.named_parameters() if p.grad is not None}
    assert trained == {our_name(name) for name in norms}
    ours = {name: float(gradient(double_net, name).norm()) for name in norms}
    total = math.hypot(*norms.values())
    difference = abs(math.hypot(*ours.values()) - total) / total
    agree(f"{TRAINING_CASE.name}/total gradient norm", difference, TOTAL_GRADIENT)
    worst = max(abs(ours[name] - norm) / norm for name, norm in norms.items() if norm > 0)
    agree(f"{TRAINING_CASE.name}/grad_norms, the worst of 221", worst, GRADIENT)
    assert all(ours[name] == 0 for name, norm in norms.items() if norm == 0)


def test_gradient_elements(double_net, agree):
    keys = [key for key in golden() if key.startswith("grad:")]
    assert keys
    for key in keys:
        ours = gradient(double_net, key.removeprefix("grad:"))
        ours = ours.reshape(len(ours), -1)[:64, :64]
        reference = golden()[key].reshape(ours.shape)
        name = f"{TRAINING_CASE.name}/{key}"
        agree(name, relative_difference(ours, reference), GRADIENT_ELEMENTS)


def test_losses_and_total_gradient_in_single_precision(single_net, agree):
    losses = losses_of(single_net)
    for name, theirs in LOSSES.items():
        reference = float(golden()[f"loss_{theirs}"])
        difference = abs(float(losses[name].detach()) - reference) / reference
        agree(f"{TRAINING_CASE.name}/loss_{theirs}", difference, LOSS)
    sum(losses.values(), torch.zeros(())).backward()
    norms = golden_norms()
    ours = math.hypot(*(float(gradient(single_net, name).norm()) for name in norms))
    total = math.hypot(*norms.values())
    name = f"{TRAINING_CASE.name}/total gradient norm, single precision"
    agree(name, abs(ours - total) / total, SINGLE_PRECISION_GRADIENT)
    single_net.zero_grad()


def test_semantic_confusion(single_net, agree):
    batch, target = golden_images(TRAINING_CASE), target_of(single_net)
    with torch.no_grad():
        logits = single_net.semantics.logits(single_net.trunk(batch), batch.padded_size)
    height, width = batch.image_sizes[0]
    upsampled = upsample_logits(logits.float(), batch.padded_size)
    classes = upsampled[0, :, :height, :width].argmax(0)
    num_classes = single_net.label_space.num_classes
    truth = target.semantic_map
    valid = truth < num_classes
    counts = torch.bincount(truth[valid] * num_classes + classes[valid], minlength=num_classes**2)
    confusion = counts.view(num_classes, num_classes)
    different = float((confusion - golden()["sem_conf"]).abs().sum()) / 2
    agree(f"{TRAINING_CASE.name}/sem_conf (pixels)", different, 2)


def test_mask_targets(single_net, agree):
    matches = golden()["roi_match0"]
    positive = matches >= 0
    boxes = xyxy(golden()["roi_proposals0"])[positive]
    target = target_of(single_net)
    ids = (target.object_indices[matches[positive]] + 1).int()
    labels, valid = nearest_mask_targets(target.id_map, ids, boxes, 28)
    ours = torch.where(valid, labels, -1)
    different = int((ours != golden()["roi_msk_lbl0"]).sum())
    agree(f"{TRAINING_CASE.name}/roi_msk_lbl0 (cells)", different, 0)
