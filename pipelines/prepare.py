"""Brings a dataset to the COCO panoptic format; the stage is seamless_pr.pipelines.prepare."""

import sys
from pathlib import Path

# Run from a clone, from any folder: the package beside this script needs no installation. Copied
# alone, as `ray submit` does, the script takes the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seamless_pr.pipelines.prepare import main

if __name__ == "__main__":
    sys.exit(main())
