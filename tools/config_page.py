"""Writes docs/config.md, the page of all keys of a config, from the settings classes.

python tools/config_page.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seamless_pr.build.configs import known_kinds
from seamless_pr.config.pages import config_page
from seamless_pr.config.schema import Config
from seamless_pr.files import write_whole

PAGE = Path(__file__).resolve().parents[1] / "docs/config.md"
INTRODUCTION = """# Config

Every key of a run's YAML, written by `python tools/config_page.py`.

A run is one file. `base:` names files that it is laid over, one or a list, relative to its own
folder; later ones win, and they have no base themselves: fragments for networks, datasets and
schedules lie in `configs/`. A group that comes in kinds has a `kind` key, which decides its other
keys; a change of kind drops what earlier files say about the group. `null` takes a group away.
Mappings of names (losses, options) are replaced whole by a later file. On the command line
`key=value` comes last, as in `optimizer.lr=0.02`.

The schema decides the type of a value, not its spelling: `images: 0012` is a text, `lr: 1e-4` a
number. Quotes mean text. Nothing is filled in for `${...}`. A key that does not exist, or belongs
to another kind, is an error that names the file, the key and the nearest valid one.

A run folder holds the resolved config, `config.yaml`. Files of version 0.1 are converted by
`python tools/convert_weights.py update OLD NEW`.

## Every run

"""


def page() -> str:
    """The whole text of docs/config.md."""
    return INTRODUCTION + config_page(Config, known_kinds())


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    write_whole(PAGE, page().encode())
    print(f"{PAGE} written")


if __name__ == "__main__":
    main()
