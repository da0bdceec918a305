"""Several networks pooled before the fusion."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.models.networks.ensemble import WINNER_NMS, EnsembleNet, Member
from seamless_pr.models.networks.views import ViewedNet
from seamless_pr.ops.masks import BoxMasks, ImageMasks
from seamless_pr.ops.score_weights import interpolated_weights
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.views import View
from tests.config.test_model_keys import CONV, HTC, SOLO
from tests.oracles.suppression import soft_nms as plain_soft_nms
from tests.support.golden import load_golden
from tests.support.model_keys import LABEL_SPACE, batch
from tests.support.small_config import smallest
from tests.support.tiny_maskformer import tiny_maskformer

WINNER = load_golden("mmdet/ops_winner")
LAST_PIXEL = torch.tensor([0.0, 0.0, 1.0, 1.0])


def network(model, seed=0, label_space=LABEL_SPACE):
    torch.manual_seed(seed)
    config = config_from_dict(smallest(model=model, loss_weights={}), "test", [])
    return build_network(config.model, label_space).eval()


def single() -> ImageBatch:
    images, _ = batch()
    return ImageBatch(images.images[:1, :, :64, :96].contiguous(), ((64, 96),))


def box(*corners, thing=0, score=0.9):
    boxes = torch.tensor([corners], dtype=torch.float32)
    return Instances(
        torch.tensor([score]),
        torch.tensor([thing]),
        boxes,
        BoxMasks(torch.full((1, 28, 28), 5.0), boxes),
    )


def image_mask(left, right, score=0.9):
    probs = torch.zeros(1, 16, 24)
    probs[:, 4:12, left // 4 : right // 4] = 1.0
    return Instances(
        torch.tensor([score]), torch.tensor([0]), None, ImageMasks(probs, (64, 96), (64, 96))
    )


def test_boxes_of_all_models_go_through_the_winners_suppression_and_keep_their_masks():
    net = EnsembleNet([Member(network(CONV))])
    weights = interpolated_weights(WINNER["ensemble_val_scores"].tolist())
    found = []
    for model, weight in enumerate(weights):
        boxes, scores, classes = (
            WINNER[f"ensemble_m{model}_{part}"] for part in ("boxes", "scores", "classes")
        )
        # Each mask says whose it is.
        marks = 100.0 * model + torch.arange(len(boxes), dtype=torch.float32)
        masks = BoxMasks(marks[:, None, None], boxes)
        found.append(Instances(scores * weight, classes.long(), boxes + LAST_PIXEL, masks))
    pooled = net.pooled(found, (400, 600))
    expected = WINNER["ensemble_out_model_row"].long()
    torch.testing.assert_close(pooled.boxes - LAST_PIXEL, WINNER["ensemble_out_boxes"])
    torch.testing.assert_close(pooled.thing_indices, WINNER["ensemble_out_classes"].long())
    torch.testing.assert_close(pooled.masks.places, expected)
    torch.testing.assert_close(
        pooled.scores.double(), WINNER["ensemble_out_scores"], rtol=0, atol=5.01e-4
    )
    part, row = expected[7].tolist()
    assert float(pooled.masks.parts[part].logits[row]) == 100 * part + row


def test_scored_masks_come_in_after_the_boxes_have_competed():
    """By a plain loop: with the factors of masks inside, other boxes would win."""
    generator = torch.Generator().manual_seed(0)
    weights, found, every = (0.6, 1.0), [], []
    for model, weight in enumerate(weights):
        corners = 60 * torch.rand(30, 2, generator=generator)
        boxes = torch.cat([corners, corners + 10 + 30 * torch.rand(30, 2, generator=generator)], 1)
        scores, factors = torch.rand(2, 30, generator=generator)
        # The second network does not score masks.
        factors = torch.ones(30) if model else factors
        things = torch.randint(0, 2, (30,), generator=generator)
        masks = BoxMasks(torch.zeros(30, 28, 28), boxes)
        of_boxes = None if model else weight * scores
        found.append(Instances(weight * scores * factors, things, boxes, masks, of_boxes))
        every += zip(boxes.tolist(), (weight * scores).tolist(), things.tolist(), factors.tolist())
    expected = []
    for thing in range(2):
        rows = [row for row, values in enumerate(every) if values[2] == thing]
        boxes, scores = zip(*(every[row][:2] for row in rows))
        kept = plain_soft_nms(boxes, scores, **asdict(WINNER_NMS))
        expected += [(score, rows[index]) for index, score in kept]
    # The best by their boxes; only then the masks.
    expected = sorted(expected, reverse=True)[:20]
    final = sorted(((score * every[row][3], row) for score, row in expected), reverse=True)
    pooled = EnsembleNet([Member(network(CONV))], max_detections=20).pooled(found, (100, 100))
    places = [part * 30 + row for part, row in pooled.masks.places.tolist()]
    assert places == [row for _, row in final]
    torch.testing.assert_close(pooled.scores, torch.tensor([score for score, _ in final]))


def test_an_htc_says_what_its_boxes_scored_alone():
    model = {**HTC, "instances": {**HTC["instances"], "mask_scoring": True}}
    net, images = network(model), single()
    torch.nn.init.constant_(net.instances.mask_iou_head.predictor.bias, 0.5)
    (alone,) = net.outputs(images).instances
    of_boxes, factors = alone.split_scores()
    assert len(alone) > 0
    assert bool((alone.scores < of_boxes).all())
    torch.testing.assert_close(of_boxes * factors, alone.scores)
    viewed = ViewedNet(net, [View(), View(flip=True)])
    for member in (Member(net, 0.6), Member(viewed, 0.6)):
        (found,) = EnsembleNet([member]).outputs(images).instances
        assert found.box_scores is not None
        assert bool((found.scores < found.box_scores).all())
        assert float(found.box_scores.max()) < 0.6


def test_a_network_pooled_with_itself_finds_what_it_finds_alone():
    net, images = network(CONV), single()
    alone = net.outputs(images)
    both = EnsembleNet([Member(net, 1.0), Member(net, 0.6)]).outputs(images)
    torch.testing.assert_close(
        both.semantic_logits.argmax(1)[:, 2:-2, 2:-2],
        torch.nn.functional.interpolate(alone.semantic_logits, (64, 96), mode="bilinear").argmax(1)[
            :, 2:-2, 2:-2
        ],
    )
    best = alone.instances[0].best_first()
    torch.testing.assert_close(both.instances[0].boxes[0], best.boxes[0])
    torch.testing.assert_close(both.instances[0].scores[0], best.scores[0])


def test_members_may_see_other_sizes_and_views_and_have_one_branch_only():
    without = {**CONV, "semantics": None}
    members = [
        Member(network(CONV), 0.8),
        Member(ViewedNet(network(without, 1), [View(), View(flip=True)]), 1.0),
        Member(network(CONV, 2), 1.0, View(shortest_side_pixels=48)),
    ]
    (prediction,) = EnsembleNet(members).predict(single(), [(40, 60)])
    assert prediction.require_panoptic().image_size == (40, 60)
    assert float(prediction.instances.boxes[:, 2].max()) <= 60
    assert prediction.semantic_map.shape == (40, 60)


def test_masks_without_boxes_compete_by_their_masks_and_with_boxes_by_their_extent():
    net = EnsembleNet([Member(network(CONV))])
    same, other = image_mask(0, 40, 0.9), image_mask(0, 40, 0.8)
    masks_only = net.pooled([same, other, image_mask(60, 96, 0.7)], (64, 96))
    assert masks_only.boxes is None
    torch.testing.assert_close(
        masks_only.scores, torch.tensor([0.9, 0.7, 0.8 * float(torch.tensor(-2.0).exp())])
    )
    mixed = net.pooled([box(0, 16, 40, 48, score=0.8), same], (64, 96))
    torch.testing.assert_close(mixed.boxes[0], torch.tensor([0.0, 16, 40, 48]), rtol=0, atol=1)
    assert float(mixed.scores[0]) == pytest.approx(0.9)
    assert mixed.masks.places[0].tolist() == [1, 0]
    # The box of the other one is nearly the extent of the mask.
    assert len(mixed) == 1 or float(mixed.scores[1]) < 0.1


def test_nothing_found_is_nothing_pooled():
    net = EnsembleNet([Member(network(CONV))])
    empty = box(0, 0, 4, 4).select(torch.zeros(1, dtype=torch.bool))
    assert len(net.pooled([empty, empty], (64, 96))) == 0
    without_boxes = replace(
        empty, boxes=None, masks=ImageMasks(torch.zeros(0, 16, 24), (64, 96), (64, 96))
    )
    assert len(net.pooled([without_boxes], (64, 96))) == 0


def test_networks_that_do_not_belong_together_are_refused():
    reordered = LabelSpace(
        "other", tuple(reversed(LABEL_SPACE.categories[:2])) + LABEL_SPACE.categories[2:]
    )
    with pytest.raises(ValueError, match="'four' and 'other'"):
        EnsembleNet([Member(network(CONV)), Member(network(CONV, label_space=reordered))])
    with pytest.raises(ValueError, match="got a MaskFormer"):
        EnsembleNet([Member(tiny_maskformer())])
    with pytest.raises(ValueError, match="got none"):
        EnsembleNet([])
    with pytest.raises(ValueError, match="for prediction"):
        EnsembleNet([Member(network(SOLO))]).losses()
