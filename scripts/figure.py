"""Make a figure, with the runs that it needs: the same as ``python run.py figure=NAME``.

    python scripts/figure.py nullspace/fig8
    python scripts/figure.py nullspace/fig8 scale=smoke machine.jobs=4

usage: python scripts/figure.py NAME [GROUP=OPTION ...] [KEY=VALUE ...]; run.py --help lists the names.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Make the figure that the first argument names; the exit code of ``run.py``."""
    from experiments.command_line import command_line

    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-") or "=" in arguments[0]:
        print(__doc__, end="", file=sys.stdout if {"-h", "--help"} & set(arguments[:1]) else sys.stderr)
        return 0 if {"-h", "--help"} & set(arguments[:1]) else 2
    sys.argv[1:] = [f"figure={arguments[0]}", *arguments[1:]]
    return command_line.main()


if __name__ == "__main__":
    sys.exit(main())
