from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import ray

from seamless_pr.pipelines import ray_serving, serve
from seamless_pr.serving.limits import MIB, ServingLimits
from tests.support.tiny_checkpoint import write_tiny_checkpoint

# In the config of somebody's weights.
SIDES = ["data.shortest_side_pixels=20000", "data.longest_side_pixels=40000"]


def test_a_server_listens_to_this_machine_and_reads_no_uris_unless_told() -> None:
    options = serve.STAGE.parser().parse_args(["--weights", "W"])
    assert options.host == "127.0.0.1"
    arguments = serve.arguments(options, "", on_gpu=False)
    limits = ServingLimits(**{**arguments["limits"], "uri_prefixes": ()})
    assert limits == ServingLimits()
    assert arguments["limits"]["uri_prefixes"] == arguments["allow_origins"] == []
    assert arguments["token"] == ""


def test_options_reach_the_replicas() -> None:
    words = ["--weights", "W", "--replicas", "3", "--batch-size", "8", "--amp", "bf16"]
    words += ["--max-mib", "2", "--timeout", "9", "--allow-uris", "s3://b/", "--cpus-per-replica"]
    options = serve.STAGE.parser().parse_args([*words, "2", "model.fusion.score_threshold=0.4"])
    arguments = serve.arguments(options, "sesame", on_gpu=True)
    assert arguments["network"] == {
        "weights": "W",
        "device": "cuda",
        "overrides": ["model.fusion.score_threshold=0.4"],
        "batch_size": 8,
        "amp": "bf16",
    }
    actor = {"num_cpus": 2, "num_gpus": 1}
    assert arguments["deployment"] == {"num_replicas": 3, "ray_actor_options": actor}
    limits = arguments["limits"]
    assert (limits["max_bytes"], limits["seconds"]) == (2 * MIB, 9)
    assert limits["uri_prefixes"] == ["s3://b/"]
    assert arguments["token"] == "sesame"


def test_tiles_reach_the_replicas_and_overlap_by_a_quarter() -> None:
    options = serve.STAGE.parser().parse_args(["--weights", "W", "--tile", "64"])
    serve.check(serve.STAGE.parser(), options)
    network = serve.arguments(options, "", on_gpu=False)["network"]
    assert (network["tile"], network["overlap"]) == (64, 16)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--replicas", "0"], "must be at least 1"),
        (["--port", "0"], "--port must be 1 to 65535"),
        (["--overlap", "8"], "give --tile, too"),
        (["--tile", "8", "--overlap", "8"], "cannot overlap by 8"),
        (["--max-waiting", "0"], "max_waiting must be positive"),
        (["--max-mib", "inf"], "--max-mib: must be a number; got inf"),
        (["--timeout", "nan"], "--timeout: must be a number; got nan"),
        (["--allow-uris", "file:///data/"], "may not name files of this machine"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_starts(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        serve.main(["--weights", "W", *words])
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


def test_wrong_weights_and_tokens_are_told_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.main(["--weights", str(tmp_path / "none.safetensors")]) == 1
    assert "none.safetensors" in capsys.readouterr().err
    weights = write_tiny_checkpoint(tmp_path / "w.safetensors")
    (tmp_path / "token").write_text("abc\n")
    words = ["--weights", str(weights), "--token-file", str(tmp_path / "token")]
    assert serve.main(words) == 1
    assert "must be a token of 8 letters or more" in capsys.readouterr().err
    (tmp_path / "token").write_bytes(b"\xffecret \xe4 word\n")
    assert serve.main(words) == 1
    assert "token is no text in UTF-8 (line 1, byte 0)" in capsys.readouterr().err


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    monkeypatch.delattr(ray, "serve", raising=False)
    assert serve.main(["--weights", "W"]) == 1
    assert 'pip install "seamless_pr[serve]"' in capsys.readouterr().err


def test_a_server_that_does_not_start_says_so_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Deploying application seamless_pr failed: a replica died.")

    server = ModuleType("ray.serve")
    for name, function in {"run": fail, "start": dict, "delete": repr}.items():
        monkeypatch.setattr(server, name, function, raising=False)
    monkeypatch.setitem(sys.modules, "ray.serve", server)
    monkeypatch.setattr(ray, "serve", server, raising=False)
    monkeypatch.setattr(ray_serving, "application", lambda arguments: arguments)
    monkeypatch.setattr(serve, "ray_cluster", lambda **_: nullcontext(False))
    weights = write_tiny_checkpoint(tmp_path / "w.safetensors")
    assert serve.main(["--weights", str(weights)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: {weights} cannot be served: Deploying application")
    assert serve.main(["--weights", str(weights), *SIDES]) == 1
    assert f"{weights} cannot be served: an image of 16 x 32" in capsys.readouterr().err
