"""Imported detectron2 networks against numbers that detectron2 itself computed.

Tolerances are relative to the largest value; the reference differs from an independent
recomputation by about 1e-6 in its own features and 5e-6 in refined logits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor

from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.instances import point_rend
from seamless_pr.models.instances.coarse_masks import CoarseMaskHead, coarse_mask_logits
from seamless_pr.models.instances.positive_rois import PositiveRoIs
from seamless_pr.models.instances.rpn import propose
from seamless_pr.models.instances.two_stage import TwoStageBranch
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.models.semantics import points as semantic_points
from seamless_pr.models.semantics.pixels import PixelSemantics
from seamless_pr.ops.points import (
    PointReader,
    points_to_image,
    regular_grid,
    sample_membership,
    sample_points,
)
from seamless_pr.ops.refinement import gather_point_features
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.panoptic_target import PanopticTarget
from tests.support.fixed_path import check_fixed_path
from tests.support.golden import EVERY_GOLDEN_CASE, GOLDEN_FOLDER, load_golden
from tests.support.zoo_networks import rgb_batch, zoo_network

FEATURE_TOLERANCE = 5e-6
LOGIT_TOLERANCE = 2e-5
LOSS_TOLERANCE = 2e-6
# Two logits whose difference is below this share of the largest are equal but for rounding.
TIE = 5e-6
# Segments may exchange this many pixels on their borders.
MOVED_PIXELS = 5

INSTANCE_CASES = (
    ("instance_cityscapes", "instance_cityscapes_r50_256x512_s0"),
    ("instance_cityscapes", "instance_cityscapes_r50_150x250_s4"),
    ("instance_coco", "instance_coco_r50_192x256_s3"),
)
SEMANTIC_CASES = (
    ("semantic_cityscapes", "semantic_cityscapes_r101_256x512_s0"),
    ("semantic_cityscapes", "semantic_cityscapes_r101_120x200_s5"),
)
PANOPTIC_CASES = (("panoptic_fpn_coco", "panoptic_fpn_coco_r50_256x512_s0"),)
ALL_CASES = INSTANCE_CASES + SEMANTIC_CASES + PANOPTIC_CASES
SMALL_CASES = {name for _, name in (SEMANTIC_CASES[1], PANOPTIC_CASES[0])}


@dataclass(frozen=True)
class Golden:
    """A golden network on its image, up to the pyramid."""

    network: TwoBranchNet
    arrays: dict[str, Tensor]
    name: str

    @cached_property
    def batch(self) -> ImageBatch:
        return rgb_batch(self.arrays["image_bgr"]).padded_to(self.network.size_divisor)

    @cached_property
    def features(self) -> Features:
        with torch.no_grad():
            return self.network.trunk(self.batch)

    @property
    def levels(self) -> tuple[Tensor, ...]:
        return self.features.levels

    @property
    def masks(self) -> point_rend.PointRendMasks:
        assert isinstance(self.network.instances, TwoStageBranch)
        assert isinstance(self.network.instances.masks, point_rend.PointRendMasks)
        return self.network.instances.masks

    def mask_heads(self) -> tuple[CoarseMaskHead, PointHead]:
        return self.masks.coarse_head, self.masks.point_head

    @property
    def semantics(self) -> semantic_points.PointSemantics:
        assert isinstance(self.network.semantics, semantic_points.PointSemantics)
        return self.network.semantics


@pytest.fixture(scope="module")
def golden(request):
    """One network at a time: pytest runs all tests of a case before the next one."""
    network, name = request.param
    seed = int(name.rpartition("_s")[2])
    yield Golden(zoo_network(seed, network), load_golden(f"pointrend/{name}"), name)
    zoo_network.cache_clear()


def on_cases(cases: tuple[tuple[str, str], ...]):
    """Runs a test on golden cases."""
    return pytest.mark.parametrize(
        "golden", cases, indirect=True, scope="module", ids=[name for _, name in cases]
    )


def difference(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def unpack(masks: Tensor, width: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(masks.numpy(), axis=-1)[..., :width].astype(bool))


def pasted(instances: Instances, size: tuple[int, int]) -> Tensor:
    """[R, H, W] bool masks, as the imported configuration pastes them."""
    masks = torch.zeros(len(instances), *size, dtype=torch.bool)
    for index, mask in enumerate(masks):
        crop = instances.require_masks().crop(index, size, 0.5, includes_threshold=True)
        mask[crop.window] = crop.mask
    return masks


def chosen_points(monkeypatch) -> list[tuple[Tensor, Tensor]]:
    """Will hold (uncertainty, chosen indices) of every subdivision step."""
    steps: list[tuple[Tensor, Tensor]] = []
    select = Tensor.topk

    def watched(scores: Tensor, *args, **options):
        result = select(scores, *args, **options)
        steps.append((scores, result.indices))
        return result

    monkeypatch.setattr(Tensor, "topk", watched)
    return steps


def differing_choices(scores: Tensor, found: Tensor, expected: Tensor, largest: float) -> int:
    """Points that only one of both chose and that are no tie with the least uncertain choice."""
    count = 0
    for row_scores, ours, theirs in zip(scores, found, expected):
        limit = row_scores[ours].min()
        one_sided = sorted(set(ours.tolist()) ^ set(theirs.tolist()))
        count += int(((row_scores[one_sided] - limit).abs() > TIE * largest).sum())
    return count


@pytest.mark.slow
@on_cases(ALL_CASES)
def test_pyramid_features_are_those_of_detectron2(golden, agree):
    if "padded_shape" in golden.arrays:
        assert list(golden.batch.padded_size) == golden.arrays["padded_shape"].tolist()[-2:]
    for index, level in enumerate(golden.levels, start=2):
        expected = golden.arrays[f"feat_p{index}_ch32"]
        name = f"{golden.name}/feat_p{index}_ch32"
        agree(name, difference(level[:, ::32], expected), FEATURE_TOLERANCE)
        mean, mean_absolute, mean_square = golden.arrays[f"feat_p{index}_stat"].tolist()
        values = level.double()
        assert values.mean().item() == pytest.approx(mean, abs=1e-6 * mean_absolute)
        assert values.abs().mean().item() == pytest.approx(mean_absolute, rel=1e-6)
        assert values.square().mean().item() == pytest.approx(mean_square, rel=1e-6)


@pytest.mark.slow
@on_cases(INSTANCE_CASES)
def test_proposals_are_those_of_detectron2(golden, agree):
    branch, expected = golden.network.instances, golden.arrays["proposals"]
    with torch.no_grad():
        output, anchors = branch.score_anchors(golden.features)
        sizes = golden.batch.image_sizes
        (proposals,) = propose(output, anchors, sizes, branch.rpn, training=False)
    assert len(proposals) == len(expected)
    torch.testing.assert_close(
        proposals.logits, golden.arrays["proposal_logits"], rtol=1e-4, atol=1e-4
    )
    # In any order: equal logits may swap, and the last of a full list with one that just missed it.
    distances = (proposals.boxes[:, None] - expected).abs().amax(-1)
    lost = max(int((distances.amin(side) > 1e-2).sum()) for side in (0, 1))
    agree(f"{golden.name}/proposals (rows of {len(expected)})", lost, 1)


@pytest.mark.slow
@on_cases(INSTANCE_CASES)
def test_masks_are_rendered_as_by_detectron2(golden, agree, monkeypatch):
    arrays, (coarse_head, point_head) = golden.arrays, golden.mask_heads()
    boxes, things = arrays["boxes"], arrays["classes"]
    padded_size, images = golden.batch.padded_size, torch.zeros(len(boxes), dtype=torch.int64)
    reader = PointReader((golden.levels[0],), (padded_size,))
    with torch.no_grad():
        coarse = coarse_mask_logits(coarse_head, reader, boxes, images)
        steps = chosen_points(monkeypatch)
        computed: list[Tensor] = []
        hook = point_head.register_forward_hook(lambda *call: computed.append(call[-1]))
        instances = Instances(torch.ones(len(boxes)), things, boxes)
        (logits,) = point_rend.point_mask_logits(
            coarse_head, point_head, reader, [instances], golden.masks.settings
        )
    monkeypatch.undo()
    hook.remove()
    of_coarse = difference(coarse, arrays["coarse_logits"])
    agree(f"{golden.name}/coarse_logits", of_coarse, FEATURE_TOLERANCE)
    largest = float(logits.abs().max())
    assert len(steps) == 3
    differing = [
        differing_choices(scores, indices, arrays[f"step{index}_point_indices"].long(), largest)
        for index, (scores, indices) in enumerate(steps)
    ]
    # What a tie in one step leaves behind may be no tie in the next one.
    agree(f"{golden.name}/step_point_indices (points of three steps)", sum(differing), 1)
    refined = logits[:, 1::4, 1::4]
    far = (refined - arrays["refined_logits_cls_sub"]).abs() > LOGIT_TOLERANCE * largest
    # A tie in the choice of points leaves one of both values interpolated.
    agree(f"{golden.name}/refined_logits_cls_sub (points)", int(far.sum()), 2)
    own_class = [
        values.unflatten(0, (len(boxes), -1))[torch.arange(len(boxes)), :, things]
        for values in computed
    ]
    of_first = difference(own_class[0], arrays["point_logits_cls_0"])
    agree(f"{golden.name}/point_logits_cls_0", of_first, LOGIT_TOLERANCE)
    for index, (values, (scores, indices)) in enumerate(zip(own_class[1:], steps, strict=True)):
        on_map = torch.full_like(scores, torch.nan).scatter_(1, indices, values)
        found = on_map.gather(1, arrays[f"step{index}_point_indices"].long())
        gap = (found - arrays[f"point_logits_cls_{index + 1}"]).abs()
        # Points that only detectron2 chose have no value here; `differing` counts them.
        assert gap.isnan().sum() <= 2
        assert (gap > LOGIT_TOLERANCE * largest).sum() == 0
    same = (logits > 0) == unpack(arrays["refined_mask_packed"], logits.shape[-1])
    agree(f"{golden.name}/refined_mask_packed (pixels)", int((~same).sum()), 2)


@pytest.mark.slow
@on_cases(INSTANCE_CASES)
def test_point_logits_at_the_points_of_detectron2_are_its_own(golden):
    arrays, (coarse_head, point_head) = golden.arrays, golden.mask_heads()
    boxes, things, size = arrays["boxes"], arrays["classes"], golden.masks.settings.start_size
    images, padded_size = torch.zeros(len(boxes), dtype=torch.int64), golden.batch.padded_size
    # The complete first grid, then the chosen cells of grids of twice the size each.
    points = [regular_grid(size).expand(len(boxes), -1, -1)]
    for step in range(3):
        size *= 2
        indices = arrays[f"step{step}_point_indices"].long()
        points.append((torch.stack([indices % size, indices // size], dim=-1) + 0.5) / size)
    with torch.no_grad():
        reader = PointReader((golden.levels[0],), (padded_size,))
        coarse = coarse_mask_logits(coarse_head, reader, boxes, images)
        for index, coords in enumerate(points):
            features = gather_point_features(reader, coarse, coords, boxes, images)
            logits = point_head(*features).unflatten(0, coords.shape[:2])
            own = logits[torch.arange(len(boxes)), :, things]
            # Uncertain points are near 0 by choice: the scale is that of all classes.
            limit = LOGIT_TOLERANCE * float(logits.abs().max())
            assert (own - arrays[f"point_logits_cls_{index}"]).abs().max() < limit


@pytest.mark.slow
@on_cases(INSTANCE_CASES)
def test_coarse_features_are_read_on_a_regular_grid_of_p2(golden):
    boxes = golden.arrays["boxes"][:3]
    height, width = golden.batch.padded_size
    points = points_to_image(regular_grid(14).expand(3, -1, -1), boxes)
    points = points / points.new_tensor([width, height])
    features = sample_points(
        golden.levels[0], points.flatten(0, 1), torch.zeros(3 * 196, dtype=torch.int64)
    )
    features = features.view(3, 14, 14, -1).permute(0, 3, 1, 2)[:, ::16]
    expected = golden.arrays["roi_feat_14x14_first3_ch16"]
    assert difference(features, expected) < FEATURE_TOLERANCE


@pytest.mark.slow
@on_cases(INSTANCE_CASES + PANOPTIC_CASES)
def test_final_detections_and_masks_are_those_of_detectron2(golden, agree):
    arrays = golden.arrays
    with torch.no_grad():
        (found,) = golden.network.instances.detect(golden.features, golden.batch)
    found = found.best_first()
    torch.testing.assert_close(found.scores, arrays["final_scores"], rtol=1e-4, atol=1e-5)
    # Row by row the nearest of detectron2's boxes: detections of equal score may swap.
    distances = (found.boxes[:, None] - arrays["final_boxes"]).abs().amax(-1)
    distances += 1e3 * (found.thing_indices[:, None] != arrays["final_classes"])
    distances += 1e3 * ((found.scores[:, None] - arrays["final_scores"]).abs() > 1e-4)
    nearest = distances.argmin(1)
    assert sorted(nearest.tolist()) == list(range(len(found)))
    agree(f"{golden.name}/final_boxes (pixels)", float(distances.amin(1).max()), 1e-2)
    height, width = golden.batch.image_sizes[0]
    expected = unpack(arrays["final_masks_packed"], width)[nearest]
    masks = pasted(found, (height, width))
    moved, allowed = int((masks != expected).sum()), 2 + 1e-4 * int(expected.sum())
    agree(f"{golden.name}/final_masks_packed (pixels)", moved, allowed)


@pytest.mark.slow
@on_cases(INSTANCE_CASES)
def test_training_points_and_losses_are_those_of_detectron2(golden, agree, monkeypatch):
    arrays, (coarse_head, point_head) = golden.arrays, golden.mask_heads()
    num_rois = len(arrays["train_boxes"])
    _, width = golden.batch.image_sizes[0]
    masks = unpack(arrays["train_gt_masks_packed"], width)
    # The masks overlap, so each object gets an id map, and an image, of its own.
    space = golden.network.label_space
    targets = [
        PanopticTarget(
            mask.int(), space.thing_train_id(thing)[None], torch.zeros(1, dtype=torch.bool), space
        )
        for mask, thing in zip(masks, arrays["train_classes"])
    ]
    rois = PositiveRoIs(
        boxes=arrays["train_boxes"],
        image_indices=torch.arange(num_rois),
        thing_indices=arrays["train_classes"],
        segment_ids=torch.ones(num_rois, dtype=torch.int32),
        segment_boxes=torch.cat([target.boxes for target in targets]),
    )
    coords = arrays["train_point_coords"]
    labels = sample_membership(
        [target.id_map for target in targets],
        rois.segment_ids,
        points_to_image(coords, rois.boxes),
        rois.image_indices,
    )
    torch.testing.assert_close(labels, arrays["train_point_labels"], rtol=0, atol=1e-4)

    monkeypatch.setattr(point_rend, "uncertain_coords", lambda *arguments: coords)
    fine_map = golden.levels[0].expand(num_rois, -1, -1, -1)
    reader = PointReader((fine_map,), (golden.batch.padded_size,))
    with torch.no_grad():
        coarse = coarse_mask_logits(coarse_head, reader, rois.boxes, rois.image_indices)
        fine, coarse_points = gather_point_features(
            reader, coarse, coords, rois.boxes, rois.image_indices
        )
        point_logits = point_head(fine, coarse_points).view(num_rois, -1, space.num_things)
        losses = point_rend.point_mask_losses(
            coarse_head,
            point_head,
            reader,
            rois,
            targets,
            golden.masks.settings,
            [torch.Generator()] * num_rois,
        )
    of_coarse = difference(coarse, arrays["train_coarse_logits"])
    agree(f"{golden.name}/train_coarse_logits", of_coarse, FEATURE_TOLERANCE)
    of_points = difference(point_logits.mT, arrays["train_point_logits"])
    agree(f"{golden.name}/train_point_logits", of_points, LOGIT_TOLERANCE)
    for name, key in (("mask_coarse", "train_loss_mask"), ("mask_point", "train_loss_mask_point")):
        found = losses[name].total.item() / losses[name].count
        reference = arrays[key].item()
        agree(f"{golden.name}/{key}", abs(found - reference) / reference, LOSS_TOLERANCE)


@pytest.mark.slow
@on_cases(SEMANTIC_CASES)
def test_semantics_are_refined_as_by_detectron2(golden, agree, monkeypatch):
    branch, arrays, levels = golden.semantics, golden.arrays, golden.levels
    padded_size = golden.batch.padded_size
    with torch.no_grad():
        coarse = branch.head(levels)
        steps = chosen_points(monkeypatch)
        refined = semantic_points.refine_semantic_logits(
            branch.point_head, levels[0], coarse, padded_size, branch.points
        )
    monkeypatch.undo()
    of_coarse = difference(coarse, arrays["coarse_logits"])
    agree(f"{golden.name}/coarse_logits", of_coarse, LOGIT_TOLERANCE)
    largest = float(refined.abs().max())
    assert len(steps) == 2
    for index, (scores, indices) in enumerate(steps):
        expected = arrays[f"step{index}_point_indices"].long()
        assert differing_choices(scores, indices, expected, largest) == 0
    height, width = golden.batch.image_sizes[0]
    with torch.no_grad():
        halfway = semantic_points.refine_semantic_logits(
            branch.point_head,
            levels[0],
            coarse,
            (padded_size[0] // 2, padded_size[1] // 2),
            branch.points,
        )
    # The golden files hold every fourth or eighth row and column.
    for ours, name in (
        (halfway[:, :, 3::4, 3::4], "logits_after_step1_sub"),
        (refined[:, :, 3::8, 3::8], "logits_after_step2_sub"),
        (refined[:, :, 5:height:8, 5:width:8], "final_sem_seg_sub"),
    ):
        far = (ours - arrays[name]).abs().amax(1) > LOGIT_TOLERANCE * largest
        agree(f"{golden.name}/{name} (points)", int(far.sum()), 2)
    classes = refined[0, :, :height, :width].argmax(0)
    moved = int((classes != arrays["final_sem_seg_argmax"]).sum())
    agree(f"{golden.name}/final_sem_seg_argmax (pixels)", moved, 1e-4 * classes.numel())


@pytest.mark.slow
@on_cases(SEMANTIC_CASES)
def test_a_semantic_network_predicts_the_class_of_every_pixel(golden):
    size = golden.batch.image_sizes[0]
    (found,) = golden.network.predict(rgb_batch(golden.arrays["image_bgr"]), [size])
    assert found.instances is None
    for classes in (found.require_panoptic().semantic_map(), found.semantic_map):
        wrong = classes != golden.arrays["final_sem_seg_argmax"]
        assert wrong.sum() <= 1e-4 * wrong.numel()


@pytest.mark.slow
@on_cases(SEMANTIC_CASES[:1])
def test_semantic_losses_are_those_of_detectron2(golden, agree, monkeypatch):
    branch, arrays, batch = golden.semantics, golden.arrays, golden.batch
    target = labels_as_target(arrays["train_gt"].long(), golden.network)
    coords = arrays["train_point_coords"]
    monkeypatch.setattr(semantic_points, "uncertain_coords", lambda *arguments: coords)
    with torch.no_grad():
        losses = branch.losses(golden.features, batch, [target], [torch.Generator()])
    for name, key in (
        ("semantic", "train_loss_sem_seg"),
        ("semantic_point", "train_loss_sem_seg_point"),
    ):
        found = losses[name].total.item() / losses[name].count
        reference = arrays[key].item()
        agree(f"{golden.name}/{key}", abs(found - reference) / reference, 1e-5)


def labels_as_target(labels: Tensor, net: TwoBranchNet) -> PanopticTarget:
    """A segment per class; 255 is void."""
    num_classes = net.label_space.num_classes
    id_map = torch.where(labels == 255, 0, labels + 1).int()
    is_crowd = torch.zeros(num_classes, dtype=torch.bool)
    return PanopticTarget(id_map, torch.arange(num_classes), is_crowd, net.label_space)


@pytest.mark.slow
@on_cases(PANOPTIC_CASES)
def test_panoptic_fpn_fuses_as_detectron2(golden, agree):
    net, arrays = golden.network, golden.arrays
    assert isinstance(net.semantics, PixelSemantics)
    with torch.no_grad():
        coarse = net.semantics.head(golden.levels)[:, :, ::2, ::2]
    # All things together are the last of our outputs and the first of theirs.
    expected = arrays["sem_seg_coarse_stride4_sub"].roll(-1, 1)
    of_coarse = difference(coarse, expected)
    agree(f"{golden.name}/sem_seg_coarse_stride4_sub", of_coarse, LOGIT_TOLERANCE)

    size = golden.batch.image_sizes[0]
    with torch.no_grad():
        logits = net.semantics.logits(golden.features, golden.batch.padded_size)[0]
    classes = logits[:, : size[0], : size[1]].roll(1, 0).argmax(0)
    assert (classes != arrays["sem_seg_argmax"]).sum() <= 1e-4 * classes.numel()

    (prediction,) = net.predict(rgb_batch(arrays["image_bgr"]), [size])
    segmentation = prediction.require_panoptic()
    theirs = detectron2_segments(net)
    pairs, counts = torch.stack(
        [segmentation.id_map.flatten(), arrays["panoptic_seg"].flatten()]
    ).unique(dim=1, return_counts=True)
    ours = {segment.segment_id: segment.train_id for segment in segmentation.segments}
    partners: dict[int, int] = {}
    for (own_id, their_id), count in zip(pairs.t().tolist(), counts.tolist()):
        if count > MOVED_PIXELS:
            assert own_id not in partners
            partners[own_id] = their_id
            assert ours.get(own_id) == theirs.get(their_id)
    assert sorted(partners.values()) == sorted(set(partners.values()))
    assert len(partners) > 1
    strays = counts[counts <= MOVED_PIXELS].sum()
    agree(f"{golden.name}/panoptic_seg (pixels)", int(strays), 4 * MOVED_PIXELS)


@pytest.mark.slow
@on_cases(ALL_CASES)
def test_the_prediction_of_fixed_shapes_is_the_one_step_by_step(golden, agree):
    if golden.name not in SMALL_CASES and not EVERY_GOLDEN_CASE:
        pytest.skip("takes long; set SEAMLESS_PR_EVERY_GOLDEN_CASE=1")
    sizes = golden.batch.image_sizes
    ((expected, moved),) = check_fixed_path(golden.network, golden.batch, sizes, golden.features)
    assert expected.require_panoptic().segments
    agree(f"{golden.name}/fixed shapes (tied pixels)", moved, MOVED_PIXELS)


def detectron2_segments(net: TwoBranchNet) -> dict[int, int]:
    """Segment id -> train id of the golden panoptic map."""
    with np.load(GOLDEN_FOLDER / f"pointrend/{PANOPTIC_CASES[0][1]}.npz") as arrays:
        segments = json.loads(str(arrays["segments_info_json"]))
    return {
        # Their stuff classes start at 1, after all things together.
        segment["id"]: net.label_space.thing_train_id(segment["category_id"])
        if segment["isthing"]
        else segment["category_id"] - 1
        for segment in segments
    }
