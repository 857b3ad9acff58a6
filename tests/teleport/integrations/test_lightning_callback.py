"""The callback for Lightning, with its real Trainer, against loops written out here."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
import torch

from teleport import NullSpace, Rescaling, transport_state
from tests.commands import finished
from tests.teleport.vision import torchvision

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def own():
    """The models of this test; a CPU build of torch cannot import torchvision as it is, and Lightning imports it."""
    torchvision()
    pytest.importorskip("lightning")
    from tests.teleport.integrations import lightning_models

    return lightning_models


@pytest.fixture(scope="module")
def teleports(own):
    """The callback's class."""
    from teleport.integrations.lightning import TeleportCallback

    return TeleportCallback


def by_hand(own, event, epochs):
    """The training of :func:`lightning_models.fit`, with ``event`` before each of ``epochs``."""
    model = own.module()
    optimizer = model.configure_optimizers()
    batches = [own.data()[rows] for rows in torch.arange(96).split(16)]
    for epoch in range(3):
        if epoch in epochs:
            event(model, optimizer, batches)
        for batch in batches:
            optimizer.zero_grad()
            own.cross_entropy(model, batch).backward()
            optimizer.step()
    return model


def assert_equal(model, other):
    for parameter, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, expected)


@pytest.mark.parametrize("rule", ["keep", "reset"])
def test_the_training_is_that_of_a_loop_with_teleports(own, teleports, rule):
    def event(model, optimizer, batches):
        NullSpace()(model, batches[:2], own.cross_entropy)
        if rule == "reset":
            optimizer.state.clear()

    callback = teleports(NullSpace(), own.cross_entropy, [0, 2], batches=2, optimizer_state=rule)
    assert_equal(own.fit(own.module(), callback), by_hand(own, event, {0, 2}))
    assert list(callback.reports) == [0, 2]
    assert all(report.steps > 0 for report in callback.reports.values())


def test_momentum_is_carried_through_factors(own, teleports):
    def event(model, optimizer, batches):
        transport_state(optimizer, Rescaling()(model, batches[:1], own.cross_entropy))

    callback = teleports(Rescaling(), own.cross_entropy, [1], optimizer_state="transported")
    assert_equal(own.fit(own.module(), callback), by_hand(own, event, {1}))
    assert callback.reports[1].group


def test_the_training_sees_the_batches_that_it_would_see_without(own, teleports):
    plain = own.fit(own.module(), shuffle=True)
    callback = teleports(NullSpace(), own.cross_entropy, [0, 1], batches=3)
    assert torch.equal(torch.stack(own.fit(own.module(), callback, shuffle=True).seen), torch.stack(plain.seen))


def test_mixed_precision_goes_on_and_the_event_is_in_that_of_the_parameters(own, teleports):
    callback = teleports(NullSpace(), own.cross_entropy, [1])
    model = own.fit(own.module(), callback, precision="bf16-mixed")
    assert set(model.dtypes) == {torch.bfloat16}
    assert callback.reports[1].loss_after == pytest.approx(callback.reports[1].loss_before, rel=1e-5)


def test_several_loaders_are_refused(own, teleports):
    class Several(own.Classifier):
        def train_dataloader(self):
            return {name: own.DataLoader(own.data(), batch_size=16) for name in ("one", "other")}

    trainer = own.lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[teleports(NullSpace(), own.cross_entropy)],
    )  # fmt: skip
    with pytest.raises(TypeError, match="takes batches of one loader, and this training has 2"):
        trainer.fit(Several())


TWO = """
    import sys
    sys.path.insert(0, sys.argv[1])
    devices, folder = int(sys.argv[2]), sys.argv[3]
    from tests.teleport.vision import torchvision
    torchvision()
    from tests.teleport.integrations.lightning_models import *
    from teleport import NullSpace
    from teleport.integrations.lightning import TeleportCallback

    class Parted(Classifier):  # each process has its part of each batch
        def train_dataloader(self):
            size = 32 // self.trainer.world_size
            part = slice(self.trainer.global_rank * size, (self.trainer.global_rank + 1) * size)
            whole = [data()[rows] for rows in torch.arange(96).split(32)]
            return DataLoader([(inputs[part].double(), targets[part]) for inputs, targets in whole], batch_size=None)

    if __name__ == "__main__":
        torch.set_num_threads(1)
        torch.manual_seed(1)
        model, callback = Parted().double(), TeleportCallback(NullSpace(), cross_entropy, [0, 1])
        options = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[callback], precision="64-true", use_distributed_sampler=False,
            **options,
        )
        trainer.fit(model)
        assert [report.steps > 0 for report in callback.reports.values()] == [True, True]
        torch.save([each.detach() for each in model.parameters()], f"{folder}/{devices}-{trainer.global_rank}.pt")
"""


def test_two_processes_end_as_one_with_the_whole_batches(own, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TWO))
    for devices in (1, 2):
        done = finished([sys.executable, script, ROOT, devices, tmp_path], cwd=ROOT)
        assert done.returncode == 0, done.stderr
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for alone, left, right in zip(one, first, second, strict=True):
        assert torch.equal(left, right)
        assert torch.allclose(left, alone, rtol=1e-9, atol=1e-11)
