"""Words to token ids: tokenizer, vocabulary and a cache of the ids."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.arrays import NOT_WHOLE

UNKNOWN, END = "<unk>", "<eos>"
_SHIELD = "\ue000"  # a private-use character, which no text contains and no rule of the tokenizer matches
_VERSION = 1  # increased by each change of this file that changes ids


@dataclass(frozen=True)
class Tokens:
    """Ids of two texts, int64 [n] each, below ``size``; ids are in descending order of counts in the training text."""

    train: np.ndarray
    test: np.ndarray
    size: int


def tokenize(text: str) -> list[str]:
    """Words by nltk's TreebankWord tokenizer, one sentence per line, ``<eos>`` after each line.

    ``<unk>`` would be split into three tokens and is protected. On the Penn Treebank text, which is already tokenised,
    the tokenizer still splits ``s&p`` and ``c$`` and the full stop from an abbreviation at the end of a line: its
    training, validation and test texts have 930423, 73820 and 82574 tokens, while the words with ``<eos>`` are 929589,
    73760 and 82430.
    """
    from nltk.tokenize import TreebankWordTokenizer

    tokenizer = TreebankWordTokenizer()
    tokens: list[str] = []
    for line in text.splitlines():
        words = tokenizer.tokenize(line.replace(UNKNOWN, _SHIELD))
        tokens.extend(UNKNOWN if word == _SHIELD else word for word in words)
        tokens.append(END)
    return tokens


def vocabulary(tokens: list[str], size: int) -> list[str]:
    """The ``size`` most frequent tokens (fewer if there are fewer), including ``<unk>``; ties by spelling."""
    counts = Counter(tokens)
    counts[UNKNOWN] += 0  # needed for tokens that the training text lacks
    ranked = sorted(counts, key=lambda token: (-counts[token], token))[:size]
    return ranked if UNKNOWN in ranked else [*ranked[:-1], UNKNOWN]


def encode(tokens: list[str], words: list[str]) -> np.ndarray:
    """Ids int64 [n]; a token outside ``words`` is ``<unk>``."""
    ids = {word: i for i, word in enumerate(words)}
    unknown = ids[UNKNOWN]
    return np.array([ids.get(token, unknown) for token in tokens], np.int64)


def token_ids(train: Path, test: Path, size: int) -> Tokens:
    """Ids of both texts, over a vocabulary of at most ``size`` tokens of the training text.

    They are cached in the folder of the training text, in a file named by a hash of the texts, the tokenizer's version
    and ``size``. An unreadable cache is made again; if none can be written, nothing is cached.
    """
    import nltk

    content = train.read_bytes(), test.read_bytes()
    key = hashlib.sha256(f"{_VERSION} {nltk.__version__} {size}".encode())
    for text in content:
        key.update(hashlib.sha256(text).digest())
    cache = train.parent / f"ids-{key.hexdigest()[:16]}.npz"
    tokens = _read(cache)
    if tokens is None:
        train_tokens, test_tokens = (tokenize(text.decode()) for text in content)
        words = vocabulary(train_tokens, size)
        tokens = Tokens(encode(train_tokens, words), encode(test_tokens, words), len(words))
        _write(cache, tokens)
    return tokens


def _read(cache: Path) -> Tokens | None:
    try:
        with np.load(cache, allow_pickle=False) as file:
            tokens = Tokens(file["train"], file["test"], int(file["size"]))
    except NOT_WHOLE:
        return None
    for ids in (tokens.train, tokens.test):
        if ids.dtype != np.int64 or ids.ndim != 1 or (len(ids) and not 0 <= ids.min() <= ids.max() < tokens.size):
            return None
    return tokens


def _write(cache: Path, tokens: Tokens) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=".ids-", dir=cache.parent, ignore_cleanup_errors=True) as folder:
            part = Path(folder) / cache.name
            np.savez(part, train=tokens.train, test=tokens.test, size=np.int64(tokens.size))
            part.replace(cache)
    except OSError as error:  # with a read-only or full disk the next run tokenises again
        logging.getLogger(__name__).info("token ids are not cached: %s", error)
