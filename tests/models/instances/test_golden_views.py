"""Views merged by the 3D-FUTURE winner's PointRend: plain and flipped, at two scales."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seamless_pr.models.instances.box_views import averaged_masks, pooled_proposals
from seamless_pr.models.instances.rpn import propose
from seamless_pr.ops.boxes import last_pixels
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.views import SeenView
from tests.support.golden import every_golden_case
from tests.support.mmdet_networks import WINNER, MMDetCase, check_proposals, close
from tests.support.mmdet_recipe import recipe_image, unpacked

CASE = MMDetCase("pointrend_winner_r50_tta_100x140_s4", "pointrend_winner_r50", WINNER)
VIEWS = ((1, False), (1, True), (2, False), (2, True))
pytestmark = pytest.mark.slow


def ours(boxes: Tensor) -> Tensor:
    return boxes + boxes.new_tensor([0, 0, 1, 1])


def seen_views() -> list[SeenView]:
    image = recipe_image(*CASE.image_size, CASE.seed)
    views = []
    for scale, flip in VIEWS:
        # The golden views repeat pixels.
        large = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        batch = ImageBatch.from_images([large.flip(-1) if flip else large]).padded_to(32)
        with torch.no_grad():
            views.append(SeenView(batch, flip, CASE.build().trunk(batch)))
    return views


@every_golden_case
def test_proposals_boxes_and_masks_are_merged_as_by_the_winner():
    golden, branch, views, base = CASE.golden, CASE.build().instances, seen_views(), CASE.batch()
    with torch.no_grad():
        proposals = []
        for view in views:
            output, anchors = branch.score_anchors(view.features)
            sizes = view.batch.image_sizes
            proposals.append(propose(output, anchors, sizes, branch.rpn, training=False))
        counts = [len(of_image) for of_view in proposals for of_image in of_view]
        assert counts == golden["tta_view_num_proposals"].tolist()
        (pooled,) = pooled_proposals(views, proposals, base, branch.rpn)
        check_proposals(last_pixels(pooled), golden["tta_proposals"][:, :4])
        (found,) = branch.boxes_of_views(views, base, [ours(golden["tta_proposals"][:, :4])])
        close(found.scores, golden["tta_all_det_scores"], 1e-3)
        assert found.thing_indices.tolist() == golden["tta_all_det_classes"].tolist()
        close(last_pixels(found.require_boxes()), golden["tta_all_det_boxes"], 2e-2)
        boxes, classes = ours(golden["tta_mask_boxes"]), golden["tta_mask_classes"].long()
        chosen = Instances(torch.ones(len(boxes)), classes, boxes)
        of_view: list[Tensor] = []

        def add_masks(view: SeenView, instances: list[Instances]) -> list[Instances]:
            masked = branch.add_masks(view.features, view.batch, instances)
            of_view.append(masked[0].require_masks().logits)
            return masked

        (merged,) = averaged_masks(views, [chosen], base, add_masks, whole_pixels=True)
    for index, logits in enumerate(of_view):
        expected = golden[f"tta_view{index}_refined_logits_cls_sub"]
        differing = (logits[:, 1::16, 1::16] - expected).abs() > 1e-3
        assert float(differing.float().mean()) < 5e-3
    probs = merged.require_masks().logits.sigmoid()
    differing = (probs[:, 1::8, 1::8] - golden["tta_merged_prob_cls_sub"]).abs() > 1e-3
    assert float(differing.float().mean()) < 5e-3
    height, width = CASE.image_size
    expected = unpacked(golden["tta_masks_packed"], width)
    for index, mask in enumerate(expected):
        crop = merged.require_masks().crop(index, (height, width), 0.5)
        pasted = torch.zeros(height, width, dtype=torch.bool)
        pasted[crop.window] = crop.mask
        assert float((pasted != mask).float().mean()) < 1e-3
