"""Views of one batch, merged by a panoptic network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.models.networks.views import ViewedNet, changed_batch
from seamless_pr.structures.views import SeenView, View
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
    assert changed.image_sizes == ((32, 50), (24, 40))
    plain = changed_batch(images, View(1.0, flip=True))
    torch.testing.assert_close(plain.images[1, :, :48, :80].flip(-1), images.images[1, :, :48, :80])


@pytest.mark.parametrize("whole_pixels", [False, True])
def test_boxes_go_into_a_view_and_back(whole_pixels):
    images, _ = batch()
    changed = changed_batch(images, View(2.0, flip=True))
    seen = SeenView(None, changed, True)
    boxes = torch.tensor([[10.0, 5, 30, 25], [0.0, 0, 80, 48]])
    there = seen.from_base(boxes, 1, images, whole_pixels=whole_pixels)
    back = seen.to_base(there, 1, images, whole_pixels=whole_pixels)
    torch.testing.assert_close(back, boxes)
    if not whole_pixels:
        torch.testing.assert_close(there[0], torch.tensor([100.0, 10, 140, 50]))


@pytest.mark.parametrize("model", [CONV, HTC], ids=["mask_rcnn", "htc"])
def test_one_plain_view_is_the_network_itself_and_more_are_merged(model):
    net, (images, _) = network(model), batch()
    single = replace(
        images, images=images.images[:1, :, :64, :96].contiguous(), image_sizes=((64, 96),)
    )
    plain = net.predict(single, [(64, 96)])[0]
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


def test_what_cannot_be_merged_is_said():
    images, _ = batch()
    with pytest.raises(ValueError, match="SoloV2 cannot merge views"):
        ViewedNet(network(SOLO), [View()]).outputs(images)
    with pytest.raises(ValueError, match="at least one"):
        ViewedNet(network(CONV), [])
    with pytest.raises(ValueError, match="must be positive; got 0"):
        View(0)
