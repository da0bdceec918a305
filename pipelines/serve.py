"""Serves a network over HTTP; the stage is seamless_pr.pipelines.serve."""

import sys
from pathlib import Path

# Run from a clone, from any folder: the package beside this script needs no installation. Copied
# alone, as `ray submit` does, the script takes the installed package.
CLONE = Path(__file__).resolve().parent.parent
if (CLONE / "seamless_pr/pipelines").is_dir():
    sys.path.insert(0, str(CLONE))

if __name__ == "__main__":
    from seamless_pr.pipelines.serve import main

    sys.exit(main())
