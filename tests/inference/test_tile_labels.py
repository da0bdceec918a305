"""Tiles of every kind of network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.inference.predictor import Predictor
from seamless_pr.inference.tile_labels import label_tile, min_stuff_area
from tests.models.networks.test_panoptic_with_new_heads import NETWORKS
from tests.support.model_keys import LABEL_SPACE
from tests.support.small_config import smallest
from tests.support.tiny_maskformer import SPACE, scene, tiny_maskformer, tiny_per_pixel

PIXELS = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("kind", ["solov2", "htc"])
def test_a_tile_of_branches_has_the_classes_of_its_prediction(kind):
    torch.manual_seed(0)
    config = config_from_dict(smallest(model=NETWORKS[kind], loss_weights={}), "test", [])
    network = build_network(config.model, LABEL_SPACE)
    predictor = Predictor(network, shortest_side_pixels=64)
    tile = label_tile(predictor, PIXELS)
    (prediction,) = predictor.predict([PIXELS])
    num_stuff = LABEL_SPACE.num_stuff
    classes = np.minimum(prediction.semantic_map.numpy(), num_stuff)
    assert tile.stuff_scores.dtype == np.float16
    agree = tile.stuff_scores.argmax(0) == classes
    # float16 makes a tie of the closest.
    assert agree.mean() > 0.99
    assert tile.things.shape == (64, 96)
    assert tile.things.max() <= len(tile.train_ids) == len(tile.scores)
    assert min_stuff_area(network, (100, 200)) == pytest.approx(
        network.fusion.settings.stuff_area_fraction * 20_000
    )


@pytest.mark.parametrize(
    "network",
    [tiny_maskformer(), tiny_maskformer(task="semantic"), tiny_per_pixel(queries=False)],
    ids=["queries, panoptic", "queries, semantic", "pixels"],
)
def test_a_tile_of_other_networks_has_the_stuff_of_its_map(network):
    image, _ = scene(64, 96)
    predictor = Predictor(network, shortest_side_pixels=64)
    tile = label_tile(predictor, image)
    (prediction,) = predictor.predict([image])
    classes = prediction.require_panoptic().semantic_map().numpy()
    expected = np.minimum(classes, SPACE.num_stuff)
    assert np.mean(tile.stuff_scores.argmax(0) == expected) > 0.99
    is_thing = (classes >= SPACE.num_stuff) & (classes < SPACE.num_classes)
    assert np.array_equal(tile.things > 0, is_thing)
    assert min_stuff_area(network, (64, 96)) == 0
