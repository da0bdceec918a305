"""SOLOv2, HTC and PointRend of several levels as instance branches of panoptic networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.structures.image_batch import ImageBatch
from tests.config.test_model_keys import BALANCED, HTC, IMPLICIT, POINT_REND, SOLO
from tests.support.model_keys import LABEL_SPACE, batch
from tests.support.small_config import smallest

NETWORKS: dict[str, dict[str, Any]] = {
    "solov2": SOLO,
    "htc": {**HTC, "instances": {**HTC["instances"], "mask_scoring": True, "context": True}},
    "point_rend of several levels": {
        **BALANCED,
        "instances": {
            **POINT_REND,
            "mask": {"hidden_channels": 8, "conv_channels": 4, "mixes_first": True},
            "points": {**POINT_REND["points"], "num_levels": 5},
        },
    },
    "implicit point_rend": IMPLICIT,
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    model = NETWORKS[request.param]
    config = config_from_dict(smallest(model=model, loss_weights={}), "test", [])
    return build_network(config.model, LABEL_SPACE)


def test_objects_and_semantics_become_one_map_and_train_together(network):
    images, targets = batch()
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    losses = network.train().losses(images, targets, generators)
    assert tuple(losses) == network.loss_names
    sum(loss.total for loss in losses.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    sizes = [(90, 140), (50, 80)]
    for prediction, size in zip(network.eval().predict(images, sizes), sizes, strict=True):
        assert prediction.require_panoptic().image_size == size
        assert prediction.instances is not None
        assert prediction.instances.masks is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_and_predictions_under_autocast_are_finite_and_in_single_precision(network, dtype):
    images, targets = batch()
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    with torch.autocast("cpu", dtype):
        losses = network.train().losses(images, targets, generators)
        predictions = network.eval().predict(images, [(90, 140), (50, 80)])
    for name, loss in losses.items():
        assert loss.total.dtype == torch.float32, name
        assert bool(loss.total.isfinite()), name
    sum(loss.total for loss in losses.values()).backward()
    for prediction in predictions:
        assert prediction.instances is not None
        assert prediction.instances.scores.dtype == torch.float32


def test_images_without_objects_cost_nothing_that_needs_one(network):
    images, targets = batch()
    single = ImageBatch(images.images[1:], images.image_sizes[1:])
    losses = network.train().losses(single, targets[1:], [torch.Generator().manual_seed(0)])
    for name, loss in losses.items():
        assert bool(loss.total.isfinite()), name
        if name.startswith(("mask", "solo_mask", "box_delta", "rpn_box")):
            assert loss.total.item() == 0, name
    sum(loss.total for loss in losses.values()).backward()


def test_nothing_found_is_an_empty_record(network):
    images, _ = batch()
    features = network.trunk(images)
    with torch.no_grad():
        found = network.instances.detect(features, images)
        none = [one.select(torch.zeros(0, dtype=torch.int64)) for one in found]
        for one in network.instances.add_masks(features, images, none):
            assert len(one) == 0
            assert one.masks is not None
