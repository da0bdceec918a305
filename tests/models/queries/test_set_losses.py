"""Matching and losses on drawn predictions, against the original's numbers and by invariants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from seamless_pr.models.queries import set_losses
from seamless_pr.models.queries.set_losses import layer_names, match_queries, matching_cost
from seamless_pr.models.queries.targets import MaskTargets
from seamless_pr.structures.query_settings import QueryLossSettings
from tests.support.maskformer_golden import drawn_queries, load_arrays

SETTINGS = QueryLossSettings()
OUR_NAMES = {"loss_ce": "query_class", "loss_mask": "mask_focal", "loss_dice": "mask_dice"}
WEIGHTS = {"query_class": 1.0, "mask_focal": 20.0, "mask_dice": 1.0}
# Golden case: (seed, layers, queries).
CASES = {"loss": (0, 2, 20), "lossT": (7, 1, 6), "lossE": (7, 1, 20), "lossEE": (7, 1, 20)}
NUM_CLASSES = 12


class Case:
    def __init__(self, name: str) -> None:
        arrays = load_arrays("ops")
        self.arrays = {
            key.removeprefix(f"{name}_"): array
            for key, array in arrays.items()
            if key.startswith(f"{name}_")
        }
        seed, num_layers, num_queries = CASES[name]
        # The last layer is drawn with the second seed, where there are two.
        drawn = [
            [
                drawn_queries(
                    seed + 100 * layer + image, (24, 32), num_queries, NUM_CLASSES, num_queries // 2
                )
                for image in range(2)
            ]
            for layer in range(num_layers)
        ]
        self.classes, self.masks = (
            torch.stack([torch.stack([image[part] for image in layer]) for layer in drawn])
            .double()
            .requires_grad_()
            for part in range(2)
        )
        size = tuple(self.arrays["padded"].tolist())
        self.targets = []
        for image in range(2):
            id_map = torch.from_numpy(self.arrays[f"img{image}_id_map"].astype(np.int32))
            rows = torch.from_numpy(self.arrays[f"img{image}_targets"].astype(np.int64))
            targets = MaskTargets(id_map, rows[:, 0].int(), rows[:, 1])
            self.targets.append(targets.padded_to(size))

    def losses(self):
        return set_losses.set_losses(self.classes, self.masks, self.targets, SETTINGS)


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request):
    return Case(request.param)


def our_name(name: str) -> str:
    stem, _, layer = name.rpartition("_")
    return f"{OUR_NAMES[stem]}_{layer}" if layer.isdigit() else OUR_NAMES[name]


def close(found, expected, tolerance=1e-6):
    scale = max(1e-12, float(np.abs(expected).max())) if expected.size else 1.0
    torch.testing.assert_close(
        found.detach().double(),
        torch.from_numpy(np.asarray(expected)).double(),
        rtol=0,
        atol=tolerance * scale,
    )


def test_losses_of_all_layers_are_those_of_the_original(case):
    losses = case.losses()
    names = [our_name(str(name)) for name in case.arrays["loss_names"]]
    assert sorted(losses) == sorted(names)
    for name, expected in zip(names, case.arrays["losses"].tolist(), strict=True):
        found = losses[name].total.item() / max(1.0, losses[name].count)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12), name


def test_pairs_are_those_of_the_original(case):
    matched = match_queries(case.classes, case.masks, case.targets, SETTINGS)
    for layer, pairs in enumerate(matched):
        name = "last" if layer == len(matched) - 1 else str(layer)
        for image, pair in enumerate(pairs):
            expected = case.arrays[f"match_{name}_img{image}"]
            assert torch.stack(pair).tolist() == expected.tolist()


def test_each_term_of_the_cost_is_that_of_the_original(case):
    target = case.targets[0].resized_to((24, 32))
    none = QueryLossSettings(class_cost=0.0, mask_cost=0.0, dice_cost=0.0)
    for term, key in (("mask_cost", "focal"), ("dice_cost", "dice"), ("class_cost", "class")):
        if f"cost_{key}_img0" not in case.arrays:
            assert len(target) == 0
            continue
        settings = replace(none, **{term: 1.0})
        cost = matching_cost(case.classes[-1, 0], case.masks[-1, 0], target, settings)
        close(cost, case.arrays[f"cost_{key}_img0"])


def test_gradients_are_those_of_the_original(case):
    weighted = [
        next(weight for key, weight in WEIGHTS.items() if name.startswith(key))
        * loss.total
        / max(1.0, loss.count)
        for name, loss in case.losses().items()
    ]
    classes, masks = torch.autograd.grad(sum(weighted), (case.classes, case.masks))
    for layer in range(len(classes)):
        name = "last" if layer == len(classes) - 1 else str(layer)
        close(classes[layer], case.arrays[f"grad_cls_{name}"])
        # Every fourth cell, as everywhere in the golden files.
        close(masks[layer][:, :, 1::4, 1::4], case.arrays[f"grad_msk_{name}_sub"])
        values = masks[layer]
        moments = torch.stack([values.mean(), values.abs().mean(), values.square().mean()])
        torch.testing.assert_close(
            moments, torch.from_numpy(case.arrays[f"grad_msk_{name}_stat"]), rtol=1e-5, atol=1e-12
        )


def test_losses_computed_part_by_part_are_the_same_with_the_same_gradient(monkeypatch):
    case = Case("loss")
    whole = case.losses()
    expected = torch.autograd.grad(sum(loss.total for loss in whole.values()), case.masks)
    # Two masks at a time, each part computed again in the backward pass.
    monkeypatch.setattr(set_losses, "_PIXELS_AT_ONCE", 2 * case.targets[0].id_map.numel())
    parts = case.losses()
    for name, loss in parts.items():
        torch.testing.assert_close(loss.total, whole[name].total)
    found = torch.autograd.grad(sum(loss.total for loss in parts.values()), case.masks)
    torch.testing.assert_close(found, expected)


def test_a_batch_without_targets_teaches_no_object_and_has_mask_losses_of_zero():
    case = Case("lossEE")
    losses = case.losses()
    for name in ("mask_focal", "mask_dice"):
        assert losses[name].total.item() == 0
        assert losses[name].count == 0
        (gradient,) = torch.autograd.grad(losses[name].total, case.masks, retain_graph=True)
        assert torch.equal(gradient, torch.zeros_like(gradient))
    assert losses["query_class"].count == pytest.approx(0.1 * 40)


def test_logits_that_are_no_numbers_do_not_stop_the_matching():
    case = Case("loss")
    masks = case.masks.detach().clone()
    masks[0, 0, 3] = float("nan")
    masks[1, 1] = float("inf")
    matched = match_queries(case.classes.detach(), masks, case.targets, SETTINGS)
    assert [[len(rows) for rows, _ in pairs] for pairs in matched] == [[9, 11], [9, 11]]
    assert 3 not in matched[0][0][0].tolist()


def test_a_query_is_matched_to_the_same_target_whatever_the_order_of_targets():
    case = Case("loss")
    order = torch.randperm(len(case.targets[0]), generator=torch.Generator().manual_seed(1))
    target = case.targets[0]
    mixed = replace(target, ids=target.ids[order], train_ids=target.train_ids[order])
    straight = match_queries(case.classes, case.masks, case.targets, SETTINGS)
    turned = match_queries(case.classes, case.masks, [mixed, case.targets[1]], SETTINGS)
    for first, second in zip(straight, turned, strict=True):
        assert torch.equal(first[0][0], second[0][0])
        assert torch.equal(first[0][1], order[second[0][1]])


def test_layers_before_the_last_have_numbered_names():
    assert layer_names(("a", "b"), 3) == ("a", "b", "a_0", "b_0", "a_1", "b_1")
    assert layer_names(("a",), 1) == ("a",)


def test_autocast_changes_no_cost_and_no_loss(case):
    classes, masks = case.classes.detach().float(), case.masks.detach().float()
    arguments = (classes, masks, case.targets, SETTINGS)
    target = case.targets[0].resized_to(masks.shape[-2:])
    cost = matching_cost(classes[0, 0], masks[0, 0], target, SETTINGS)
    losses = set_losses.set_losses(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        same_cost = matching_cost(classes[0, 0], masks[0, 0], target, SETTINGS)
        same_losses = set_losses.set_losses(*arguments)
    assert torch.equal(same_cost, cost)
    for name, loss in losses.items():
        assert torch.equal(same_losses[name].total, loss.total), name


def test_autograd_keeps_no_enlarged_masks(monkeypatch):
    # 24 targets of 64x64: less is kept for the backward pass than one float32 copy.
    monkeypatch.setattr(set_losses, "_PIXELS_AT_ONCE", 2 * 64 * 64)
    id_map = torch.arange(24, dtype=torch.int32).repeat(171)[: 64 * 64].view(64, 64)
    targets = [MaskTargets(id_map, torch.arange(24, dtype=torch.int32), torch.arange(24) % 3)]
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(1, 1, 30, 4, generator=generator)
    masks = torch.randn(1, 1, 30, 16, 16, generator=generator, requires_grad=True)
    kept = []

    def note(tensor):
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = set_losses.set_losses(classes, masks, targets, SETTINGS)
    assert losses["mask_dice"].count == 24
    assert sum(kept) < 24 * 64 * 64 * 4
