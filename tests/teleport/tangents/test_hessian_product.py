"""Products of the Hessian by tangents against the graph of a gradient, on models nobody here wrote; what has none."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from teleport import LevelSet, NullSpace, RandomNullSpace
from teleport._tangents.attention import AttentionByHeads
from teleport._tangents.dual import NoTangent
from teleport._tangents.product import hessian_product
from tests.teleport.vision import torchvision

TOKENS = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))
SMALL = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(autouse=True)
def mathematical_attention():
    """Attention with a second derivative, as in an event."""
    torch.manual_seed(0)
    with sdpa_kernel(SDPBackend.MATH):
        yield


class Convolutional(nn.Module):
    """Grouped convolutions with norms and writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.groups = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.GroupNorm(2, 8)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(32, 10)

    def forward(self, x):
        x = self.relu(self.norm(self.first(x)))
        mixed = self.groups(self.second(x))
        mixed += x
        return self.head(F.max_pool2d(self.relu(mixed), 4).flatten(1))


class Tied(nn.Module):
    """An embedding that is the head, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.embedding(tokens)).flatten(0, 1)


class Recurrent(nn.Module):
    """The last output of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def classified(model, shape, classes=10):
    x, y = torch.randn(shape, dtype=torch.float64), torch.randint(0, classes, shape[:1])
    return model, lambda: F.cross_entropy(model(x), y)


def activations():
    layers = [nn.SiLU(), nn.Softplus(), nn.Mish(), nn.GELU(), nn.Tanh(), nn.ELU(), nn.LayerNorm(6)]
    inner = [each for layer in layers for each in (nn.Linear(6, 6), layer)]
    return classified(nn.Sequential(*inner, nn.Linear(6, 10)), (5, 6))


def tied():
    model = Tied()
    return model, lambda: F.cross_entropy(model(TOKENS), TOKENS.flatten())


def encoder():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2), torch.randn(3, 5, 16, dtype=torch.float64)
    return model, lambda: model(x).square().mean()


def of_transformers(kind, **given):
    """A language model of the library transformers on random tokens."""
    torchvision()  # transformers imports it if it is installed
    transformers = pytest.importorskip("transformers")
    if kind == "GPT2":
        config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16)
        model = transformers.GPT2LMHeadModel(config)
    elif kind == "Llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, num_key_value_heads=2))
    else:
        model = transformers.BertForMaskedLM(transformers.BertConfig(**SMALL))
    return model, lambda: model(input_ids=TOKENS, labels=TOKENS, **given).loss


PADDED = torch.ones(2, 9, dtype=torch.long)
PADDED[0, 6:] = 0

CASES = {
    "convolutional": lambda: classified(Convolutional(), (3, 3, 8, 8)),
    "recurrent": lambda: classified(Recurrent(), (3, 5, 4)),
    "activations": activations,
    "tied": tied,
    "encoder": encoder,
    "GPT-2": lambda: of_transformers("GPT2"),
    "Llama": lambda: of_transformers("Llama"),
    "BERT": lambda: of_transformers("BERT", attention_mask=PADDED),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_derivative_of_the_gradient(name):
    """To 1e-6 of its length, as some models compute norms in single precision; all parameters are put back."""
    model, evaluate = CASES[name]()
    model.eval().double()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(
        evaluate(), parameters, create_graph=True, allow_unused=True, materialize_grads=True
    )
    half = sum((each**2).sum() for each in gradients) / 2
    expected = torch.autograd.grad(half, parameters, allow_unused=True, materialize_grads=True)
    given = [each.detach().clone() for each in gradients]
    with AttentionByHeads():
        found = hessian_product(model, evaluate, parameters, given, parameters)
    length = sum(float((each**2).sum()) for each in expected) ** 0.5
    assert given == []
    assert sum(float(((a - b) ** 2).sum()) for a, b in zip(found, expected, strict=True)) ** 0.5 < 1e-6 * length
    assert all(type(each) is torch.Tensor for each in found)
    assert [id(each) for each in model.parameters()] == [id(each) for each in parameters]


class StraightThrough(nn.Module):
    """Rounds forward and passes the gradient through: its graph is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 10)

    def forward(self, x):
        hidden = self.first(x)
        return self.second(hidden + (hidden.round() - hidden).detach())


class Cut(StraightThrough):
    """Divides by a spread that counts as a constant."""

    def forward(self, x):
        hidden = self.first(x)
        with torch.no_grad():
            spread = hidden.std()
        return self.second(hidden / spread)


class Converted(StraightThrough):
    """Leaves torch on its way."""

    def forward(self, x):
        hidden = self.first(x)
        return self.second(hidden + float(hidden.detach().numpy().mean()))


@pytest.mark.parametrize("kind", [StraightThrough, Cut, Converted])
def test_a_graph_that_is_cut_has_none_and_its_event_takes_a_graph(kind, monkeypatch):
    """A teleport in which the product is refused equals one that never tried."""
    model, evaluate = classified(kind(), (3, 4))
    model.double()
    parameters = list(model.parameters())
    with pytest.raises(NoTangent):
        hessian_product(model, evaluate, parameters, list(torch.autograd.grad(evaluate(), parameters)), parameters)
    assert [id(each) for each in model.parameters()] == [id(each) for each in parameters]
    whole, tried = copy.deepcopy(model), copy.deepcopy(model)
    batch = torch.randn(3, 4, dtype=torch.float64), torch.randint(0, 10, (3,))
    NullSpace(steps=2, forward="each")(whole, [batch], cross_entropy)
    monkeypatch.setattr("teleport._segments.choice.LARGE", 0)
    report = NullSpace(steps=2)(tried, [batch], cross_entropy)
    assert (report.steps, report.memory) == (2, "")
    assert largest_difference(whole, tried) < 1e-12


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def largest_difference(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize(
    "method",
    [
        NullSpace(steps=3),
        NullSpace(steps=2, step="fixed", relative_cap=None, cap=50.0),
        NullSpace(steps=2, threshold=0.99, guard="none"),
        RandomNullSpace(),
        LevelSet(steps=3),
    ],
    ids=str,
)
def test_an_event_of_a_large_model_ends_where_one_with_a_graph_does(method, monkeypatch):
    """Each method that takes gradients and products alone, on a transformer with attention."""
    model = transformer().double()
    batches = [(torch.randn(3, 5, 8).double(), torch.randint(0, 10, (3,))) for _ in range(2)]
    whole, tangents = copy.deepcopy(model), copy.deepcopy(model)
    expected = method(whole, batches, cross_entropy, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("teleport._segments.choice.LARGE", 0)
    report = method(tangents, batches, cross_entropy, generator=torch.Generator().manual_seed(0))
    assert report.memory == "products of the Hessian by tangents, without a graph of a gradient"
    assert report.steps == expected.steps > 0
    assert report.loss_after == pytest.approx(expected.loss_after, rel=1e-10)
    assert report.gradient_norm_after == pytest.approx(expected.gradient_norm_after, rel=1e-8)
    assert largest_difference(whole, tangents) < 1e-8


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=F.gelu)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 10))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_event_within_autocast_takes_tangents(dtype, monkeypatch):
    """It raises the gradient norm, which is rounded alike with a graph."""
    batch, ends = (torch.randn(3, 5, 8), torch.randint(0, 10, (3,))), []
    given = transformer()
    for large in (1 << 40, 0):
        monkeypatch.setattr("teleport._segments.choice.LARGE", large)
        model = copy.deepcopy(given)
        with torch.autocast("cpu", dtype):
            report = NullSpace(steps=2)(model, [batch], cross_entropy)
        assert ("tangents" in report.memory) == (large == 0)
        ends.append(report)
    assert all(report.steps == 2 for report in ends)
    assert ends[1].gradient_norm_before == pytest.approx(ends[0].gradient_norm_before, rel=1e-2)
    assert ends[1].gradient_norm_after == pytest.approx(ends[0].gradient_norm_after, rel=2e-2)
    assert ends[1].gradient_norm_after > 1.2 * ends[1].gradient_norm_before


def test_an_interrupt_puts_the_parameters_back():
    model, evaluate = classified(nn.Linear(4, 10), (3, 4))
    model.double()
    parameters = list(model.parameters())

    def interrupted():
        evaluate()
        assert not any(each is parameters[0] for each in model.parameters())
        raise KeyboardInterrupt

    gradients = list(torch.autograd.grad(evaluate(), parameters))
    with pytest.raises(KeyboardInterrupt):
        hessian_product(model, interrupted, parameters, gradients, parameters)
    assert [id(each) for each in model.parameters()] == [id(each) for each in parameters]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.rand(7, 6, generator=torch.Generator().manual_seed(1)) > 0.4},
        {"attn_mask": torch.randn(2, 1, 7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)},
        {"attn_mask": torch.arange(6) < torch.arange(7)[:, None]},  # the first query sees nothing
        {"enable_gqa": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("products", [1, 20, 10_000])
def test_attention_by_heads_is_attention(given, products, monkeypatch):
    """Values and gradients, with few and many products at a time."""
    monkeypatch.setattr("teleport._tangents.attention.PRODUCTS", products)
    heads = 2 if given.get("enable_gqa") else 4
    shapes = [(2, 4, 7, 3), (2, heads, 6, 3), (2, heads, 6, 5)]
    made = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    along = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(*made, **given)
    with AttentionByHeads():
        found = F.scaled_dot_product_attention(*made, **given)
    assert "Attention" in str(found.grad_fn)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found, made, along), torch.autograd.grad(expected, made, along), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
