"""Print a fingerprint of 22 short runs, to show that a change of the code keeps all numbers, bit for bit.

    python scripts/fingerprint.py > before.json    # in a checkout of the old code
    python scripts/fingerprint.py --against before.json

Run it from the root of a checkout. Every method and every model takes part, with one thread each. The transformer needs
the exchange rates, downloaded or under ``TELEPORT_DATA``; the others need no data. A fingerprint holds the
final losses and the SHA-256 of the parameters, of the losses per evaluation and of the losses and gradient norms of the
teleports. Fingerprints of different machines or versions of torch differ by rounding.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

COMMON = ["scale=smoke", "machine.threads=1", "machine.device=cpu", "machine.progress=false"]
DIGITS = ["data=digits", "teleport.epochs=[0,1]", "training.epochs=2", "data.train_samples=300"]
WIDE = [*DIGITS, "model=mlp", "model.widths=[96,96]"]
IMAGES = ["data=random", "data.shape=[3,32,32]", "data.train_samples=64", "data.test_samples=32", "data.batch_size=16"]
EARLY = ["teleport.epochs=[0]", "teleport.warmup_steps=0", "training.epochs=1"]
NETWORK = [*IMAGES, *EARLY, "model.width=0.125"]

RUNS: dict[str, list[str]] = {
    "none": [*WIDE, "teleport=none", "teleport.epochs=[]"],
    "null space": [*WIDE, "teleport=nullspace", "teleport.batches=2"],
    "null space, momentum": [*WIDE, "teleport=nullspace", "optimizer=momentum", "teleport.threshold=0.99"],
    "null space, constraint": [*WIDE, "teleport=nullspace", "teleport.constraint_batches=2", "optimizer=adam"],
    "null space as published": [*WIDE, "teleport=nullspace_paper", "optimizer=adagrad"],
    "random null space": [*WIDE, "teleport=random", "teleport.batches=2"],
    "level set": [*WIDE, "teleport=levelset", "teleport.steps=5"],
    "rescaling": [*WIDE, "teleport=rescaling", "teleport.cap=3"],
    "balancing": [*WIDE, "teleport=rescaling", "teleport.mode=balance", "teleport.optimizer_state=transported"],
    "symmetry 2022": [*WIDE, "teleport=symmetry_2022", "model.activation=leaky_relu"],
    "symmetry 2024": [*WIDE, "teleport=symmetry", "model.activation=leaky_relu"],
    "symmetry corrected": [*WIDE, "teleport=symmetry_corrected", "model.activation=leaky_relu"],
    "change of basis": [
        *WIDE,
        "teleport=change_of_basis",
        "teleport.optimizer_state=transported",
        "optimizer=momentum",
    ],
    "change of basis, teleported activations": [*WIDE, "teleport=change_of_basis_inter", "model.activation=tanh"],
    "pseudo-teleport": [*WIDE, "teleport=pseudo_teleport"],
    "orbit": ["experiment=symmetry/rosenbrock", "training.max_steps=30"],
    "cnn": [*IMAGES, *EARLY, "model=cnn", "teleport=nullspace", "teleport.steps=2"],
    "resnet": [*IMAGES, *EARLY, "model=resnet", "teleport=nullspace", "teleport.steps=2"],
    "transformer": ["data=exchange_rate", *EARLY, "model=transformer", "teleport=nullspace"],
    "vgg16": [*NETWORK, "model=vgg16", "teleport=change_of_basis"],
    "resnet18": [*NETWORK, "model=resnet18", "teleport=change_of_basis"],
    "densenet121": [*NETWORK, "model=densenet121", "teleport=change_of_basis"],
}


def fingerprint(overrides: list[str], runs: Path) -> dict[str, object]:
    """Make one run in a process of its own, and take its fingerprint; the last line of its error if it failed."""
    command = [sys.executable, "run.py", *COMMON, f"machine.runs={runs}", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [""])[-1]}
    (folder,) = (path.parent for path in runs.glob("*/summary.json"))
    summary = json.loads((folder / "summary.json").read_text())
    state = torch.load(folder / "model.pt", weights_only=True)
    parameters = b"".join(name.encode() + _bytes(value) for name, value in sorted(state.items()))
    curve = pd.read_csv(folder / "curve.csv").drop(columns="seconds")
    teleports = folder / "teleports.csv"
    moved = pd.read_csv(teleports)[["loss_before", "loss_after", "gradient_norm_before", "gradient_norm_after"]]
    return {
        "train_loss": summary["train_loss"],
        "test_loss": summary["test_loss"],
        "parameters": hashlib.sha256(parameters).hexdigest(),
        "curve": hashlib.sha256(curve.to_csv().encode()).hexdigest(),
        "teleports": hashlib.sha256(moved.to_csv().encode()).hexdigest(),
    }


def _bytes(value: object) -> bytes:
    if not isinstance(value, torch.Tensor):
        return repr(value).encode()
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def main() -> int:
    """Print all fingerprints as JSON; with ``--against`` print a line per run and return 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="a file that this script printed")
    parser.add_argument("--only", help="runs whose name contains this")
    arguments = parser.parse_args()
    if not any((arguments.only or "") in name for name in RUNS):
        parser.error(f"no run has '{arguments.only}' in its name; there are {', '.join(RUNS)}")
    before = {}
    if arguments.against is not None:
        try:
            before = json.loads(arguments.against.read_text())
        except (OSError, ValueError) as error:
            parser.error(f"--against takes a file that this script printed, and {arguments.against} is none: {error}")
    found = {}
    for name, overrides in RUNS.items():
        if arguments.only and arguments.only not in name:
            continue
        with tempfile.TemporaryDirectory() as runs:
            found[name] = fingerprint(overrides, Path(runs))
        print(name, found[name].get("train_loss", found[name].get("error")), file=sys.stderr)
    if arguments.against is None:
        print(json.dumps(found, indent=1))
        return 0
    same = {name: before.get(name) == now for name, now in found.items()}
    for name, equal in same.items():
        print(f"{'same' if equal else 'DIFFERS'}  {name}")
    return 0 if all(same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
