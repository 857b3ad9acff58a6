from __future__ import annotations

from experiments.configuration.options import CONF, listing, options


def test_every_file_of_a_group_is_an_option_and_no_schema_is():
    listed = options()
    assert "schema" not in listed
    assert "digits" in listed["data"]
    assert "nullspace/mlp_mnist" in listed["experiment"]
    assert "claims" not in listed
    others = {*CONF.glob("claims/*"), *CONF.glob("hydra/**/*.yaml")}  # hydra's own groups are listed by hydra
    assert sum(map(len, listed.values())) == len(set(CONF.glob("*/**/*.yaml")) - others)


def test_the_listing_marks_the_defaults():
    text = listing()
    assert "[digits]" in text
    assert "[quick]" in text
    assert all(len(line) <= 110 for line in text.splitlines())
