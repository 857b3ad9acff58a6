"""Where a change of basis stops, and that it does: nothing that is not understood ever changes the function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleport import register_rule
from teleport._quiver.find_quiver import find_quiver
from teleport._quiver.quiver import Freedom
from teleport._quiver.rules import table
from tests.teleport.networks import Calls, weight
from tests.teleport.teleported import error, free, quiver_of


def two(forward: Any, **more: nn.Module | nn.Parameter) -> nn.Module:
    """A net of ``first: 5 -> 4`` and ``last: 4 -> 3``."""
    torch.manual_seed(0)
    return Calls(forward, first=nn.Linear(5, 4), last=nn.Linear(4, 3), **more).double().eval()


def _written(n: Any, x: Tensor) -> Tensor:
    held = torch.zeros(len(x), 4, dtype=x.dtype)
    held[:, 1:] = n.first(x)[:, :3]
    return n.last(held.relu() + 1)


def _copied(n: Any, x: Tensor) -> Tensor:
    held = torch.zeros(len(x), 4, dtype=x.dtype)
    held.copy_(n.first(x))
    return n.last(held)


def _view_added_to(n: Any, x: Tensor) -> Tensor:
    hidden = n.first(x)
    hidden[:, :2].add_(1)
    return n.last(hidden)


def _view_scaled(n: Any, x: Tensor) -> Tensor:
    hidden = n.first(x)
    hidden[:, :2].mul_(n.scale)
    return n.last(hidden)


def _reshaped_in_place(n: Any, x: Tensor) -> Tensor:
    hidden = n.first(x)
    hidden.unsqueeze_(0)
    return n.last(hidden)[0]


STOPS = {
    "written into a buffer": _written,
    "copied into a buffer": _copied,
    "a view that is added to": _view_added_to,
    "reshaped in place": _reshaped_in_place,
    "data": lambda n, x: n.last(n.first(x).data + 1),
    "numpy": lambda n, x: n.last(n.first(x)) + float(n.first(x).detach().numpy().max()),
    "sorted": lambda n, x: n.last(n.first(x).sort(1).values),
    "argmax": lambda n, x: n.last(n.first(x)) + n.first(x).argmax(),
    "compared": lambda n, x: n.last(n.first(x)) + (n.first(x).sum() > 0),
    "a softmax": lambda n, x: n.last(n.first(x).softmax(1)),
    "normalised": lambda n, x: n.last(F.normalize(n.first(x))),
    "a power": lambda n, x: n.last(n.first(x) ** 2),
    "a product with itself": lambda n, x: n.last(n.first(x) * n.first(x)),
    "divided by itself": lambda n, x: n.last(n.first(x) / n.first(x).sum()),
    "into other memory": lambda n, x: n.last(torch.add(n.first(x), 1, out=torch.empty(0, dtype=x.dtype))),
    "as another type": lambda n, x: n.last(n.first(x).contiguous().view(torch.int64).view(torch.float64) + 1),
    "rounded": lambda n, x: n.last(n.first(x).to(torch.int64).to(x.dtype)),
    "rounded by a sum": lambda n, x: n.last(torch.stack([n.first(x)] * 3).sum(0, dtype=torch.int64).double()),
    "shifted by padding": lambda n, x: n.last(F.pad(n.first(x), (1, -1)) + x[:, :4]),
    "a key of itself": lambda n, x: n.last(
        F.scaled_dot_product_attention(h := n.first(x)[None], h, x[None, :, :4])
    ),
    "weights in a condition": lambda n, x: n.last(torch.where(n.first.weight[:, 0] > 0, n.first(x), -n.first(x))),
    "into vmap": lambda n, x: torch.vmap(lambda row: n.last(F.relu(row)))(n.first(x)),
    "a penalty": lambda n, x: n.last(n.first(x)) + n.first.weight.square().sum(),
}  # fmt: skip


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("name", STOPS)
def test_what_stops_a_change_of_basis(name, in_place):
    model, x = two(STOPS[name]), torch.randn(6, 5).double()
    difference, quiver = error(model, x, in_place=in_place)
    assert difference < 1e-9
    assert free(quiver)["first.weight"] < 1
    assert quiver.reasons["first.weight"]


def test_a_part_scaled_in_place_by_a_parameter_stays():
    model, x = two(_view_scaled, scale=weight(2)), torch.randn(6, 5).double()
    difference, quiver = error(model, x)
    assert difference < 1e-9
    assert free(quiver)["first.weight"] < 1


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(
    "forward",
    [
        lambda n, x: n.last(torch.vmap(lambda row: F.relu(n.first(row)))(x)),
        lambda n, x: n.last(torch.func.jvp(n.first, (x,), (x,))[1]),
    ],
    ids=["vmap", "jvp"],
)
def test_what_torch_func_wraps_stays(forward, in_place):
    difference, quiver = error(two(forward), torch.randn(6, 5).double(), in_place=in_place)
    assert difference < 1e-9
    assert not quiver.scaled
    assert "linear" in quiver.reasons["first.weight"]


def test_a_parameter_stays_whose_product_is_not_understood():
    """Its rule is one for real numbers, and gave it scale variables before the result was seen to be complex."""
    model = two(lambda n, x: n.last((n.first(x).to(torch.complex128) * n.scale).real.relu()), scale=weight(4))
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert "scale" not in quiver.scaled


def test_a_parameter_whose_elements_are_one_in_memory_stays():
    model = two(lambda n, x: n.last((n.first(x) + n.shift).relu()))
    model.shift = nn.Parameter(torch.ones(1).double().expand(4))
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert "shift" not in quiver.scaled


def test_what_is_frozen_stays_unless_it_may_move():
    model, x = two(lambda n, x: n.last(n.first(x).relu())), torch.randn(6, 5).double()
    model.requires_grad_(False)
    named = dict(model.named_parameters())
    assert not find_quiver(lambda: model(x), named).scaled
    assert set(find_quiver(lambda: model(x), named, frozen_stay=False).scaled) == {
        "first.weight", "first.bias", "last.weight",
    }  # fmt: skip


def test_a_parameter_that_is_not_named_is_a_constant():
    model, x = two(lambda n, x: n.last(n.first(x).relu())), torch.randn(6, 5).double()
    named = {name: each for name, each in model.named_parameters() if name != "last.weight"}
    quiver = find_quiver(lambda: model(x), named)
    assert not quiver.scaled


def test_elements_that_were_not_seen_stay():
    """A shorter sequence shows the first positions alone; those of a longer one are read in the same way."""

    def forward(n: Any, x: Tensor) -> Tensor:
        return n.last((n.first(x) + n.position[: x.shape[1]]).relu())

    model = two(forward, position=weight(7, 4))
    short, long = torch.randn(2, 3, 5).double(), torch.randn(2, 7, 5).double()
    quiver = quiver_of(model, short)
    assert quiver.scaled["position"].output_class.expand(7, 4)[:3].min() > 0
    assert quiver.scaled["position"].output_class.expand(7, 4)[3:].max() == 0
    difference, _ = error(model, short)
    assert difference < 1e-9
    before = model(long)
    assert error(model, long)[0] < 1e-9
    assert torch.isfinite(before).all()


def test_a_tied_embedding_stays():
    def forward(n: Any, x: Tensor) -> Tensor:
        return F.linear(n.hidden(n.words(x)).relu(), n.words.weight)

    model = two(forward, words=nn.Embedding(9, 4), hidden=nn.Linear(4, 4))
    difference, quiver = error(model, torch.arange(6)[None])
    assert difference < 1e-9
    assert free(quiver)["words.weight"] == 0


def test_an_untied_embedding_is_free():
    model = two(lambda n, x: n.last(n.words(x)), words=nn.Embedding(9, 4))
    del model.first  # whose channels could be those of the embedding
    difference, quiver = error(model, torch.arange(6)[None])
    assert difference < 1e-9
    assert free(quiver)["words.weight"] == 1
    assert set(quiver.freedom[quiver.channel_classes["words.weight"]].tolist()) == {Freedom.NONZERO}


@pytest.mark.parametrize(
    "options", [{}, {"kdim": 5, "vdim": 6}, {"add_bias_kv": True, "add_zero_attn": True}, {"bias": False}]
)
@pytest.mark.parametrize("weights", [True, False])
def test_multi_head_attention(options, weights):
    def forward(n: Any, x: Tensor) -> Tensor:
        key, value = n.key(x[..., : options.get("kdim", 8)]), n.value(x[..., : options.get("vdim", 8)])
        mixed, shares = n.attention(n.query(x), key, value, need_weights=weights)
        return n.head(mixed) if shares is None else n.head(mixed) + shares.sum()

    torch.manual_seed(0)
    kdim, vdim = options.get("kdim", 8), options.get("vdim", 8)
    model = Calls(
        forward, query=nn.Linear(8, 8), key=nn.Linear(kdim, kdim), value=nn.Linear(vdim, vdim),
        attention=nn.MultiheadAttention(8, 2, **options), head=nn.Linear(8, 3),
    ).double().eval()  # fmt: skip
    difference, quiver = error(model, torch.randn(5, 2, 8).double())
    assert difference < 1e-9
    assert min(free(quiver).get(f"{name}.weight", 1.0) for name in ("query", "key", "value", "attention.out_proj")) == 1


def test_learned_queries_are_read_by_a_layer():
    """A parameter times a parameter: one of both is the weight."""
    model = two(lambda n, x: n.last(n.first(n.queries).relu()), queries=weight(2, 5))
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert free(quiver)["first.weight"] == 1
    assert "queries" in quiver.scaled


def test_a_view_that_no_function_made_is_not_taken_for_a_constant():
    model = two(lambda n, x: n.last((h := n.first(x)) + torch.from_dlpack(h.detach()).tanh()))
    difference, _ = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9


def test_a_key_carries_its_querys_inverse():
    torch.manual_seed(0)
    model = nn.MultiheadAttention(4, 2).double().eval()
    x = torch.randn(3, 1, 4).double()
    quiver = quiver_of(model, x, x, x)
    query, key, value = quiver.channel_classes["in_proj_weight"].chunk(3)
    assert torch.equal(quiver.inverse[query], key)
    assert torch.equal(quiver.inverse[key], query)
    assert quiver.inverse[value].tolist() == [-1] * 4
    assert len({*query.tolist(), *key.tolist(), *value.tolist()}) == 12


def test_a_site_is_counted_among_all_calls_of_its_function():
    model = two(lambda n, x: n.last(torch.tanh(n.first(torch.tanh(x)))))
    quiver = quiver_of(model, torch.randn(6, 5).double(), in_place=False)
    (site,) = quiver.sites
    assert (site.call, site.function, site.homogeneous) == (1, torch.tanh, False)
    assert site.classes.tolist() == [quiver.channel_classes["first.weight"].tolist()]


def test_a_shift_by_padding_moves_the_channels():
    model = two(lambda n, x: n.last(F.pad(n.first(x), (1, -1)).relu()))
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert torch.equal(quiver.scaled["last.weight"].input_class[0, 1:], quiver.channel_classes["first.weight"][:3])


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "zeros"])
def test_padded_convolutions(mode):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 2),
    ).double()  # fmt: skip
    difference, quiver = error(model, torch.randn(2, 2, 6, 6).double())
    assert difference < 1e-9
    assert free(quiver)["0.weight"] == free(quiver)["2.weight"] == 1


def test_a_recurrent_layer_stays():
    model = two(lambda n, x: n.last(n.memory(n.first(x))[0]), memory=nn.LSTM(4, 4))
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert "lstm" in quiver.reasons["first.weight"]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_gradient_mode_shows_the_same(context):
    model, x = two(lambda n, x: n.last(n.first(x).relu())), torch.randn(6, 5).double()
    with context():
        quiver = quiver_of(model, x)
    assert set(quiver.scaled) == {"first.weight", "first.bias", "last.weight"}


def test_bfloat16():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 3)).bfloat16()
    difference, quiver = error(model, torch.randn(6, 5).bfloat16())
    assert difference < 0.05
    assert free(quiver)["0.weight"] == 1


def test_a_registered_rule_frees_channels(monkeypatch):
    """``register_rule`` for a torch function without a rule; its constraints hold along any axis."""
    own = (torch.cumsum, Tensor.cumsum)  # as if they had none
    monkeypatch.setattr(table, "RULES", {func: rule for func, rule in table.RULES.items() if func not in own})

    def forward(axis: int) -> Any:
        return lambda n, x: n.last(torch.cumsum(n.first(x), axis))

    x = torch.randn(6, 5).double()
    assert torch.cumsum not in table.RULES
    assert free(quiver_of(two(forward(0)), x))["first.weight"] == 0

    @register_rule(torch.cumsum, Tensor.cumsum)
    def cumsum_rule(call: Any, input: Tensor, dim: int) -> Tensor:
        kept = [axis for axis in range(input.dim()) if axis != dim % input.dim()]
        return call.along(call.scale_index(input), *kept).expand(input.shape)

    assert table.RULES[Tensor.cumsum] is cumsum_rule
    for axis, classes in ((0, 4), (-1, 1)):
        difference, quiver = error(two(forward(axis)), x)
        assert difference < 1e-9
        assert free(quiver)["first.weight"] == 1
        assert len(quiver.channel_classes["first.weight"].unique()) == classes
