"""Every published network has the published numbers of parameters and of named tensors."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.structures.query_settings import QueryFusionSettings
from tests.support.maskformer_golden import shapes_of
from tests.support.maskformer_networks import (
    fit_maskformer_weights,
    maskformer,
    numbered_space,
    per_pixel,
    reference_order,
)

SEMANTIC = QueryFusionSettings(task="semantic")
PANOPTIC = QueryFusionSettings(task="panoptic")

# (backbone, classes, encoder) -> parameters that train.
MASKFORMERS = {
    ("r50", 150, False): 41_254_743,
    ("r101", 150, False): 60_194_647,
    ("r101c", 150, False): 60_318_039,
    ("swin_tiny", 150, False): 41_757_009,
    ("swin_small", 150, False): 63_074_913,
    ("swin_base", 150, False): 101_829_391,
    ("swin_large", 150, False): 211_575_627,
    ("r101c", 19, False): 60_284_372,
    ("r50", 133, True): 45_012_038,
    ("r101", 133, True): 63_951_942,
    ("swin_large", 133, False): 211_571_258,
}
PER_PIXEL = {
    (150, False): 31_033_942,
    (150, True): 41_228_736,
    (171, True): 41_234_112,
}


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("published", MASKFORMERS, ids=str)
def test_a_maskformer_has_the_published_number_of_parameters(published):
    backbone, num_classes, encoder = published
    with torch.device("meta"):
        network = maskformer(backbone, numbered_space(num_classes), PANOPTIC, encoder=encoder)
    assert num_parameters(network) == MASKFORMERS[published]


@pytest.mark.parametrize("published", PER_PIXEL, ids=str)
def test_a_per_pixel_baseline_has_the_published_number_of_parameters(published):
    num_classes, queries = published
    with torch.device("meta"):
        network = per_pixel("r50", numbered_space(num_classes), queries=queries)
    assert num_parameters(network) == PER_PIXEL[published]


@pytest.mark.parametrize(
    ("listing", "make"),
    [
        ("r50_base_ade150", lambda space: maskformer("r50", space, SEMANTIC)),
        ("r50_enc6_coco133", lambda space: maskformer("r50", space, PANOPTIC, encoder=True)),
        ("swint_base_ade150", lambda space: maskformer("swin_tiny", space, SEMANTIC)),
        ("r50_ppb_ade150", lambda space: per_pixel("r50", space, queries=False)),
        ("r50_ppbplus_ade150", lambda space: per_pixel("r50", space, queries=True)),
    ],
)
def test_every_tensor_of_the_original_has_a_place_of_its_shape(listing, make):
    shapes = shapes_of(f"STATE_DICT_{listing}.txt")
    space = numbered_space(133 if "coco133" in listing else 150, range(80))
    with torch.device("meta"):
        network = make(space)
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    _, report = fit_maskformer_weights(tensors, network.state_dict(), reference_order(space))
    assert report.faults() == []
    counted = [name for name in shapes if not name.endswith(("_index", "empty_weight"))]
    assert len(report.mapped) == len(counted) == len(network.state_dict())
