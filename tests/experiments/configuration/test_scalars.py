"""A plain word is one value, on the command line and in a YAML file, or it is refused in both."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments.configuration.options import CONF
from experiments.configuration.scalars import FileConfigSource, check_file, check_overrides, read_alike, register
from experiments.errors import UserError

UNLIKE = (
    "yes no on off Yes OFF tRue nUll 010 0x10 0b11 1:30 1:2:3 190:20:30.15 inf -inf .inf nan .nan -.5 .5e3 1__0 0_ ~"
)
ALIKE = "0 -3 +5 1_000 1e5 1e-5 0.5 .5 1. TRUE false null Null y n relu my_models:wide a/b 2020-01-01 08 cuda:1 1.2.3"


@pytest.mark.parametrize("word", UNLIKE.split())
def test_a_word_of_two_readings_is_refused_in_both_places(word):
    with pytest.raises(UserError, match=r"'seed' in line 2 of here\.yaml has the value"):
        check_file(Path("here.yaml"), f"# mine\nseed: {word}\n")
    if word != "~":
        with pytest.raises(UserError, match="'seed' on the command line has the value"):
            check_overrides(["data=digits", f"seed={word}"])
        with pytest.raises(UserError, match="command line"):
            check_overrides([f"model.widths=[1,{word}]"])
        with pytest.raises(UserError, match="command line"):
            check_overrides([f"seed=1,{word}"])
    check_file(Path("here.yaml"), f"seed: '{word}'\n")
    check_overrides([f"seed='{word}'"])


@pytest.mark.parametrize("word", ALIKE.split())
def test_a_word_of_one_reading_is_taken_in_both_places(word):
    """The values are those of Hydra's parser and of OmegaConf's loader themselves."""
    assert read_alike(word)
    here = OverridesParser.create().parse_override(f"key={word}").value()
    there = OmegaConf.create(f"key: {word}").key
    assert (type(here), here) == (type(there), there)


def test_a_missing_value_is_refused_in_both_places():
    with pytest.raises(UserError, match=r"'seed' in line 1 of here\.yaml has no value; write null"):
        check_file(Path("here.yaml"), "seed:\n")
    with pytest.raises(UserError, match="'seed' on the command line has no value; write null"):
        check_overrides(["seed="])
    check_overrides(["~seed", "seed=''", "-m", "seed=[", "a=${b}", "a=yes\\,no"])


def test_an_override_without_a_key_and_an_option_that_is_no_text_are_refused():
    with pytest.raises(UserError, match="'=1' on the command line names no key"):
        check_overrides(["=1"])
    with pytest.raises(UserError, match="unknown option of data '1'; known: booth"):
        check_overrides(["data=digits,1"])
    check_overrides(["data=digits,random", "optimizer={lr: 1}"])


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2\nb: {", "- 1\n", "just words\n", "\t- x", "a: &x [*x, yes]"])
def test_a_file_that_is_no_yaml_of_keys_and_values_is_refused(text):
    with pytest.raises(UserError, match=r"here\.yaml"):
        check_file(Path("here.yaml"), text)


def test_the_processes_of_a_launcher_register_hydras_own_source_after_ours():
    """They are handed the registry; that Hydra registers its own source must neither fail nor replace ours."""
    register()
    SourcesRegistry.instance().register(file_config_source.FileConfigSource)
    assert SourcesRegistry.instance().resolve("file") is FileConfigSource


def test_own_files_read_alike():
    for file in CONF.rglob("*.yaml"):
        check_file(file, file.read_text())
