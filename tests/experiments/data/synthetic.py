"""Full-length electricity and traffic files in the published format, of seeded daily and weekly waves with noise.

    python tests/experiments/data/synthetic.py DIR [electricity] [traffic]

writes DIR/<name>/<name>.txt.gz: gzipped lines of comma-separated values. They stand in for the published series where
those cannot be had; no result on them says anything about the real ones.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

from experiments.data.published import SERIES

FORMATS = {"electricity": (1000.0, "%d"), "traffic": (0.05, "%.4f")}  # a typical value, and how one is written


def write(root: Path, name: str, rows: int | None = None) -> Path:
    """Write the stand-in for ``name``, ``rows`` long (None: as the published series), and return its path."""
    published = SERIES[name]
    level, form = FORMATS[name]
    rng = np.random.default_rng(0)
    hours = np.arange(rows or published.rows)[:, None]
    shape = (1, published.columns)
    day = np.sin(2 * np.pi * (hours / 24 + rng.random(shape)))
    week = np.sin(2 * np.pi * (hours / 168 + rng.random(shape)))
    noise = rng.standard_normal((len(hours), published.columns))
    scale = level * rng.lognormal(size=shape)
    values = (scale * (1 + 0.5 * day + 0.2 * week + 0.1 * noise)).clip(min=0)
    path = root / name / published.file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    line = ",".join([form] * published.columns) + "\n"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(line % tuple(row) for row in values.tolist())
    return path


if __name__ == "__main__":
    if len(sys.argv) < 2 or set(sys.argv[2:]) - set(FORMATS):
        sys.exit(__doc__)
    for wanted in sys.argv[2:] or FORMATS:
        print(write(Path(sys.argv[1]), wanted))
