"""The callback for the Trainer of transformers, and teleports under Accelerate, with the real packages."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from teleport import NullSpace, Rescaling, transport_state
from tests.teleport.vision import torchvision

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def transformers():
    torchvision()
    pytest.importorskip("accelerate")
    return pytest.importorskip("transformers")


def counting():
    """Sequences that count up from a number, modulo 20, in the order of the set."""
    tokens = [(torch.arange(8) + 3 * index) % 20 for index in range(48)]
    return [{"input_ids": each, "labels": each} for each in tokens]


def gpt2(transformers):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=96, n_layer=1, n_head=2, attn_implementation="eager",
        bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def trained(transformers, folder, *callbacks, **options):
    """The model after two epochs, and the inputs of each step."""
    model, seen = gpt2(transformers), []

    class Trainer(transformers.Trainer):
        def compute_loss(self, model, inputs, *arguments, **keywords):
            seen.append(inputs["input_ids"].clone())
            return super().compute_loss(model, inputs, *arguments, **keywords)

    settings = transformers.TrainingArguments(
        str(folder), num_train_epochs=2, per_device_train_batch_size=8, learning_rate=1e-3,
        lr_scheduler_type="constant", report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no",
        logging_strategy="no", **options,
    )  # fmt: skip
    Trainer(model, settings, train_dataset=counting(), callbacks=list(callbacks)).train()
    return model, seen


def test_the_trainer_sees_the_same_batches_and_the_event_is_that_of_a_call(transformers, tmp_path):
    from teleport.integrations.transformers import TeleportCallback, own_loss

    _, without = trained(transformers, tmp_path)
    callback = TeleportCallback(NullSpace(), [0, 1], batches=2)
    _, seen = trained(transformers, tmp_path, callback)
    assert [torch.equal(one, other) for one, other in zip(without, seen, strict=True)] == [True] * 12
    by_hand = NullSpace()(gpt2(transformers), [{"input_ids": each, "labels": each} for each in seen[:2]], own_loss)
    assert list(callback.reports) == [0, 1]
    first = callback.reports[0]
    assert first.steps == by_hand.steps > 0
    assert first.gradient_norm_after == pytest.approx(by_hand.gradient_norm_after, rel=1e-5)  # processors round apart
    assert first.gradient_norm_after > 1.5 * first.gradient_norm_before


def test_mixed_precision_goes_on_after_an_event_in_that_of_the_parameters(transformers, tmp_path):
    from teleport.integrations.transformers import TeleportCallback

    callback, kinds = TeleportCallback(NullSpace(), [1]), []

    class Told(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            with torch.no_grad():  # through the forward pass that the training has
                hook = model.lm_head.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
                model(input_ids=counting()[0]["input_ids"][None])
                hook.remove()

    trained(transformers, tmp_path, callback, Told(), bf16=True)
    assert kinds == [torch.bfloat16] * 12
    assert callback.reports[1].steps > 0
    assert callback.reports[1].loss_after == pytest.approx(callback.reports[1].loss_before, rel=1e-5)


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))


def loop(model, optimizer, loader, before, backward=torch.Tensor.backward):
    for epoch in range(3):
        before(epoch)
        for batch in loader:
            optimizer.zero_grad()
            backward(cross_entropy(model, batch))
            optimizer.step()


@pytest.mark.parametrize("method", [NullSpace, Rescaling])
def test_a_loop_under_accelerate_is_the_plain_one(transformers, method):
    import accelerate
    from accelerate.state import AcceleratorState

    from teleport.integrations.accelerate import Teleports

    draws = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(96, 6, generator=draws), torch.randint(3, (96,), generator=draws))
    rule = "transported" if method is Rescaling else "keep"
    batches = [data[rows] for rows in torch.arange(96).split(16)]
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def by_hand(epoch):
        if epoch in (0, 2):
            report = method()(model, batches[:2], cross_entropy)
            if rule == "transported":
                transport_state(optimizer, report)

    loop(model, optimizer, batches, by_hand)

    AcceleratorState._reset_state(reset_partial_state=True)  # shared by all of a process, with its precision
    accelerator = accelerate.Accelerator(cpu=True)
    own = mlp()
    prepared = accelerator.prepare(
        own, torch.optim.SGD(own.parameters(), lr=0.05, momentum=0.9), DataLoader(data, batch_size=16)
    )
    teleports = Teleports(method(), cross_entropy, [0, 2], batches=2, optimizer_state=rule)
    loop(
        *prepared,
        lambda epoch: teleports.before_epoch(epoch, prepared[0], prepared[2], prepared[1]),
        accelerator.backward,
    )
    assert list(teleports.reports) == [0, 2]
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), model.parameters(), strict=True))
    assert accelerator.gradient_state.active_dataloader is None


def test_settings_are_checked(transformers):
    from teleport.integrations.accelerate import Teleports

    for wrong, kind, sentence in (
        ({"epochs": [-1]}, ValueError, "epochs must not be negative, got -1"),
        ({"epochs": [0.5]}, TypeError, "epochs must be a whole number, got 0.5"),
        ({"batches": 0}, ValueError, "batches must be at least 1, got 0"),
        ({"optimizer_state": "keeps"}, ValueError, "must be one of keep, reset, transported, got 'keeps'"),
    ):
        with pytest.raises(kind, match=sentence):
            Teleports(NullSpace(), cross_entropy, **wrong)
