"""Whole networks on a GPU, in single precision: golden maps, and those of the processor.

`tools/measure/gpu.py` runs these where there is a GPU. None has run them yet: limits of what a GPU
rounds in another way are those that another arithmetic of the processor needs.
"""

from __future__ import annotations

import copy

import pytest
import torch

from tests.models.networks.test_fixed_shapes import (
    FEW,
    SMALL,
    VARIANTS,
    images,
    network,
    undecided,
)
from tests.support.golden import load_golden
from tests.support.golden_network import (
    INFERENCE_CASES,
    GoldenCase,
    golden_images,
    golden_network,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# As tests/fidelity/test_seamseg_inference.py allows.
GOLDEN_PIXELS = 186
MOVED_SHARE = 0.002


@pytest.fixture(autouse=True)
def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("case", INFERENCE_CASES, ids=lambda case: case.name)
def test_every_pixel_gets_the_class_of_the_reference(case: GoldenCase) -> None:
    golden, batch = load_golden(f"seamseg/{case.name}"), golden_images(case)
    net = copy.deepcopy(golden_network(case)).cuda()
    found = net.predict(batch.to("cuda"), batch.image_sizes)
    for index, prediction in enumerate(found):
        expected = golden[f"pan_cat_{index}"].long()[golden[f"pan_msk_{index}"].long()]
        different = int((prediction.require_panoptic().semantic_map() != expected).sum())
        assert different <= GOLDEN_PIXELS


@pytest.mark.parametrize("variant", VARIANTS)
def test_maps_are_those_of_the_processor(variant: str) -> None:
    net = undecided(network(SMALL, FEW + VARIANTS[variant]))
    sizes = [(96, 160), (120, 190)]
    expected = net.predict(images(), sizes)
    found = copy.deepcopy(net).cuda().predict(images().to("cuda"), sizes)
    for ours, theirs in zip(found, expected, strict=True):
        # Sums in another order decide a few of the pixels that random heads leave open.
        moved_pixels = ours.panoptic.id_map != theirs.panoptic.id_map
        assert float(moved_pixels.double().mean()) < MOVED_SHARE
        names = [(s.segment_id, s.train_id, s.is_crowd) for s in theirs.panoptic.segments]
        assert [(s.segment_id, s.train_id, s.is_crowd) for s in ours.panoptic.segments] == names
        best = theirs.instances.best_first()
        torch.testing.assert_close(ours.instances.scores.cpu(), best.scores, rtol=1e-3, atol=1e-4)
