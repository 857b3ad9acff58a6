"""Sizes that no memory holds are refused before they are allocated."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments import memory
from experiments.configuration.model_config import MLPConfig, TransformerConfig
from experiments.errors import UserError
from experiments.models.registry import build_model
from experiments.tasks import Spec

IMAGE = Spec("image", (1, 8, 8), 10)


def test_a_size_beyond_the_memory_is_refused_in_one_sentence():
    here = memory.total(torch.device("cpu"))
    memory.require(here, "all of it")
    with pytest.raises(UserError, match=r"^twice as much would take .* of memory$"):
        memory.require(2 * here, "twice as much")


@pytest.mark.parametrize(
    ("size", "words"), [(999, "999 bytes"), (1.5e3, "1.5 kB"), (6e11, "600 GB"), (3e21, "3e+03 EB")]
)
def test_sizes_in_words(size, words):
    assert memory.in_words(size) == words


@pytest.mark.parametrize("widths", [[10**9], [10**5, 10**5], [2**31 - 1, 2**31 - 1]])
def test_a_model_beyond_the_memory_is_named_by_its_keys(widths):
    with pytest.raises(UserError, match=r"the model 'mlp' with model\.widths=\["):
        build_model(MLPConfig(name="mlp", widths=widths), IMAGE)
    sizes = {"heads": 10**5, "head_dim": 10**5, "layers": 1}
    with pytest.raises(UserError, match=r"model\.heads=100000"):
        build_model(TransformerConfig(name="transformer", **sizes), Spec("sequence", (28, 28), 10))


def test_the_check_draws_no_random_number():
    """The weights are those of the same layers built right after the seed."""
    torch.manual_seed(3)
    first = build_model(MLPConfig(name="mlp", widths=[5]), IMAGE).linear1.weight
    torch.manual_seed(3)
    assert torch.equal(first, nn.Linear(64, 5).weight)


def test_an_allocation_that_fails_is_a_mistake_and_other_errors_pass():
    with (
        pytest.raises(UserError, match=r"^it does not fit into memory \(.*\); less$"),
        memory.told_if_exhausted("it", "less"),
    ):
        torch.empty(10**15)
    with pytest.raises(RuntimeError, match="overflow"), memory.told_if_exhausted("it", "less"):
        torch.ones(1).add_(torch.ones(1), alpha=1e60)
