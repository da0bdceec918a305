"""Every key of a config is read by somebody and explained to everybody."""

from __future__ import annotations

import re
from pathlib import Path

import seamless_pr
from seamless_pr.build.configs import known_kinds
from seamless_pr.config.keys import keys_of
from seamless_pr.config.pages import settings_classes, summary_and_sentences
from seamless_pr.config.schema import Config

LIBRARY = Path(seamless_pr.__file__).parent


def test_every_value_of_a_config_is_read_outside_the_config() -> None:
    readers = [
        path
        for path in LIBRARY.rglob("*.py")
        if path.parent.name != "config" and not path.name.endswith("settings.py")
    ]
    source = "\n".join(path.read_text(encoding="utf-8") for path in readers)
    attributes = set(re.findall(r"\.([a-z0-9_]+)\b(?!\()", source))
    keys = {name for cls in settings_classes(Config, known_kinds()) for name in keys_of(cls)}
    assert len(keys) > 80
    assert sorted(keys - attributes) == []


def test_every_group_and_value_says_what_it_is() -> None:
    for settings in settings_classes(Config, known_kinds()):
        summary, sentences = summary_and_sentences(settings)
        assert summary.endswith("."), settings
        missing = [n for n in keys_of(settings) if n != "kind" and n not in sentences]
        assert missing == [], settings
        assert all(sentence.endswith(".") for sentence in sentences.values()), settings


def test_no_sentence_says_which_kinds_a_key_is_for() -> None:
    for settings in settings_classes(Config, known_kinds()):
        _, sentences = summary_and_sentences(settings)
        assert not [text for text in sentences.values() if "only for" in text], settings
