from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data import tokens as tokens_module
from experiments.data.tokens import END, UNKNOWN, encode, token_ids, tokenize, vocabulary

TRAIN = " the cat sat on the <unk> mat \n the dog of mr. <unk> sat \n"
TEST = " the zebra sat \n"


@pytest.fixture
def texts(tmp_path):
    train, test = tmp_path / "ptb.train.txt", tmp_path / "ptb.test.txt"
    train.write_text(TRAIN)
    test.write_text(TEST)
    return train, test


def test_unknown_words_stay_whole_and_lines_end():
    expected = "the cat sat on the <unk> mat <eos> the dog of mr. <unk> sat <eos>"
    assert tokenize(TRAIN) == expected.split()


def test_the_tokenizer_takes_words_apart():
    assert tokenize("he did n't buy s&p for c$ 5 in the u.s.\n") == (
        ["he", "did", "n't", "buy", "s", "&", "p", "for", "c", "$", "5", "in", "the", "u.s", ".", "<eos>"]
    )


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), st.integers(2, 12))
def test_the_vocabulary_is_the_most_frequent(words, size):
    kept = vocabulary(words, size)
    counts = Counter(words)
    assert UNKNOWN in kept
    assert len(kept) == len(set(kept)) == min(size, len(counts) + 1)
    least = min(counts[word] for word in kept if word != UNKNOWN)
    assert all(counts[word] <= least for word in set(counts) - set(kept))
    assert vocabulary(words[::-1], size) == kept  # ties do not hang on the order of the text
    ids = encode(words, kept)
    for word, i in zip(words, ids, strict=True):
        assert kept[i] == (word if word in kept else UNKNOWN)


def test_ids_decode_to_the_text(texts):
    tokens = token_ids(*texts, size=100)
    words = vocabulary(tokenize(TRAIN), 100)
    assert tokens.size == len(words) == len(set(TRAIN.split()) | {END})
    assert [words[i] for i in tokens.train] == tokenize(TRAIN)
    assert [words[i] for i in tokens.test] == ["the", UNKNOWN, "sat", END]


def cache_of(texts: tuple[Path, Path]) -> list[Path]:
    return sorted(texts[0].parent.glob("ids-*.npz"))


def same(a: tokens_module.Tokens, b: tokens_module.Tokens) -> bool:
    return a.size == b.size and np.array_equal(a.train, b.train) and np.array_equal(a.test, b.test)


def test_the_cache_is_used(texts, monkeypatch):
    first = token_ids(*texts, size=6)
    monkeypatch.setattr(tokens_module, "tokenize", lambda text: pytest.fail("tokenised again"))
    assert same(token_ids(*texts, size=6), first)


def test_the_cache_follows_text_and_size(texts):
    first = token_ids(*texts, size=6)
    assert token_ids(*texts, size=100).size > first.size
    texts[1].write_text("the cat\n")
    assert len(token_ids(*texts, size=6).test) == 3
    assert len(cache_of(texts)) == 3
    assert len(list(texts[0].parent.iterdir())) == 2 + 3  # and nothing else is left


def _foreign_ids(cache: Path) -> None:
    np.savez(cache, train=np.array([1, 99]), test=np.array([0]), size=6)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cache: cache.write_bytes(b""),
        lambda cache: cache.write_bytes(cache.read_bytes()[:200]),
        lambda cache: cache.write_text("nonsense"),
        lambda cache: np.savez(cache, train=np.zeros(3)),
        _foreign_ids,
    ],
)
def test_a_corrupt_cache_is_made_again(texts, spoil):
    first = token_ids(*texts, size=6)
    (cache,) = cache_of(texts)
    good = cache.read_bytes()
    spoil(cache)
    assert same(token_ids(*texts, size=6), first)
    assert cache.stat().st_size == len(good)


def test_a_full_disk_only_costs_the_cache(texts, monkeypatch):
    def full(file, **arrays):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    expected = token_ids(*texts, size=6)
    cache_of(texts)[0].unlink()
    monkeypatch.setattr(tokens_module.np, "savez", full)
    assert same(token_ids(*texts, size=6), expected)
    assert len(list(texts[0].parent.iterdir())) == 2
