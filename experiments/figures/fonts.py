"""The fonts of pictures: those that come with matplotlib, whatever else is installed."""

from __future__ import annotations

import functools
from pathlib import Path

import matplotlib
from matplotlib import font_manager


@functools.cache
def use_bundled() -> None:
    """Let matplotlib find its own fonts alone, in this process.

    It otherwise looks a font up in a cache of the user's, which lists the fonts of the system, too, in no fixed order,
    and may be of another installation. Another copy of DejaVu Sans has other outlines, and the picture other bytes.
    """
    manager = font_manager.fontManager
    manager.ttflist = []
    for path in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        manager.addfont(path)
