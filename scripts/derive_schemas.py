"""Write the schemas of the teleport methods from their signatures in ``teleport``.

    python scripts/derive_schemas.py          # write experiments/configuration/teleport_config.py
    python scripts/derive_schemas.py --check  # exit with 1 if the file is not what the signatures say

The command line checks its keys before torch is loaded, so it reads a file and not the signatures themselves. A test
compares both. Each parameter of a method is a key with the library's default. A method whose ``__call__`` takes
``constraint`` has the key ``constraint_batches`` besides, and of ``held_out`` the key ``held_out_batches``.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
import types
import typing
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "experiments" / "configuration" / "teleport_config.py"

METHODS = {
    "nullspace": "NullSpace",
    "random": "RandomNullSpace",
    "levelset": "LevelSet",
    "rescaling": "Rescaling",
    "balance": "Balance",
    "symmetry": "Symmetry",
    "orbit": "Orbit",
    "auto": "Auto",
    "change_of_basis": "ChangeOfBasis",
    "pseudo_teleport": "PseudoTeleport",
}
"""Name in a configuration -> class of ``teleport``; ``experiments/run/methods.py`` builds them."""

NOT_PLAIN = {("Orbit", "action"): "action: str = MISSING  # the name of a test function", ("Orbit", "shape"): None}
NOT_PLAIN |= {("Auto", name): None for name in ("optimizer", "total_steps", "event_gradients", "method", "train_step")}
NOT_PLAIN |= {(method, "memory"): None for method in ("NullSpace", "RandomNullSpace", "LevelSet")}  # bytes or text
# Runs have factors alone, which an optimizer's state can follow; norms are folded for rotations.
NOT_PLAIN |= {("ChangeOfBasis", name): None for name in ("group", "fold_norms")} | {("Rescaling", "group"): None}
"""Parameters that no YAML value can express: the key in their place, or ``None`` for no key."""

HEAD = '''\
"""The keys of each teleport method, typed. Written by ``scripts/derive_schemas.py``: change the signatures, not this.

Importing this file is cheap: no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.configuration.schedule_config import TeleportConfig
'''


def text() -> str:
    """The file as the signatures say."""
    import teleport

    parts, kinds = [HEAD], ['    "none": TeleportConfig,']
    for kind, name in METHODS.items():
        method = getattr(teleport, name)
        lines = [f'"""The parameters of ``teleport.{name}``."""', "", *_keys(name, method)]
        parts.append("\n".join([f"@dataclass\nclass {name}Config(TeleportConfig):", *_indented(lines)]) + "\n")
        kinds.append(f'    "{kind}": {name}Config,')
    table = "\n".join(["KINDS: dict[str, type[TeleportConfig]] = {", *kinds, "}"])
    note = '"""What a YAML file\'s ``/schema/teleport@_here_`` names -> the dataclass that checks it."""'
    return "\n\n".join([*parts, f"{table}\n{note}\n"])


def _keys(name: str, method: type) -> list[str]:
    """The key of each parameter of ``method``."""
    dataclass = dataclasses.is_dataclass(method)  # its settings may be inherited, from a module with other names
    hints = typing.get_type_hints(method if dataclass else method.__init__)
    keys = []
    for parameter in list(inspect.signature(method).parameters.values()):
        if (name, parameter.name) in NOT_PLAIN:
            keys.append(NOT_PLAIN[name, parameter.name])
            continue
        kind, choices = plain(hints[parameter.name])
        default = parameter.default
        value = "MISSING" if default is inspect.Parameter.empty else f'"{default}"' if kind == "str" else repr(default)
        remark = f"  # {' | '.join(choices)}" if choices else ""
        keys.append(f"{parameter.name}: {kind} = {value}{remark}")
    taken = inspect.signature(method.__call__).parameters
    if "constraint" in taken:
        keys.append("constraint_batches: int = 0  # > 0: the constraint is taken on that many batches of its own")
    if "held_out" in taken:
        keys.append("held_out_batches: int = 0  # > 0: of path=least_drift, the batches that it measures drift on")
    return [key for key in keys if key is not None]


def plain(hint: typing.Any) -> tuple[str, list[str]]:
    """The type of a YAML value for a parameter of type ``hint``, and its choices if it has some.

    Raises:
        TypeError: no YAML value can express it; ``NOT_PLAIN`` must say what to do.
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = typing.get_args(hint)
        if str in parts:  # a name, or an object of the library
            return "str", []
        (part,) = (part for part in parts if part is not type(None))
        kind, choices = plain(part)
        return f"{kind} | None", choices
    if typing.get_origin(hint) is typing.Literal:
        return "str", list(typing.get_args(hint))
    if hint in (bool, int, float, str):
        return hint.__name__, []
    raise TypeError(f"a configuration cannot express {hint}")


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]


def main(arguments: list[str]) -> int:
    """Write or check the file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args(arguments).check:
        FILE.write_text(text())
        return 0
    if FILE.read_text() == text():
        return 0
    print(f"{FILE.name} is not what the signatures say; run python scripts/derive_schemas.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
