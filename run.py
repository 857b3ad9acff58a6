"""One run, a sweep of runs, or a figure: ``python run.py --help``.

Hydra composes the configuration from ``conf/`` and the command line; ``experiments`` does the rest.
"""

import sys

from experiments.command_line.command_line import main

if __name__ == "__main__":
    sys.exit(main())
