"""Cases of texts: configs, overrides, descriptions and lists."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml

from seamless_pr.build.configs import load_config
from seamless_pr.config.words import parse_yaml
from seamless_pr.pipelines import predict, prepare, train, wanted_predictor
from seamless_pr.training.trainer import Trainer
from tests.robustness.json_kinds import is_json
from tests.robustness.map_kinds import tiny_predictor
from tests.robustness.mutators import HOSTILE, damage_json, damage_text
from tests.robustness.sandbox import RIGHT, Sandbox, Verdict, run_stage
from tests.robustness.structure_mutators import respell_yaml
from tests.support.panoptic_files import write_png
from tests.support.tiny_run import write_tiny_run

YAML_WORDS = (
    *(str(value)[:400] for value in HOSTILE if not isinstance(value, str) or "\0" not in value),
    "&a [*a, *a]", "*a", "!!python/object/apply:os.system ['true']", "{a: b, a: c}", "? x", "- -",
    "model: {kind: per_pixel}", "<<: {a: 1}", "0x7f", "1_000", "12:30", "2001-01-01", "~", "|", ">",
    "'", '"', "[", "{", "optimizer.lr=0.1", "???", "${data.train}", "key: value", "kind: nothing",
)  # fmt: skip


class Configs:
    """The config of a training, up to its first step."""

    name = "configs"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.path = write_tiny_run(sandbox.inputs)

    def case(self, random: Random) -> Verdict:
        original = self.path.read_bytes()
        if random.random() < 0.5:
            values = json.dumps(yaml.safe_load(original)).encode()
            data = damage_json(values, random, share_of_bytes=0)
            if is_json(data) and random.random() < 0.8:
                data = yaml.safe_dump(json.loads(data), allow_unicode=True).encode(
                    errors="surrogatepass"
                )
        elif random.random() < 0.5:
            data = respell_yaml(original, random)
        else:
            data = damage_text(original, random, YAML_WORDS)
        self.path.write_bytes(data)
        try:
            return _build(self.sandbox, self.path, (), _is_yaml(data))
        finally:
            self.path.write_bytes(original)


class Overrides:
    """Words of the command line that change a config."""

    name = "overrides"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.path = write_tiny_run(sandbox.inputs)
        self.keys = [*_keys(yaml.safe_load(self.path.read_text()))]

    def case(self, random: Random) -> Verdict:
        words = []
        for _ in range(random.randint(1, 2)):
            key = random.choice(self.keys)
            value = random.choice(YAML_WORDS).replace("\n", " ")
            kind = random.random()
            if kind < 0.1:
                key = key.rpartition(".")[0] or key
            elif kind < 0.2:
                key = f"{key}.{random.choice(('x', '0', '', 'kind'))}"
            elif kind < 0.25:
                key = random.choice(("", "=", "..", "a", "+data", "~model", "\ud800"))
            words.append(f"{key}={value}" if random.random() < 0.95 else key)
        return _build(self.sandbox, self.path, words, all("=" in word for word in words))


def _build(sandbox: Sandbox, path: Path, words: Sequence[str], passed_header: bool) -> Verdict:
    """Everything of a training but its steps; a sound config must be stored as it was read."""
    sandbox.watch()
    arguments = ["--config", path, "--output", sandbox.output, *words]
    with patch.object(Trainer, "run", lambda _: {}):
        run = run_stage(train.main, arguments)
    names = [path.name, *(word.partition("=")[0].rpartition(".")[2] for word in words), *words]
    # A key that stands in another file's place is named with its path in the config.
    verdict = sandbox.judge(run, [*names, "config", "data.", "model.", "memory"], passed_header)
    if verdict.outcome == RIGHT:
        stored = load_config(sandbox.output / "config.yaml")
        if stored != load_config(path, words):
            return Verdict("wrong", passed_header, "the stored config is another one")
    return verdict


def _keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _keys(value, f"{prefix}{key}.")
    return found


def _is_yaml(data: bytes) -> bool:
    try:
        return isinstance(parse_yaml(data.decode()), dict)
    except ValueError:
        return False


class Descriptions:
    """Descriptions of one's own data."""

    name = "descriptions"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.path = sandbox.inputs / "yard.yaml"
        values = np.array([[0, 1, 1, 201], [1, 203, 203, 2]], np.uint16)
        write_png(sandbox.inputs / "labels" / "a.png", values)
        write_png(sandbox.inputs / "images" / "a.png", np.full((2, 4, 3), 90, np.uint8))
        description = {
            "name": "yard", "object_divisor": 100, "void": [0], "label_suffix": "",
            "classes": [{"id": 1, "name": "floor", "thing": False},
                        {"id": 2, "name": "box", "thing": True, "color": [1, 2, 3]}],
            "splits": {"train": {"images": "images", "labels": "labels"}},
        }  # fmt: skip
        self.path.write_text(yaml.safe_dump(description))

    def case(self, random: Random) -> Verdict:
        original = self.path.read_bytes()
        if random.random() < 0.6:
            values = json.dumps(yaml.safe_load(original)).encode()
            data = damage_json(values, random, share_of_bytes=0.05)
        elif random.random() < 0.5:
            data = respell_yaml(original, random)
        else:
            data = damage_text(original, random, YAML_WORDS)
        self.path.write_bytes(data)
        try:
            self.sandbox.watch()
            arguments = ["custom", "--description", self.path, "--output", self.sandbox.output,
                         "--workers", 1]  # fmt: skip
            run = run_stage(prepare.main, arguments)
            # What a sound description says may not fit the files that it names.
            return self.sandbox.judge(run, [self.path.name, "labels", "images"], _is_yaml(data))
        finally:
            self.path.write_bytes(original)


class Lists:
    """Text files with one image a line."""

    name = "lists"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.predictor = tiny_predictor(sandbox)
        self.path = sandbox.inputs / "list.txt"
        for name in ("a.png", "b/c.png"):
            write_png(sandbox.inputs / name, np.zeros((20, 30, 3), np.uint8))
        self.lines = [b"# photographs", b"a.png", b"b/c.png"]

    def case(self, random: Random) -> Verdict:
        lines = [*self.lines]
        strange = (
            b"missing.png", b"/dev/zero", b"/dev/stdin", b"../../../../escape.png", b"b", b".",
            b"x" * 300 + b".png", b"x/" * 3000 + b".png", b"\xff.png", "größe.png".encode(),
            b"http://127.0.0.1:1/x.png", b"nosuch://x/y.png", b"://", b"a.png ", b"a.png\0",
            b"A.PNG", b"./a.png", b"b/../a.png", b"~/x.png", b"$HOME/x.png", b"*.png", b"file:///x",
            b"\xed\xa0\x80.png", b"a.png#", b"list.txt", b"weights", b"file:///etc/passwd",
        )  # fmt: skip
        for _ in range(random.randint(1, 2)):
            lines.insert(random.randrange(len(lines) + 1), random.choice(strange))
        ending = random.choice((b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b"\x0c"))
        data = ending.join(lines)
        if random.random() < 0.15:
            data = data.decode(errors="replace").encode(
                random.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"))
            )
        self.path.write_bytes(data)
        self.sandbox.watch()
        arguments = ["--weights", "W", "--images", self.path, "--output", self.sandbox.output]
        with patch.object(wanted_predictor, "load_predictor", lambda *_, **__: self.predictor):
            run = run_stage(predict.main, arguments)
        names = ["list.txt", *(line.decode(errors="replace").strip() for line in lines)]
        # In UTF-7 they have other names.
        names += map(os.path.normpath, data.decode(errors="replace").splitlines())
        verdict = self.sandbox.judge(run, [name[:60] for name in names if name], True)
        # With its ending, if another line has the same name without it.
        results = self.sandbox.output.glob("panoptic/a*.png")
        if (verdict.outcome == RIGHT or run.code == 3) and not any(results):
            return Verdict("wrong", True, "the sound image has no result")
        return verdict
