"""Matching, losses and gradients of MaskFormer and its baselines against the original's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from seamless_pr.models.networks.maskformer import MaskFormer
from seamless_pr.models.queries.set_losses import match_queries, matching_cost
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_target import PanopticTarget
from tests.support.maskformer_golden import drawn_image, load_arrays
from tests.support.maskformer_networks import golden_network, original_gradients, reference_order

LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 1e-5
# The first self-attention sees contents of zero: what little gradient there is, is rounding.
NO_GRADIENT = 1e-6
OUR_NAMES = {"ce": "query_class", "mask": "mask_focal", "dice": "mask_dice", "sem_seg": "semantic"}
WEIGHTS = {"query_class": 1.0, "mask_focal": 20.0, "mask_dice": 1.0, "semantic": 1.0}


def our_loss(name: str) -> str:
    """loss_mask_3 -> mask_focal_3."""
    stem = name.removeprefix("loss_")
    layer = stem.rpartition("_")[2] if stem[-1].isdigit() else ""
    base = stem.removesuffix(f"_{layer}") if layer else stem
    return OUR_NAMES[base] + (f"_{layer}" if layer else "")


def weight_of(name: str) -> float:
    return next(weight for key, weight in WEIGHTS.items() if name.startswith(key))


def semantic_target(labels: NDArray, space: LabelSpace) -> PanopticTarget:
    """A segment per class of the reference; 255 is void."""
    order = reference_order(space)
    ids = torch.from_numpy(labels.astype("int32"))
    id_map = torch.where(ids == 255, -1, ids) + 1
    # Segment c + 1 is class c of the reference.
    train_ids = torch.tensor([order.index(place) for place in range(len(order))])
    crowd = torch.zeros(len(order), dtype=torch.bool)
    return PanopticTarget(id_map.int(), train_ids, crowd, space)


def panoptic_target(arrays: Mapping[str, NDArray], index: int, space: LabelSpace):
    ids = torch.from_numpy(arrays[f"img{index}_id_map"].astype("int64"))
    segments = torch.from_numpy(arrays[f"img{index}_segments"])
    id_map = torch.zeros_like(ids)
    for place, (segment_id, _, _) in enumerate(segments.tolist(), start=1):
        id_map[ids == segment_id] = place
    order = reference_order(space)
    train_ids = torch.tensor([order.index(place) for place in segments[:, 1].tolist()])
    return PanopticTarget(id_map.int(), train_ids, segments[:, 2] == 1, space)


class Training:
    """A golden network that has computed its losses and gradients."""

    def __init__(self, name: str) -> None:
        self.arrays = load_arrays(name)
        self.meta: dict[str, Any] = json.loads(str(self.arrays["meta_json"]))
        self.network = golden_network(self.meta)
        # Dropout is 0 in these networks and norms are frozen: nothing else depends on the mode.
        self.network.train()
        space = self.network.label_space
        self.batch, self.targets = self._inputs(space)
        generators = [torch.Generator() for _ in self.targets]
        self.losses = {
            name: loss.total / max(1.0, loss.count)
            for name, loss in self.network.losses(self.batch, self.targets, generators).items()
        }
        self.total = sum(weight_of(name) * loss for name, loss in self.losses.items())
        self.total.backward()
        self.gradients = original_gradients(self.network, self.meta["state_dict"])

    def _inputs(self, space: LabelSpace) -> tuple[ImageBatch, list[PanopticTarget]]:
        prefix = "train_" if "train_image0_size" in self.arrays else ""
        sizes = [self.arrays[f"{prefix}image{index}_size"].tolist() for index in range(2)]
        first = 10 * self.meta["seed"] + bool(prefix)
        images = [drawn_image(first + index, *size) for index, size in enumerate(sizes)]
        batch = ImageBatch.from_images(images)
        if "img0_id_map" in self.arrays:
            return batch, [panoptic_target(self.arrays, index, space) for index in range(2)]
        names = ["train_label_map{}" if prefix else "img{}_label_map"] * 2
        maps = [self.arrays[name.format(index)] for index, name in enumerate(names)]
        return batch, [semantic_target(labels, space) for labels in maps]


@pytest.fixture(scope="module")
def training(request):
    return Training(request.param)


SET_CASES = (
    "train_sem_r50_ade150_s5_batch_96x161_130x99",
    "train_pan_r50enc_coco133_s11_batch_101x149_128x90",
)
PIXEL_CASES = ("ppb_r50_ade150_s50_97x130", "ppbplus_r50_ade150_s51_97x130")


def on_cases(*cases: str):
    return pytest.mark.parametrize("training", cases, indirect=True, scope="module")


@pytest.mark.slow
@on_cases(*SET_CASES, *PIXEL_CASES)
def test_losses_are_those_of_the_original(training):
    prefix = "train_" if "train_losses" in training.arrays else ""
    names = [our_loss(str(name)) for name in training.arrays[f"{prefix}loss_names"]]
    assert sorted(names) == sorted(training.network.loss_names) == sorted(training.losses)
    expected = training.arrays["train_losses" if prefix else "loss_unweighted"]
    # The baselines' losses were computed in single precision.
    tolerance = 1e-5 if prefix else LOSS_TOLERANCE
    for name, value in zip(names, expected.tolist(), strict=True):
        assert training.losses[name].item() == pytest.approx(value, rel=tolerance), name
    if not prefix:
        weighted = training.arrays["loss_weighted"].tolist()
        for name, value in zip(names, weighted, strict=True):
            found = weight_of(name) * training.losses[name].item()
            assert found == pytest.approx(value, rel=tolerance)
        total = training.arrays["loss_total"].item()
        assert training.total.item() == pytest.approx(total, rel=tolerance)


@pytest.mark.slow
@on_cases(*SET_CASES, *PIXEL_CASES)
def test_gradients_are_those_of_the_original(training):
    arrays, gradients = training.arrays, training.gradients
    prefix = "train_losses" in arrays
    tolerance = 10 * GRADIENT_TOLERANCE if prefix else GRADIENT_TOLERANCE
    total = arrays["grad_total_norm"].item()
    found = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    assert found == pytest.approx(total, rel=tolerance)
    norms = dict(zip(arrays["grad_names"].tolist(), arrays["grad_norms"].tolist(), strict=True))
    assert sorted(gradients) == sorted(norms)
    for name, norm in norms.items():
        if norm > NO_GRADIENT * total:
            assert gradients[name].norm().item() == pytest.approx(norm, rel=tolerance), name
    slices = [key for key in arrays if key.startswith("grad:")]
    assert len(slices) >= 3
    for key in slices:
        expected = torch.from_numpy(arrays[key]).double()
        gradient = gradients[key.removeprefix("grad:")]
        slice_ = gradient.reshape(len(gradient), -1)[:48, :32]
        assert (slice_ - expected).abs().max() <= tolerance * expected.abs().max(), key


@pytest.mark.slow
@on_cases(*SET_CASES)
def test_queries_are_matched_as_by_the_original(training):
    network, arrays = training.network, training.arrays
    assert isinstance(network, MaskFormer)
    batch = training.batch.padded_to(network.size_divisor)
    assert batch.padded_size == tuple(arrays["padded_size"].tolist())
    with torch.no_grad():
        logits = network(batch)
    order = reference_order(network.label_space)
    targets = [network.mask_targets(t, batch.padded_size) for t in training.targets]
    num_masks = 0
    for index, target in enumerate(targets):
        # Targets of classes come in our order of classes, those of the reference in its own.
        classes = torch.tensor([order[train_id] for train_id in target.train_ids.tolist()])
        if network.loss.targets == "classes":
            places = classes.argsort()
            targets[index] = replace(
                target, ids=target.ids[places], train_ids=target.train_ids[places]
            )
            classes = classes[places]
        assert classes.tolist() == arrays[f"img{index}_target_classes"].tolist()
        areas = targets[index].masks(torch.int64).flatten(1).sum(1)
        assert areas.tolist() == arrays[f"img{index}_target_areas"].tolist()
        num_masks += len(target)
    assert num_masks == arrays["num_masks"].item()
    matched = match_queries(logits.classes, logits.masks, targets, network.loss)
    for layer, pairs in enumerate(matched):
        name = "last" if layer == len(matched) - 1 else str(layer)
        for index, pair in enumerate(pairs):
            expected = arrays[f"img{index}_match_{name}"]
            assert torch.stack(pair).tolist() == expected.tolist()
    for index, target in enumerate(targets):
        small = target.resized_to(logits.masks.shape[-2:])
        cost = matching_cost(
            logits.classes[-1, index], logits.masks[-1, index], small, network.loss
        )
        close(cost, arrays[f"img{index}_cost_last"], 3e-5)


@pytest.mark.slow
@on_cases(*SET_CASES)
def test_logits_in_training_are_those_of_the_original(training):
    network, arrays = training.network, training.arrays
    with torch.no_grad():
        logits = network(training.batch.padded_to(network.size_divisor))
    order = reference_order(network.label_space)
    places = torch.tensor([*order, len(order)])
    classes = torch.empty_like(logits.classes).index_copy_(3, places, logits.classes)
    close(classes[-1, :, ::5], arrays["class_logits"], 3e-5)
    close(logits.masks[-1, :, :, 1::4, 1::4], arrays["mask_logits_sub"], 3e-5)
    for name, values in (("class_logits", classes), ("mask_logits", logits.masks)):
        moments = torch.stack([values.mean(), values.abs().mean(), values.square().mean()])
        close(moments, arrays[f"{name}_stat"], 1e-4)


def close(found: Tensor, expected: NDArray, tolerance: float) -> None:
    torch.testing.assert_close(
        found, torch.from_numpy(expected).to(found.dtype), rtol=0, atol=tolerance
    )
