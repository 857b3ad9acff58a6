"""What can be chosen: the options of each group under ``conf/``."""

from __future__ import annotations

from pathlib import Path

CONF = Path(__file__).parent.parent / "conf"


def options() -> dict[str, list[str]]:
    """Group -> the names that ``group=name`` takes, as the files under ``conf/`` are."""
    groups = sorted(folder for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
    return {
        group.name: sorted(file.relative_to(group).with_suffix("").as_posix() for file in group.rglob("*.yaml"))
        for group in groups
    }


def listing(width: int = 110) -> str:
    """The options of every group as text, a paragraph a group, with the group's default in brackets."""
    import textwrap

    import yaml

    first = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    defaults = {group: name for entry in first if isinstance(entry, dict) for group, name in entry.items()}
    lines = []
    for group, names in options().items():
        marked = [f"[{name}]" if name == defaults.get(group) else name for name in names]
        text = textwrap.fill("  ".join(marked), width - 14, break_on_hyphens=False)
        lines.append(f"  {group:<12}" + text.replace("\n", "\n" + " " * 14))
    return "\n".join(lines)
