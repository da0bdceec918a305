"""What settings ask for is known before memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seamless_pr.build import network_size
from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.network_size import refuse_large
from seamless_pr.build.networks import build_network, outline_network
from seamless_pr.build.runs import build_trainer
from tests.support.model_keys import LABEL_SPACE
from tests.support.small_config import smallest
from tests.support.tiny_checkpoint import tiny_config
from tests.support.tiny_run import tiny_run_values, write_tiny_data

BACKBONE = {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}}
TWO_BRANCH: dict[str, Any] = {"kind": "two_branch", "backbone": BACKBONE, "neck": {"channels": 8}}
POINT_REND = {
    **TWO_BRANCH,
    "instances": {"kind": "point_rend"},
    "semantics": {"kind": "mini_dl", "points": {}},
}
IMPLICIT = {**TWO_BRANCH, "instances": {"kind": "implicit_point_rend"}}
HTC = {**TWO_BRANCH, "instances": {"kind": "htc", "context": True}}
SOLO = {**TWO_BRANCH, "instances": {"kind": "solov2"}}
QUERIES: dict[str, Any] = {"kind": "maskformer", "backbone": BACKBONE}
SWIN = {"kind": "maskformer", "backbone": {"kind": "swin"}}


def network(model: dict[str, Any], *overrides: str) -> nn.Module:
    words = [f"model.{word}" for word in overrides]
    config = config_from_dict(smallest(model=model, loss_weights={}), "test", words)
    return build_network(config.model, LABEL_SPACE)


@pytest.mark.parametrize(
    ("model", "override"),
    [
        (POINT_REND, "backbone.options.channels=[8, 8, 16, 9000000]"),
        (POINT_REND, "backbone.options={stem_type: deep, stem_width: 20000}"),
        (POINT_REND, "neck.channels=100000000"),
        (POINT_REND, "instances.rpn.hidden_channels=9000000"),
        (POINT_REND, "instances.box.hidden_channels=900000"),
        (POINT_REND, "instances.mask.hidden_channels=900000"),
        (POINT_REND, "instances.mask.conv_channels=90000000"),
        (POINT_REND, "instances.points.hidden_channels=900000"),
        (POINT_REND, "semantics.hidden_channels=900000"),
        (POINT_REND, "semantics.points.hidden_channels=900000"),
        (POINT_REND, "semantics.points.pixel_window=9001"),
        (IMPLICIT, "instances.points.hidden_channels=9000"),
        (IMPLICIT, "instances.mask.hidden_channels=900000"),
        (HTC, "instances.mask.hidden_channels=900000"),
        (HTC, "instances.context_classes=2000000000"),
        (SOLO, "instances.hidden_channels=99968"),
        (SOLO, "instances.feature_channels=99968"),
        (SOLO, "instances.kernel_channels=9999968"),
        (QUERIES, "queries.num_queries=9000000"),
        (QUERIES, "queries.channels=80000"),
        (QUERIES, "queries.hidden_channels=9000000"),
        (QUERIES, "pixel_decoder.channels=80000"),
        (QUERIES, "pixel_decoder.mask_channels=8000000"),
        (SWIN, "backbone.channels=30720"),
        # Its bias of relative positions stands in the weights; the table of their places does not.
        (SWIN, "backbone.window_size=100"),
        (SWIN, "backbone.window_size=9000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_that_would_fill_the_memory_is_not_built(
    model: dict[str, Any], override: str
) -> None:
    with pytest.raises(ValueError, match=r"'model' would take \S+ GB.*; lessen its") as raised:
        network(model, override)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        (HTC, ["instances.stage_ious=[" + "0.5," * 9 + "]",
               "instances.stage_delta_weights=[" + "[1,1,1,1]," * 9 + "]",
               "instances.box={class_agnostic: true, num_layers: 90}"]),
        (POINT_REND, ["backbone.options.layers=[90,90,90,90]"]),
    ],
    ids=["stages by layers", "blocks"],
)  # fmt: skip
def test_stages_by_layers_end_at_the_tensors_that_a_network_may_have(
    model: dict[str, Any], overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_size, "MAX_TENSORS", 500)
    with pytest.raises(ValueError, match=r"'model' cannot be built: .*more than 500 tensors"):
        network(model, *overrides)
    # The next one is counted anew.
    assert sum(1 for _ in network(POINT_REND).parameters()) < 500


@pytest.mark.parametrize(
    ("model", "override", "message"),
    [
        (POINT_REND, "instances.roi.num_levels=6", r"roi\.num_levels is 6, but the neck makes 5"),
        (POINT_REND, "instances.points.num_levels=6", r"points\.num_levels is 6, but"),
        (IMPLICIT, "instances.points.num_levels=6", r"points\.num_levels is 6, but"),
        (HTC, "instances.roi.num_levels=6", r"roi\.num_levels is 6, but the neck makes 5 levels"),
        (SOLO, "neck.num_extra_levels=2", r"a number for each of the 6 levels .* got 5"),
    ],
)
def test_levels_that_heads_read_are_made(
    model: dict[str, Any], override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"'model' cannot be built: .*{message}"):
        network(model, override)


def test_the_message_says_how_much_and_the_largest_tensor() -> None:
    with torch.device("meta"):
        outline = nn.Sequential(nn.Linear(1000, 50_000), nn.Linear(50_000, 20_000, bias=False))
        outline.register_buffer("table", torch.zeros(10**8, dtype=torch.int64), persistent=False)
    with pytest.raises(ValueError, match=r"take 5 GB of memory, 1\.weight alone 4, .* take 3\.5;"):
        refuse_large(outline, 3.5)
    refuse_large(outline, 5.1)


def test_an_outline_has_all_names_and_shapes_and_leaves_the_random_numbers_alone() -> None:
    model = tiny_config().model
    before = torch.random.get_rng_state()
    outline = outline_network(model, LABEL_SPACE)
    assert torch.equal(torch.random.get_rng_state(), before)
    state, built = outline.state_dict(), build_network(model, LABEL_SPACE).state_dict()
    assert [(name, t.shape) for name, t in state.items()] == [
        (name, t.shape) for name, t in built.items()
    ]
    assert {tensor.device.type for tensor in state.values()} == {"meta"}


def test_a_training_may_be_allowed_more_or_less(tmp_path: Path) -> None:
    write_tiny_data(tmp_path, num_train=1, num_val=1)
    values = tiny_run_values(tmp_path)
    values["training"]["max_network_gigabytes"] = 1e-4
    config = config_from_dict(values, "test")
    with pytest.raises(ValueError, match=r"may take 0\.0001; lessen .* training\.max_network_giga"):
        build_trainer(config, tmp_path / "run")
