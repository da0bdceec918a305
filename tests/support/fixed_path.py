"""The prediction of fixed shapes beside the one step by step, and which pixels may differ, and why.

Letters: K classes, H, W size of the image file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.models.networks.two_branch import BranchOutputs, TwoBranchNet
from seamless_pr.ops.fixed_shapes import fixed_shapes
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.prediction import Prediction

# Both ways add the same numbers in another order, which moves a probability, or a logit as a share
# of the largest one, by less than this.
ROUNDING = 2e-5


@torch.no_grad()
def check_fixed_path(
    net: TwoBranchNet,
    batch: ImageBatch,
    sizes: Sequence[tuple[int, int]],
    features: Features | None = None,
) -> list[tuple[Prediction, int]]:
    """Both ways must give the same segments and the same pixels, but for `tied_pixels`.

    Args:
        net: in evaluation mode, on the CPU.
        batch: images.
        sizes: (height, width) of each image file.
        features: of the padded batch, where they are known; then the trunk is not compared.

    Returns:
        What the way step by step says of each image, and how many tied pixels differ.
    """
    known = patch.object(net, "features", return_value=features) if features else nullcontext()
    with known:
        outputs = net.outputs(batch)
        with fixed_shapes():
            found = net.predict_fixed(batch, sizes).read(net.label_space)
    expected = net.finish(outputs, sizes)
    compared = []
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours is not None, "a chain of suppressions is longer than the fixed number of sweeps"
        ties = tied_pixels(net, outputs, index, sizes[index])
        num_moved = _check_maps(ours.require_panoptic(), theirs.require_panoptic(), ties)
        if theirs.semantic_map is not None:
            assert ours.semantic_map is not None
            assert not ((ours.semantic_map != theirs.semantic_map) & ~ties).any()
        _check_instances(ours, theirs)
        compared.append((theirs, num_moved))
    return compared


def _check_maps(ours: PanopticSegmentation, theirs: PanopticSegmentation, ties: Tensor) -> int:
    assert [(s.segment_id, s.train_id, s.is_crowd) for s in ours.segments] == [
        (s.segment_id, s.train_id, s.is_crowd) for s in theirs.segments
    ]
    moved = ours.id_map != theirs.id_map
    assert not (moved & ~ties).any(), f"{int((moved & ~ties).sum())} pixels without a tie differ"
    for found, expected in zip(ours.segments, theirs.segments, strict=True):
        assert abs(found.area - expected.area) <= int(moved.sum())
        assert abs((found.score or 0) - (expected.score or 0)) < ROUNDING
    return int(moved.sum())


def _check_instances(ours: Prediction, theirs: Prediction) -> None:
    if theirs.instances is None:
        assert ours.instances is None
        return
    assert ours.instances is not None
    found, expected = ours.instances.best_first(), theirs.instances.best_first()
    assert found.thing_indices.tolist() == expected.thing_indices.tolist()
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=ROUNDING)
    # Pixels of the image file.
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=ROUNDING, atol=1e-2)


def tied_pixels(
    net: TwoBranchNet, outputs: BranchOutputs, index: int, size: tuple[int, int]
) -> Tensor:
    """[H, W] bool: pixels that rounding may give to another segment.

    There are two kinds: the probability of a mask is its threshold, or the logits of the two best
    classes are equal.
    """
    settings = net.fusion.settings
    image_size = outputs.batch.image_sizes[index]
    fused_size = image_size if settings.size == "network" else size
    ties = torch.zeros(fused_size, dtype=torch.bool)
    if outputs.instances is not None:
        instances = outputs.instances[index]
        scale_y, scale_x = (to / valid for to, valid in zip(fused_size, image_size, strict=True))
        masks = instances.scaled(scale_x, scale_y).require_masks()
        more, less = (
            masks.paste(fused_size, settings.mask_threshold + step)
            for step in (-ROUNDING, ROUNDING)
        )
        ties |= (more & ~less).any(0)
    scores = net.dense_scores(outputs, index, fused_size)
    if scores is not None:
        first, second = scores.topk(2, dim=0).values
        ties |= first - second < ROUNDING * scores.abs().max()
    if fused_size != size:
        ties = F.interpolate(ties[None, None].float(), size, mode="nearest-exact")[0, 0] > 0
    return ties
