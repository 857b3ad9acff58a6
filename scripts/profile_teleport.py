"""Print what one teleport spends its seconds on: its phases, then its costliest operations by torch's profiler.

usage: python scripts/profile_teleport.py [--rows N] [--threads N] [--device DEVICE] [--write FILE] GROUP=OPTION...

Options are those of run.py; the first teleport event of that run is profiled. To profile all of its steps, not only
those below the cap, add: teleport.step=fixed teleport.cap=null teleport.lr=1e-9
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments import files
from experiments.configuration.bounds import COUNT, PROCESSORS
from experiments.configuration.scalars import check_overrides
from experiments.errors import UserError


def main(arguments: list[str]) -> int:
    """Profile, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="GROUP=OPTION", help="overrides, as for run.py")
    parser.add_argument("--rows", type=int, default=20, help="number of operations printed (20)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the table to FILE")
    given = parser.parse_args(arguments)
    for option, count, bounds in (("--rows", given.rows, COUNT), ("--threads", given.threads, PROCESSORS)):
        if not bounds.hold(count):
            parser.error(f"{option} must be {bounds}, not {count}")
    try:
        table = _profile(given)
        print(table)
        if given.write:
            files.write_text(given.write, table + "\n")
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _profile(given: argparse.Namespace) -> str:
    import torch

    from experiments.benchmarks.profile import profile_event
    from experiments.configuration.mistakes import of_command_line

    if given.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"--device {given.device} needs a CUDA device, and torch sees none; use --device cpu")
    if given.threads:
        torch.set_num_threads(given.threads)
    check_overrides(given.overrides)
    try:
        return profile_event(given.overrides, torch.device(given.device), given.rows)
    except Exception as error:
        mistake = of_command_line(error)
        if mistake is None:
            raise
        raise mistake from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
