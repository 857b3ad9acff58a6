"""Transformers for sequences of vectors and of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.configuration.model_config import TransformerConfig
from experiments.errors import UserError, one_of
from experiments.models.activations import activation
from experiments.models.checks import require_positive
from experiments.tasks import Spec

FITS = ("sequence", "series", "text")
HEADS = ("last", "mean", "every")


class Attention(nn.Module):
    """Multi-head self-attention with a linear layer each for query, key, value and output (Vaswani et al. 2017).

    The layers are separate and not packed into one, so that each is a linear layer of its own for a teleport.

    Args:
        width: of a token; a multiple of ``heads``.
        heads: attention heads, of ``width / heads`` dimensions each.
        causal: whether a token attends only to itself and the tokens before it.
        dropout: of attention weights, in training.

    Shapes: [b, length, width] -> the same shape.
    """

    def __init__(self, width: int, heads: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[b, length, width] -> the same shape."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [b, heads, length, width / heads]
            for layer in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=self.causal)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``: pre-norm (Xiong et al. 2020).

    Pre-norm is the choice of this suite: it trains with plain SGD and without a warm-up of the rate.

    Shapes: [b, length, width] -> the same shape.
    """

    def __init__(self, width: int, heads: int, hidden: int, activation_name: str, causal: bool, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal, dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), activation(activation_name), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, length, width] -> the same shape."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Transformer(nn.Module):
    """An embedding of inputs and learned positions, blocks, a layer norm and a linear head.

    Args:
        embedding: [b, length, ...] -> [b, length, width]: ``nn.Linear`` for vectors, ``nn.Embedding`` for tokens.
        length: the maximal length of an input.
        outputs: of the head.
        head: the input of the head: the ``last`` token, the ``mean`` over all, or ``every`` token separately.
        heads, head_dim: ``width`` is their product.
        layers: number of blocks.
        mlp_ratio: the hidden width of a block's MLP over ``width``.
        dropout: on embeddings, attention weights and the outputs of sublayers, in training.
        activation_name: one of ``activations.ACTIVATIONS``.
        causal: whether a token attends only to itself and the tokens before it.

    Shapes: output [b, outputs], or [b, length, outputs] if ``head`` is ``every``.
    """

    def __init__(
        self,
        embedding: nn.Module,
        length: int,
        outputs: int,
        *,
        head: str,
        heads: int,
        head_dim: int,
        layers: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        activation_name: str = "relu",
        causal: bool = False,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"head must be one of {HEADS}, got {head!r}")
        width = heads * head_dim
        hidden = round(width * mlp_ratio)
        self.pooling = head
        self.embedding = embedding
        self.positions = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(Block(width, heads, hidden, activation_name, causal, dropout) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, length, features] or [b, length] -> [b, outputs] or [b, length, outputs]."""
        positions = self.positions(torch.arange(inputs.shape[1], device=inputs.device))  # [length, width]
        x = self.norm(self.blocks(self.dropout(self.embedding(inputs) + positions)))
        if self.pooling == "last":
            x = x[:, -1]
        elif self.pooling == "mean":
            x = x.mean(1)
        return self.head(x)


def build(config: TransformerConfig, spec: Spec) -> Transformer:
    """The transformer of a configuration for a task.

    A sequence is classified from the mean over its tokens; a series is regressed from its last token, or from the mean
    (``series_head``); each token of a text is predicted from the previous ones, by a head not tied to the embedding.

    Raises:
        UserError: a size below 1, a dropout outside [0, 1), or an unknown activation or head.
    """
    _check(config)
    width = config.heads * config.head_dim
    embedding: nn.Module
    if spec.kind == "text":
        embedding = nn.Embedding(spec.outputs, width)  # the outputs are the vocabulary
    else:
        embedding = nn.Linear(spec.input_shape[1], width)
    return Transformer(
        embedding,
        spec.input_shape[0],
        spec.outputs,
        head={"text": "every", "sequence": "mean", "series": config.series_head}[spec.kind],
        heads=config.heads,
        head_dim=config.head_dim,
        layers=config.layers,
        mlp_ratio=config.mlp_ratio,
        dropout=config.dropout,
        activation_name=config.activation,
        causal=spec.kind == "text",
    )


def _check(config: TransformerConfig) -> None:
    for key in ("heads", "head_dim", "layers", "mlp_ratio"):
        require_positive(f"model.{key}", [getattr(config, key)])
    if not 0 <= config.dropout < 1:
        raise UserError(f"model.dropout takes a share from 0 to below 1, got {config.dropout}")
    if config.series_head not in ("last", "mean"):
        raise one_of("model.series_head", config.series_head, ["last", "mean"])
