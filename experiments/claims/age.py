"""Whether the rule of a claim is older than the table that it judges, by the commits of both."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from experiments.claims.ledger import Line, parse
from experiments.errors import UserError

OLDER, YOUNGER, UNKNOWN = "yes", "no", "unknown"


def rule_commits(root: Path, path: Path) -> dict[str, str]:
    """Line -> the commit since which its rule is as it is now, by its content as JSON (:func:`content`).

    Args:
        root: of the checkout.
        path: of the ledger, relative to it.

    Returns:
        nothing for rules that are not committed, or outside of git.
    """
    commits = _git(root, "log", "--format=%H", "--", path.as_posix()).split()
    since: dict[str, str] = {}
    kept: set[str] | None = None
    for commit in commits:  # from the newest on; a rule is followed back as long as it is there
        try:
            there = {content(line) for line in parse(_git(root, "show", f"{commit}:{path.as_posix()}"), path.stem)}
        except UserError:
            break
        kept = there if kept is None else kept & there
        since |= dict.fromkeys(kept, commit)
    return since


def content(line: Line) -> str:
    """What decides the verdict on a line, as JSON."""
    return json.dumps(line.decides(), sort_keys=True)


def older(root: Path, rule: str | None, origin: dict[str, Any]) -> str:
    """Whether a rule is older than a table: committed before the code of the figure and of each of its runs.

    Args:
        root: of the checkout.
        rule: its commit; ``None`` if it has none.
        origin: the figure's provenance.

    Returns:
        ``yes``, ``no``, or ``unknown`` if a commit is not known here.
    """
    if rule is None:
        return YOUNGER if _git(root, "rev-parse", "HEAD") else UNKNOWN
    used = {str(origin.get("commit"))} | {str(own.get("commit")) for own in origin.get("environments", [])}
    found = {_ancestor(root, rule, commit.removesuffix("+")) for commit in used}
    return YOUNGER if YOUNGER in found else UNKNOWN if UNKNOWN in found else OLDER


@cache
def _ancestor(root: Path, rule: str, commit: str) -> str:
    asked = ["git", "merge-base", "--is-ancestor", rule, commit]
    try:
        done = subprocess.run(asked, cwd=root, capture_output=True, check=False)
    except OSError:
        return UNKNOWN
    if done.returncode > 1:
        return UNKNOWN
    return YOUNGER if done.returncode else OLDER


def _git(root: Path, *arguments: str) -> str:
    """What git prints; nothing if it fails or is not there."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout


def commits_of(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """The rules of several ledgers, see :func:`rule_commits`."""
    found: dict[str, str] = {}
    for path in paths:
        found |= rule_commits(root, path)
    return found
