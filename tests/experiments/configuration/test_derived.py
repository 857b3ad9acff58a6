"""The schemas of teleport methods are those of the library's signatures."""

from __future__ import annotations

import inspect
import runpy
from dataclasses import fields
from pathlib import Path
from typing import Literal

import pytest

import teleport
from experiments.configuration.config import TeleportConfig
from experiments.configuration.teleport_config import KINDS

DERIVE = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "derive_schemas.py"))
METHODS = DERIVE["METHODS"]


def test_the_file_is_what_the_signatures_say():
    assert DERIVE["FILE"].read_text() == DERIVE["text"](), "run python scripts/derive_schemas.py"


@pytest.mark.parametrize("kind", METHODS)
def test_every_parameter_is_a_key_with_the_default_of_the_library(kind):
    """Read off a signature here, and not through the script."""
    keys = {field.name: field for field in fields(KINDS[kind])}
    of_the_loop = {field.name for field in fields(TeleportConfig)} | {"constraint_batches", "held_out_batches"}
    parameters = inspect.signature(getattr(teleport, METHODS[kind])).parameters
    budget = {"optimizer", "total_steps", "event_gradients", "method", "train_step"}  # of the training
    groups = {"change_of_basis": {"group", "fold_norms"}, "rescaling": {"group"}}
    left_out = {"action", "shape", "memory"} | (groups | {"auto": budget}).get(kind, set())
    own = {name: parameter for name, parameter in parameters.items() if name not in left_out}
    assert set(keys) - of_the_loop - {"action"} == set(own)
    assert {name: keys[name].default for name in own} == {name: each.default for name, each in own.items()}


def test_all_methods_have_a_schema():
    assert set(KINDS) == {"none", *METHODS}


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (float | None, ("float | None", [])),
        (Literal["cap", "fixed"], ("str", ["cap", "fixed"])),
        (Literal["exact", "first"] | None, ("str | None", ["exact", "first"])),
        (str | teleport.TeleportObjective, ("str", [])),
        (int, ("int", [])),
    ],
)
def test_types_of_parameters_become_types_of_yaml_values(hint, expected):
    assert DERIVE["plain"](hint) == expected


def test_a_parameter_that_yaml_cannot_express_is_refused():
    with pytest.raises(TypeError, match="cannot express"):
        DERIVE["plain"](tuple[int, ...])
