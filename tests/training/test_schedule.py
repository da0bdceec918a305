from __future__ import annotations

import pytest

from seamless_pr.structures.training_settings import CosineSettings, MultistepSettings, PolySettings
from seamless_pr.training.schedule import lr_factor


@pytest.mark.parametrize(
    "step, factor",
    [
        (0, 1 / 3),
        (100, 2 / 3),
        (200, 1.0),
        (35999, 1.0),
        (36000, 0.1),
        (44000, 0.01),
        (47999, 0.01),
    ],
)
def test_multistep_follows_the_published_schedule(step: int, factor: float) -> None:
    settings = MultistepSettings(milestones=(36000, 44000))
    assert lr_factor(step, 48000, settings) == pytest.approx(factor)


def test_poly_and_cosine_fall_from_one_to_nearly_zero() -> None:
    for settings in (PolySettings(warmup_steps=0), CosineSettings(warmup_steps=0)):
        factors = [lr_factor(step, 100, settings) for step in range(100)]
        assert factors[0] == 1
        assert factors == sorted(factors, reverse=True)
        assert 0 < factors[-1] < 0.02
    assert lr_factor(50, 100, PolySettings(power=2.0, warmup_steps=0)) == 0.25
