"""The public names of the library."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import teleport


def test_dir_is_the_api():
    assert dir(teleport) == sorted(teleport.__all__)
    assert all(hasattr(teleport, name) for name in dir(teleport))
    assert {"Callback", "LossFn", "Progress", "Stopped", "TeleportReport", "Teleporter", "preview"} <= set(
        dir(teleport)
    )
    assert not [name for name in teleport.__all__ if name.startswith("_") and name != "__version__"]


def test_the_version_is_that_of_the_package():
    try:
        assert teleport.__version__ == importlib.metadata.version("teleport-suite")
    except importlib.metadata.PackageNotFoundError:
        assert teleport.__version__ == "0+unknown"


def test_the_library_is_typed():
    assert Path(teleport.__file__).with_name("py.typed").exists()
