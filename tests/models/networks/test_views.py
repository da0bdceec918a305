"""Views of one batch, merged by a panoptic network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.models.networks.network import Network
from seamless_pr.models.networks.views import ViewedNet, changed_batch
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.views import View, views_of
from tests.config.test_model_keys import CONV, HTC, SOLO
from tests.support.model_keys import LABEL_SPACE, batch
from tests.support.small_config import smallest

SIZES = [(64, 100), (48, 80)]


def network(model):
    torch.manual_seed(0)
    config = config_from_dict(smallest(model=model, loss_weights={}), "test", [])
    return build_network(config.model, LABEL_SPACE).eval()


def test_a_changed_batch_holds_the_valid_pixels_alone():
    images, _ = batch()
    changed = changed_batch(images, View(0.5, flip=True))
    assert changed.batch.image_sizes == ((32, 50), (24, 40))
    plain = changed_batch(images, View(1.0, flip=True))
    torch.testing.assert_close(
        plain.batch.images[1, :, :48, :80].flip(-1), images.images[1, :, :48, :80]
    )


@pytest.mark.parametrize("rounded, width", [(False, 31), (True, 32)])
def test_views_by_their_shorter_side_are_rounded_where_asked(rounded, width):
    image = ImageBatch.from_images([torch.zeros(3, 32, 63, dtype=torch.uint8)])
    view = View(shortest_side_pixels=16, rounded_sides=rounded)
    assert changed_batch(image, view).batch.image_sizes == ((16, width),)


@pytest.mark.parametrize("whole_pixels", [False, True])
def test_boxes_go_into_a_view_and_back(whole_pixels):
    images, _ = batch()
    changed = changed_batch(images, View(2.0, flip=True))
    seen = changed
    boxes = torch.tensor([[10.0, 5, 30, 25], [0.0, 0, 80, 48]])
    there = seen.from_base(boxes, 1, images, whole_pixels=whole_pixels)
    back = seen.to_base(there, 1, images, whole_pixels=whole_pixels)
    torch.testing.assert_close(back, boxes)
    if not whole_pixels:
        torch.testing.assert_close(there[0], torch.tensor([100.0, 10, 140, 50]))


SCORED = {**HTC, "instances": {**HTC["instances"], "mask_scoring": True}}


@pytest.mark.parametrize("model", [CONV, HTC, SCORED], ids=["mask_rcnn", "htc", "scored"])
def test_one_plain_view_is_the_network_itself_and_more_are_merged(model):
    net, (images, _) = network(model), batch()
    if model is SCORED:
        torch.nn.init.constant_(net.instances.mask_iou_head.predictor.bias, 0.5)
    single = replace(
        images, images=images.images[:1, :, :64, :96].contiguous(), image_sizes=((64, 96),)
    )
    plain = net.predict(single, [(64, 96)])[0]
    assert len(plain.instances) > 3
    viewed = ViewedNet(net, [View()]).predict(single, [(64, 96)])[0]
    torch.testing.assert_close(viewed.instances.boxes, plain.instances.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(viewed.instances.scores, plain.instances.scores)
    same = (viewed.panoptic.id_map == plain.panoptic.id_map).float().mean()
    assert float(same) > 0.99
    views = [View(), View(1.0, True), View(1.5), View(1.5, True)]
    for prediction, size in zip(ViewedNet(net, views).predict(images, SIZES), SIZES, strict=True):
        assert prediction.require_panoptic().image_size == size
        assert prediction.instances.masks is not None


def test_a_mirrored_image_gives_the_mirrored_result():
    net, (images, _) = network(CONV), batch()
    single = replace(
        images, images=images.images[:1, :, :64, :96].contiguous(), image_sizes=((64, 96),)
    )
    views = ViewedNet(net, [View(), View(1.0, True)])
    here = views.outputs(single)
    there = views.outputs(replace(single, images=single.images.flip(-1)))
    torch.testing.assert_close(
        there.semantic_logits.flip(-1), here.semantic_logits, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(
        there.instances[0].scores, here.instances[0].scores, rtol=1e-3, atol=1e-4
    )


def test_views_of_scales_are_plain_first_then_mirrored():
    assert views_of([1.0]) == ()
    assert views_of([0.5, 1.0], flip=True) == (
        View(0.5),
        View(0.5, True),
        View(1.0),
        View(1.0, True),
    )


def test_masks_of_a_mirrored_image_are_mirrored_without_boxes_too():
    net, (images, _) = network(SOLO), batch()
    with torch.no_grad():
        net.instances.head.category_logits.weight *= 30
        net.instances.head.kernels.weight *= 30
    single = replace(
        images, images=images.images[:1, :, :64, :96].contiguous(), image_sizes=((64, 96),)
    )
    plain = net.outputs(single).instances[0]
    (alone,) = ViewedNet(net, [View()]).outputs(single).instances
    assert len(plain) > 3
    torch.testing.assert_close(alone.scores, plain.scores)
    both = ViewedNet(net, [View(), View(1.0, True)])
    (here,) = both.outputs(single).instances
    (there,) = both.outputs(replace(single, images=single.images.flip(-1))).instances
    torch.testing.assert_close(there.scores, here.scores, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        there.masks.probs[0].flip(-1), here.masks.probs[0], rtol=1e-2, atol=1e-2
    )
    (prediction,) = both.predict(single, [(40, 60)])
    assert prediction.require_panoptic().image_size == (40, 60)


def test_a_network_that_cannot_merge_says_so_and_views_are_checked():
    images, _ = batch()
    with pytest.raises(ValueError, match="Network cannot merge views"):
        Network().outputs_of_views([], images)
    with pytest.raises(ValueError, match="at least one"):
        ViewedNet(network(CONV), [])
    with pytest.raises(ValueError, match="must be positive; got 0"):
        View(0)
