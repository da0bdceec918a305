"""Networks to label images with, wherever they come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from seamless_pr.build import predictor as own
from seamless_pr.inference.predictor import Predictor
from seamless_pr.integrations.transformers import PREFIX, load_transformers_predictor
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.views import View


def load_predictor(
    weights: str | Path,
    device: torch.device | str | None = None,
    *,
    label_space: LabelSpace | None = None,
    overrides: Sequence[str] = (),
    batch_size: int = 1,
    amp: str = "none",
    views: Sequence[View] = (),
) -> Predictor:
    """A network out of a weights file of this package, or of Hugging Face.

    Args:
        weights: as in `seamless_pr.build.predictor.load_predictor`; or `hf:` and the folder of a
            saved network or the name of a repository, see `load_transformers_predictor`.
        device, label_space, overrides, batch_size, amp, views: as in those.
    """
    source, load = str(weights), load_transformers_predictor
    if source.startswith(PREFIX):
        return load(
            source.removeprefix(PREFIX),
            device,
            label_space=label_space,
            overrides=overrides,
            batch_size=batch_size,
            amp=amp,
            views=views,
        )
    return own.load_predictor(
        weights,
        device,
        label_space=label_space,
        overrides=overrides,
        batch_size=batch_size,
        amp=amp,
        views=views,
    )
