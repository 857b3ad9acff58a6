"""Command lines for the fuzzer: keys of the real schemas, with values of every type that are awkward for a program."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from experiments.configuration import teleport_config
from experiments.configuration.config import KEYS_OF_RUNS
from experiments.configuration.options import options

SMALL = {
    "data.train_samples": "40",
    "data.test_samples": "20",
    "training.max_steps": "2",
    "teleport.batches": "1",
    "teleport.samples": "4",
    "machine.progress": "false",
    "machine.threads": "1",
}
"""Keys of every case, unless the case sets them: a run of two steps."""

CHOICES = {
    "data": ["digits", "random", "booth", "rosenbrock", "none_such", "digit", "nul", "null", "010", "mnist/x"],
    "model": ["mlp_small", "cnn", "resnet", "point", "transformer", "custom", "torchvision", "mlpp", "[mlp]"],
    "optimizer": ["sgd", "adam", "adamw", "adagrad", "momentum", "lbfgs", "17", "sgd/x"],
    "teleport": [*teleport_config.KINDS, "symmetry_2022", "nullspace_paper", "orbitt", "''"],
    "rates": ["suite", "tuned", "tunedd"],
    "tracking": ["none", "tensorbord", "null"],
    "scale": ["smoke", "quick", "paper", "huge", "yes"],
    "experiment": ["symmetry/booth", "symmetry/rosenbrock", "none_such", "null"],
    "figure": ["none_such", "nullspace"],
    "nothing": ["x", "1"],
}
"""Options of groups: those that need no download, and wrong ones."""


WHOLE = "-1 0 1 2 3 7 2147483647 2147483648 4294967296 9223372036854775808 1000000000000000000000000000000 -0 +5 1_000"
REAL = "0.0 -0.0 1e-400 1e-45 1e-8 0.1 0.5 0.30000000000000004 1.0 1.5 1e3 1e30 1e31 3.5e38 1e308 1e400 -1e308 1. .5"
WORDS = "relu none_such a/b ../x ünï 17 x.y my_models:wide cuda:7 ${seed} ${nope} ${data.name} ??? a-b @ * %"
UNLIKE = "yes no on off 010 0x10 0b1 1:30 inf -inf .inf nan .nan nUll -.5 1__0 ~ tRue"
OTHERS = ["", "null", "true", "false", "'7'", "'yes'", "''", "' '", "'a b'", '"q"', "a b", "'" + "x" * 300 + "'"]
STRUCTURES = [
    "[]",
    "[1]",
    "[1, 2]",
    "[0.5, 0.9]",
    "[nan]",
    "[1e308]",
    "[[1]]",
    "[1, null]",
    "[a]",
    "{}",
    "{a: 1}",
    "[1, {a: 2}]",
]
BROKEN = ["[", "{a", "'x", '"', "a,,b", "=1", "${", "(1)", "f(x)", "range(3)", "a=b", "1]", "[1,,2]", "\\"]
PLAIN = [*WHOLE.split(), *REAL.split(), *WORDS.split(), *UNLIKE.split(), *OTHERS, *STRUCTURES]
SWEPT = [
    "0,1",
    "range(3)",
    "range(0.1,0.5,0.1)",
    "a,b",
    "1,[2]",
    "range(0,3,0)",
    "range(3,0)",
    "choice(1,2)",
    "glob(*)",
]

FLAGS = [
    "-m",
    "--multirun",
    "--cfg=job",
    "--resolve",
    "--nope",
    "-cd=none_such",
    "--config-name=none_such",
    "--shell-completion",
]


@dataclass(frozen=True)
class Case:
    """A command line. ``values`` are plain ``key=value``, which a YAML file can hold as well; ``words`` cannot."""

    choices: dict[str, str]
    values: dict[str, str]
    words: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        """The overrides, those of SMALL first."""
        keyed = [f"{key}={value}" for key, value in {**SMALL, **self.values}.items()]
        return [*(f"{group}={option}" for group, option in self.choices.items()), *keyed, *self.words]

    def yaml(self) -> str:
        """The plain values as the text of an experiment file."""
        tree: dict[str, typing.Any] = {}
        for key, value in {**SMALL, **self.values}.items():
            *path, last = key.split(".")
            node = tree
            for name in path:
                if not isinstance(node.get(name), dict):  # of a key and one below it, the last counts
                    node[name] = {}
                node = node[name]
            node[last] = value
        return "# @package _global_\n" + "".join(_lines(tree, 0))


def _lines(tree: dict[str, typing.Any], depth: int) -> typing.Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield f"{'  ' * depth}{key}:\n"
            yield from _lines(value, depth + 1)
        else:
            yield f"{'  ' * depth}{key}: {value}\n"


def keys() -> list[str]:
    """Every key of every schema, dotted."""
    found: dict[str, None] = {"seed": None}
    for group, kinds in KEYS_OF_RUNS.items():
        for kind in kinds:
            found |= dict.fromkeys(_keys(kind, f"{group}."))
    return [
        key
        for key in found
        if key not in ("data.extents", "model.sizes", "data.root", "machine.runs", "machine.results")
    ]


def _keys(kind: type, path: str) -> typing.Iterator[str]:
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _keys(hint, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def likely(key: str) -> SearchStrategy[str]:
    """Values for ``key``: of all types, and some that it may well take."""
    return st.one_of(st.sampled_from(PLAIN), st.sampled_from(["1", "2", "0.5", "true", "[8]", "8"]))


def pairs() -> SearchStrategy[tuple[str, str]]:
    """A key with a value; keys are those of the schemas, at times misspelt."""
    known = st.sampled_from(keys())
    wrong = st.sampled_from(
        ["seeds", "optimizer.lrr", "model.widths.x", "data", "training", "rates.digits.sgd.lr", "a.b.c"]
    )
    return st.one_of(known, known, known, known, known, known, wrong).flatmap(
        lambda key: st.tuples(st.just(key), likely(key))
    )


def choices() -> SearchStrategy[dict[str, str]]:
    """Options of at most two groups; the names of groups are those of ``conf/``, and one that is none."""
    assert set(CHOICES) - {"nothing"} == set(options())
    right = st.sampled_from([
        {}, {}, {"optimizer": "adam"}, {"optimizer": "momentum"}, {"optimizer": "adagrad"}, {"teleport": "nullspace"},
        {"data": "random", "model": "cnn"}, {"data": "random", "model": "resnet"}, {"data": "booth", "model": "point"},
        {"teleport": "random"}, {"teleport": "rescaling"}, {"teleport": "change_of_basis"}, {"teleport": "levelset"},
        {"teleport": "balance"}, {"teleport": "pseudo_teleport"}, {"teleport": "symmetry"}, {"model": "mlp_small"},
    ])  # fmt: skip
    group = st.sampled_from(sorted(CHOICES)).flatmap(
        lambda name: st.sampled_from(CHOICES[name]).map(lambda option: {name: option})
    )
    return st.one_of(right, right, right, group)


def words() -> SearchStrategy[tuple[str, ...]]:
    """At most one word that no YAML file can hold: additions, deletions, sweeps, broken quotes, flags."""
    key = st.sampled_from([*keys(), "training", "data", "machine", "hydra", "x", "experiment"])
    sign = st.sampled_from(["+", "++", "~"])
    changed = st.tuples(sign, key, st.sampled_from(PLAIN)).map(lambda part: f"{part[0]}{part[1]}={part[2]}")
    deleted = key.map(lambda name: f"~{name}")
    broken = st.tuples(key, st.sampled_from(BROKEN)).map("=".join)
    swept = st.tuples(key, st.sampled_from(SWEPT)).map("=".join)
    odd = st.sampled_from(
        ["", "=", "=1", "seed", "seed==1", "seed =1", "seed= 1", "a b=1", "+", "~", "@=1", "data@x=digits"]
    )
    word = st.one_of(changed, deleted, broken, swept, odd)
    sweep = st.tuples(st.sampled_from(["-m", "--multirun"]), swept)
    flag = st.sampled_from(FLAGS).map(lambda flag: tuple(flag.split("=", 1)))
    return st.one_of(st.just(()), st.just(()), st.just(()), word.map(lambda each: (each,)), sweep, flag)


def cases() -> SearchStrategy[Case]:
    """Command lines."""
    values = st.lists(pairs(), min_size=1, max_size=3).map(dict)
    return st.builds(Case, choices(), values, words())
