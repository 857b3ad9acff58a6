"""Language modelling tasks: sequences of token ids, with the next token as the label of each."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.configuration.data_config import TextData
from experiments.data.fetch import ensure
from experiments.data.published import TEXTS, stored_files
from experiments.data.subset import subset
from experiments.data.tokens import token_ids
from experiments.errors import UserError
from experiments.tasks import Spec, Task


class TextSplit:
    """A text as one tensor of ids int64 [n], cut into consecutive sequences without overlap.

    Sequence i starts at ``starts[i]`` and has ``length`` ids; its labels are the ids shifted by one.
    """

    augments = False

    def __init__(self, ids: Tensor, starts: Tensor, length: int) -> None:
        self.ids, self.starts = ids, starts
        self.offsets = torch.arange(length, device=ids.device)

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.starts)

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Ids [b, length] and labels [b, length] of the sequences ``index``; nothing is augmented."""
        places = self.starts[index][:, None] + self.offsets
        return self.ids[places], self.ids[places + 1]


def text_task(config: TextData, device: torch.device) -> Task:
    """The task of a published text, downloaded if it is missing; the test split is its test file.

    ``train_samples`` and ``test_samples`` select whole sequences by the fixed shuffle of the text.

    Raises:
        UserError: the set cannot be downloaded, is not text, or is too short for one sequence.
    """
    if config.length < 1:
        raise UserError(f"data.length is {config.length}, expected 1 or more tokens")
    if config.vocabulary < 2:
        raise UserError(f"data.vocabulary is {config.vocabulary}, expected 2 or more tokens")
    root = Path(config.root)
    ensure(config.name, root)
    paths = stored_files(config.name, root)
    try:
        tokens = token_ids(*paths, config.vocabulary)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{' or '.join(map(str, paths))} is not readable UTF-8 text ({error}); delete it, and it is fetched again"
        ) from error

    def split(ids: Tensor, path: Path, wanted: int | None, key: str) -> TextSplit:
        sequences = (len(ids) - 1) // config.length  # one more id is the last label
        if sequences < 1:
            raise UserError(
                f"{path} has {len(ids)} tokens, too few for one sequence of {config.length} and the label after it; "
                "lower data.length or put the published text there"
            )
        starts = subset(sequences, wanted, key) * config.length
        return TextSplit(ids.to(device), starts.to(device), config.length)

    train, test = torch.from_numpy(tokens.train), torch.from_numpy(tokens.test)
    return Task(
        name=config.name,
        spec=Spec("text", (config.length,), tokens.size),
        train=split(train, paths[0], config.train_samples, "data.train_samples"),
        test=split(test, paths[1], config.test_samples, "data.test_samples"),
        loss=token_loss,
        metric="perplexity",
        note=_note(config.name, *paths),
    )


def token_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, in nats per token, of logits [b, length, v] and labels [b, length]."""
    return F.cross_entropy(outputs.flatten(0, 1), labels.flatten())


def _note(name: str, train: Path, test: Path) -> str:
    parts = [(train, TEXTS[name].train_bytes), (test, TEXTS[name].test_bytes)]
    other = [
        f"{path.name} has {path.stat().st_size} of {size} bytes" for path, size in parts if path.stat().st_size != size
    ]
    return f"not the published text: {', '.join(other)}" if other else ""
