"""One reading of a value, on the command line and in a YAML file.

Hydra's grammar of overrides and YAML 1.1 read some plain words differently: ``010`` is a text or 8, ``yes`` a text or
true, ``1:30`` a text or 90, ``inf`` a number or a text. Here such a word is refused in both places. A word in quotes is
a text in both.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from antlr4 import CommonTokenStream, InputStream, ParserRuleContext
from antlr4.error.ErrorListener import ErrorListener
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.grammar.gen.OverrideLexer import OverrideLexer
from hydra.grammar.gen.OverrideParser import OverrideParser
from hydra.plugins.config_source import ConfigResult
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from experiments.configuration.options import options
from experiments.errors import UserError, one_of

ALIKE = re.compile(r"[+-]?(0|[1-9][0-9]{0,15})|[+-]?(0|[1-9][0-9]*)\.[0-9]+(e[+-]?[0-9]+)?|true|false|null")
"""Words that both read alike, recognised without asking either: most numbers."""

NOT_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan"}
"""Words of letters that YAML or Hydra's grammar reads as something else than a text, in lower case."""

LOADER = get_yaml_loader()
"""The YAML loader of OmegaConf, which Hydra reads configuration files with."""

MERGE = "tag:yaml.org,2002:merge"
"""The tag of the key ``<<``, which merges another mapping."""

PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fastest parser of YAML that is installed; what a plain word means is asked of ``LOADER``."""


def reading_in_yaml(word: str) -> Any:
    """The value of a plain ``word`` in a YAML file.

    A sign of YAML's own, such as ``*``, has to be quoted there and is a text.

    Raises:
        ValueError: YAML takes it for a number and cannot read it.
    """
    loader = LOADER("")
    tag = loader.resolve(yaml.ScalarNode, word, (True, False))
    try:
        return loader.construct_object(yaml.ScalarNode(tag, word))
    except yaml.constructor.ConstructorError:
        return word


def reading_on_the_command_line(word: str) -> Any:
    """The value of a plain ``word`` in an override; a word that would have to be quoted there is a text."""
    tree = _parsed(f"key={word}")
    value = tree and tree.value()
    if not value or value.element() is None or value.element().primitive() is None:
        return word
    return OverridesParser.create().parse_rule(word, "primitive")


@functools.lru_cache(10_000)
def read_alike(word: str) -> bool:
    """Whether a plain ``word`` has the same value, type included, on the command line and in a YAML file."""
    if ALIKE.fullmatch(word) or (word.isidentifier() and word.lower() not in NOT_WORDS):
        return True
    if "${" in word:  # an interpolation, which OmegaConf resolves in both
        return True
    try:
        here, there = reading_on_the_command_line(word), reading_in_yaml(word)
    except ValueError:
        return False
    return type(here) is type(there) and (here == there or here != here)


def mistake(word: str, where: str) -> UserError:
    """The error for a ``word`` that is not read alike."""
    if word == "":
        return UserError(f"{where} has no value; write null for none, or '' for an empty text")
    meant = "true, false or null" if word.lower() in NOT_WORDS | {"~"} else "a decimal number such as 10, 0.5 or 1e-3"
    if word.lower().lstrip("+-.") in ("inf", "nan"):
        return UserError(f"{where} has the value {word}; write a finite number, or a text in quotes")
    here = _spelt(reading_on_the_command_line, word)
    there = _spelt(reading_in_yaml, word)
    return UserError(
        f"{where} has the value {word}, which is {here} on the command line and {there} in a YAML file; "
        f"write {meant}, or a text in quotes"
    )


def check_overrides(overrides: Iterable[str]) -> None:
    """Refuse overrides with a value that a YAML file would read otherwise, and options of a group that are no text.

    Raises:
        UserError: there is one, or one without a key; an override that Hydra's grammar does not read is left to Hydra.
    """
    groups = options()
    for override in overrides:
        tree = _parsed(override)
        if tree is None:
            continue
        key, value = tree.key().getText(), tree.value()
        if not key:
            raise UserError(f"'{override}' on the command line names no key; write key=value")
        if key in groups and "{" not in override:
            for word in _plain_words(value):
                if not isinstance(reading_on_the_command_line(word), str):
                    raise one_of(f"option of {key}", word, groups[key])
        if tree.EQUAL() is not None and value is None and tree.TILDE() is None:
            raise mistake("", f"'{key}' on the command line")
        for word in _plain_words(tree):
            if not read_alike(word):
                raise mistake(word, f"'{key}' on the command line")


def check_file(path: Path, text: str) -> None:
    """Refuse a YAML file with a value that the command line would read otherwise, or that is no YAML.

    Raises:
        UserError: the file has such a value, or cannot be parsed.
    """
    try:
        root = yaml.compose(text, PARSER)
    except yaml.YAMLError as error:
        raise _not_yaml(path, error) from error
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} must hold keys and values, as in 'seed: 0'")
    for key, node in _plain_nodes(root):
        if not read_alike(node.value):
            raise mistake(node.value, f"'{key}' in line {node.start_mark.line + 1} of {path}")


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's source of YAML files; each file is checked before it is read.

    It has the name of Hydra's own class, which is registered only if there is none of this name yet.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """The configuration in a file.

        Raises:
            UserError: the file has a value that the command line would read otherwise, or is no YAML.
        """
        path = Path(os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path))))  # noqa: PTH118
        try:
            check_file(path, path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass  # Hydra says so
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as UTF-8 text: {error}") from error
        try:
            return super().load_config(config_path)
        except (yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
            raise _not_yaml(path, error) from error


def register() -> None:
    """Make Hydra read YAML files by the source above."""
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


def _not_yaml(path: Path, error: Exception) -> UserError:
    """The error for a file that is no YAML, or not that of a configuration."""
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1} of {path}" if mark else str(path)
    reason = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"{place} is not a YAML file of keys and values: {reason}")


class _Silent(ErrorListener):
    """Raises at the first mistake; Hydra tells of it when it parses the same text."""

    def syntaxError(self, *arguments: Any) -> None:
        raise SyntaxError


def _parsed(override: str) -> OverrideParser.OverrideContext | None:
    """The syntax tree of an override, or ``None`` if it is none."""
    lexer = OverrideLexer(InputStream(override))
    parser = OverrideParser(CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(_Silent())
    try:
        return parser.override()
    except SyntaxError:
        return None


def _plain_words(node: Any) -> Iterator[str]:
    """The values and keys of dictionaries in a syntax tree that are neither quoted nor escaped."""
    if isinstance(node, OverrideParser.PrimitiveContext | OverrideParser.DictKeyContext):
        tokens = {child.symbol.type for child in node.getChildren()}
        if not tokens & {OverrideLexer.QUOTED_VALUE, OverrideLexer.ESC}:
            yield node.getText().strip()
    elif isinstance(node, ParserRuleContext):
        for child in node.getChildren():
            yield from _plain_words(child)


def _plain_nodes(root: yaml.Node | None) -> Iterator[tuple[str, yaml.ScalarNode]]:
    """The plain scalars below a node, keys included, each with the dotted key that leads to it; aliases once."""
    left, seen = [("", root)], set()
    while left:
        key, node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode) and not node.style and node.tag != MERGE:
            yield key, node
        elif isinstance(node, yaml.SequenceNode):
            left += [(key, entry) for entry in node.value]
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                inner = f"{key}.{name.value}".lstrip(".")
                left += [(inner, name), (inner, value)]


def _spelt(reading: Callable[[str], Any], word: str) -> str:
    """What a ``reading`` makes of a word, for a message."""
    try:
        value = reading(word)
    except ValueError:
        return "not readable"
    if isinstance(value, str):
        return f"the text {value}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
