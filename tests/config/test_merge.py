"""Groups in kinds: which keys a group has follows from its kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from seamless_pr.build import networks
from seamless_pr.build.configs import config_from_dict, load_config
from seamless_pr.build.networks import Kind
from seamless_pr.structures.kinds import Kinded
from tests.support.small_config import model, smallest


def refusal(values: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(ValueError) as error:
        config_from_dict(values, "test", overrides)
    return str(error.value)


def test_a_key_of_another_kind_is_named_with_its_kinds() -> None:
    message = refusal(smallest(model=model(semantics={"first_level": 1})))
    assert message == (
        "test: 'model.semantics.first_level' is a key of kind 'panoptic_fpn', not of 'mini_dl'"
    )
    message = refusal(smallest(), "model.instances.mask.norm_rois=sampled")
    assert message.endswith("a key of the kinds 'mask_rcnn' and 'htc', not of 'point_rend'")
    message = refusal(smallest(), "model.norm_act.kind=bias", "model.norm_act.eps=1")
    assert message.endswith(
        "'model.norm_act.eps' is a key of the kinds 'inplace_abn' and 'abn' and "
        "'inplace_abn_package' and 'batch_norm' and 'frozen_batch_norm' and 'fixed_batch_norm' and "
        "'group_norm', not of 'bias'"
    )
    message = refusal(smallest(schedule={"power": 2}))
    assert "'schedule.power' is a key of kind 'poly', not of 'multistep'" in message


def test_a_change_of_kind_drops_the_earlier_keys_of_the_group(tmp_path: Path) -> None:
    values = smallest(model=model(semantics={"hidden_channels": 7, "loss": "valid_mean"}))
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(values))
    changed = {"base": "base.yaml", "model": {"semantics": {"kind": "panoptic_fpn"}}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(changed))
    semantics = load_config(tmp_path / "a.yaml").model.semantics
    assert (semantics.kind, semantics.hidden_channels, semantics.loss, semantics.points) == (
        "panoptic_fpn",
        128,
        "hard_pixels",
        None,
    )
    same = {"base": "base.yaml", "model": {"semantics": {"kind": "mini_dl", "pooling_size": 3}}}
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(same))
    semantics = load_config(tmp_path / "b.yaml").model.semantics
    assert (semantics.hidden_channels, semantics.pooling_size) == (7, 3)


def test_a_kind_that_differs_from_the_default_drops_keys_given_without_a_kind() -> None:
    values = smallest(optimizer={"nesterov": False, "lr": 0.5})
    optimizer = config_from_dict(values, "test", ["optimizer.kind=adamw"]).optimizer
    assert (optimizer.kind, optimizer.lr) == ("adamw", 0.01)
    optimizer = config_from_dict(values, "test", ["optimizer.kind=sgd"]).optimizer
    assert (optimizer.nesterov, optimizer.lr) == (False, 0.5)


def test_null_takes_a_group_away_and_keys_bring_it_back() -> None:
    refined = smallest(model=model(semantics={"points": {"num_layers": 5}}))
    without = config_from_dict(refined, "test", ["model.semantics.points=null"])
    assert without.model.semantics.points is None
    back = config_from_dict(
        refined, "test", ["model.semantics.points=null", "model.semantics.points={}"]
    )
    assert back.model.semantics.points.num_layers == 3
    assert config_from_dict(refined, "test", ["model.neck=null", "model.neck.channels=8"])
    assert "are both null; give one" in refusal(
        smallest(), "model.instances=null", "model.semantics=null"
    )


def test_a_group_without_a_default_kind_must_say_its_kind_first() -> None:
    values = smallest(model={"kind": "two_branch", "semantics": {"kind": "mini_dl"}})
    message = refusal(values, "model.instances.box.pooling=1")
    assert message == (
        "override 'model.instances.box.pooling=1': 'model.instances.kind' must be given; one of "
        "'mask_rcnn', 'point_rend', 'implicit_point_rend', 'htc', 'solov2'"
    )


def test_the_kind_of_a_key_that_no_kind_has_gets_a_hint_from_its_group() -> None:
    message = refusal(smallest(model=model(semantics={"hidden_chanels": 3})))
    assert "did you mean 'model.semantics.hidden_channels'?" in message


def test_a_kind_that_is_registered_later_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class ToySettings(Kinded):
        has_neck = True
        things: str = "classes"
        width: int = 3

    monkeypatch.setitem(networks.KINDS["semantics"], "toy", Kind(ToySettings, object))
    values = smallest(model={"kind": "two_branch", "semantics": {"kind": "toy", "width": 4}})
    assert config_from_dict(values, "test").model.semantics.width == 4
    assert "'model.semantics.width' is a key of kind 'toy', not of 'mini_dl'" in refusal(
        smallest(model=model(semantics={"width": 4}))
    )
