"""Networks of branches on three images of different sizes, one of them without an object."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from tests.config.test_model_keys import BASE, CONV, HTC
from tests.models.networks.test_panoptic_with_new_heads import NETWORKS
from tests.support.model_keys import ENLARGED, LABEL_SPACE, picture
from tests.support.small_config import smallest

KINDS = {**NETWORKS, "htc alone": HTC, "mask_rcnn": CONV, "point_rend": BASE}
SIZES = ((64, 100), (96, 48), (40, 80))


def three_images() -> tuple[ImageBatch, list[PanopticTarget]]:
    images = torch.zeros(3, 3, 96, 100, dtype=torch.uint8)
    targets = []
    for index, (count, (height, width)) in enumerate(zip((4, 2, 0), SIZES, strict=True)):
        images[index, :, :height, :width], target = picture(index, count, (height, width))
        targets.append(target)
    return ImageBatch(images, SIZES), targets


def single(batch: ImageBatch, index: int) -> ImageBatch:
    """With the padding that it has in the batch."""
    return ImageBatch(batch.images[index : index + 1], (batch.image_sizes[index],))


@pytest.fixture(params=KINDS)
def network(request):
    """In float64 and evaluation mode: no rounding, no statistics of the batch."""
    torch.manual_seed(0)
    values = smallest(model=KINDS[request.param], loss_weights={})
    built = build_network(config_from_dict(values, "test", []).model, LABEL_SPACE)
    for name, parameter in built.named_parameters():
        parameter.data.mul_(ENLARGED.get(name, 1))
    return built.double().eval()


def losses(network, images: ImageBatch, targets, seeds) -> dict[str, LossSum]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with torch.no_grad():
        return network.losses(images, targets, generators)


def test_losses_are_sums_over_the_images_and_keep_double_precision(network):
    batch, targets = three_images()
    together = losses(network, batch, targets, range(3))
    alone = [losses(network, single(batch, i), [targets[i]], [i]) for i in range(3)]
    for name, loss in together.items():
        assert loss.total.dtype == torch.float64, name
        assert loss.total > 0, name
        total = sum(one[name].total for one in alone)
        torch.testing.assert_close(loss.total, total, msg=lambda text, name=name: f"{name}: {text}")
        # The focal loss of cells counts one more in every call.
        extra = 2 if name == "solo_category" else 0
        assert loss.count + extra == sum(one[name].count for one in alone), name


def test_predictions_do_not_depend_on_the_rest_of_the_batch(network):
    batch, _ = three_images()
    files = [(90, 140), (192, 96), (40, 80)]
    together = network.predict(batch, files)
    for index, found in enumerate(together):
        (alone,) = network.predict(single(batch, index), [files[index]])
        assert torch.equal(found.require_panoptic().id_map, alone.require_panoptic().id_map)
        ours, theirs = found.instances, alone.instances
        assert ours is not None
        assert theirs is not None
        assert len(ours) > 0
        torch.testing.assert_close(ours.scores, theirs.scores)
        assert torch.equal(ours.thing_indices, theirs.thing_indices)
        for row in range(len(ours)):
            masks = [x.require_masks().crop(row, files[index], 0.5) for x in (ours, theirs)]
            assert torch.equal(masks[0].mask, masks[1].mask)
