"""Parameter groups and learning rates of the published MaskFormer recipes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from seamless_pr.structures.query_settings import QueryFusionSettings
from seamless_pr.structures.training_settings import AdamWSettings, PolySettings
from seamless_pr.training.optimizer import make_optimizer
from seamless_pr.training.schedule import lr_factor, set_lr
from tests.support.maskformer_golden import load_arrays
from tests.support.maskformer_networks import maskformer, numbered_space

RESNET = AdamWSettings(
    lr=1e-4, weight_decay=1e-4, lr_multipliers={"trunk.backbone": 0.1}, clip_grad_norm=0.01
)
SWIN = AdamWSettings(lr=6e-5, weight_decay=0.01, clip_grad_norm=0.01)
# (backbone, classes, encoder) -> (rate, decay) -> (tensors, numbers).
PUBLISHED = {
    ("r50", 150, False): {
        (1e-5, 1e-4): (53, 23_454_912),
        (1e-4, 1e-4): (91, 17_760_919),
        (1e-4, 0.0): (53, 38_912),
    },
    ("r101c", 150, False): {
        (1e-5, 1e-4): (106, 42_518_208),
        (1e-4, 1e-4): (91, 17_760_919),
        (1e-4, 0.0): (53, 38_912),
    },
    ("r50", 133, True): {
        (1e-5, 1e-4): (53, 23_454_912),
        (1e-4, 1e-4): (139, 21_512_070),
        (1e-4, 0.0): (77, 45_056),
    },
    ("swin_tiny", 150, False): {
        (6e-5, 0.01): (192, 41_668_663),
        (6e-5, 0.0): (129, 88_346),
    },
    ("swin_large", 150, False): {
        (6e-5, 0.01): (288, 211_149_271),
        (6e-5, 0.0): (189, 426_356),
    },
}


@pytest.mark.parametrize("recipe", PUBLISHED, ids=str)
def test_rates_and_decays_fall_on_the_published_numbers_of_parameters(recipe):
    backbone, num_classes, encoder = recipe
    with torch.device("meta"):
        network = maskformer(
            backbone, numbered_space(num_classes), QueryFusionSettings(), encoder=encoder
        )
    settings = SWIN if backbone.startswith("swin") else RESNET
    optimizer = make_optimizer(network, settings)
    set_lr(optimizer, settings.lr)
    tensors: Counter = Counter()
    numbers: Counter = Counter()
    for group in optimizer.param_groups:
        key = (pytest.approx(group["lr"]), group["weight_decay"])
        key = next(known for known in PUBLISHED[recipe] if known == key)
        tensors[key] += len(group["params"])
        numbers[key] += sum(parameter.numel() for parameter in group["params"])
    assert {key: (tensors[key], numbers[key]) for key in tensors} == PUBLISHED[recipe]
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert optimizer.defaults["eps"] == 1e-8


@pytest.mark.parametrize(
    ("key", "warmup"), [("resnet", (0, 1.0)), ("swin", (1500, 1e-6))], ids=["resnet", "swin"]
)
def test_rates_over_160k_steps_are_those_of_the_original(key, warmup):
    arrays = load_arrays("ops")
    settings = PolySettings(warmup_steps=warmup[0], warmup_factor=warmup[1], power=0.9)
    for step, expected in zip(
        arrays["poly_iterations"].tolist(), arrays[f"poly_160k_{key}"].tolist(), strict=True
    ):
        assert lr_factor(step, 160_000, settings) == pytest.approx(expected, rel=1e-9)
