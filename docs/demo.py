"""What `make demo` runs: `humanpose predict` on a photograph, and where the result lies.

Without a source it takes a photograph that ships inside scikit-image: the astronaut Eileen
Collins (NASA, public domain).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from humanpose.cli.main import main as humanpose


def photograph() -> str:
    """Path of the photograph, without importing scikit-image, which is slow."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        sys.exit("no SOURCE given and scikit-image is not installed: make demo SOURCE=photo.jpg")
    return str(Path(spec.origin).parent / "data" / "astronaut.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--output", default="humanpose-out")
    args = parser.parse_args()
    sources = args.sources or [photograph()]
    sys.argv = ["humanpose", "predict", *sources, "-o", args.output, "--force"]
    print(f"$ {' '.join(sys.argv)}", flush=True)
    try:
        humanpose()
    finally:
        for path in sorted(Path(args.output).iterdir()) if Path(args.output).is_dir() else []:
            print(f"  {path.resolve()}")
