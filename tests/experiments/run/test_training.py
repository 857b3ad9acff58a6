"""The loop, on small real runs."""

from __future__ import annotations

import itertools
import json
import logging

import numpy as np
import pytest
import torch
from torch import nn

from experiments.configuration.validate import resolve
from experiments.data.registry import build_task
from experiments.errors import UserError
from experiments.models.registry import build_model
from experiments.run import checkpoints
from experiments.run.make_run import make_run
from experiments.run.runs import load_table
from experiments.run.seeding import Stream, generator
from experiments.run.teleporting import Teleports
from tests.experiments.small import SMALL_TELEPORT, composed, custom, small


def parameters(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def curve(folder):
    return load_table(folder, "curve").drop(columns="seconds")


def test_the_first_row_is_before_any_step_and_the_last_at_the_end(tmp_path):
    rows = load_table(make_run(small(tmp_path)), "curve")
    assert rows.step.tolist() == [0, 10, 20]  # 300 samples in batches of 32, the last one of 12
    assert rows.epoch.tolist() == [0.0, 1.0, 2.0]
    assert rows.seconds[0] == 0
    assert rows.seconds.is_monotonic_increasing
    assert rows.train_loss.is_monotonic_decreasing


def test_it_computes_what_plain_sgd_computes(tmp_path):
    """An independent loop over the same permutations, written out."""
    config = resolve(small(tmp_path, "seed=5"))
    trained = parameters(make_run(config))
    task = build_task(config.data, torch.device("cpu"))
    torch.manual_seed(5)
    model = build_model(config.model, task.spec)
    for epoch in range(2):
        order = torch.randperm(300, generator=generator(5, Stream.ORDER, epoch))
        assert sorted(order.tolist()) == list(range(300))
        for start in range(0, 300, 32):
            inputs, targets = task.train.batch(order[start : start + 32])
            loss = nn.functional.cross_entropy(model(inputs), targets)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= config.optimizer.lr * gradient
    torch.testing.assert_close(dict(model.state_dict()), dict(trained), rtol=0, atol=1e-6)


def test_same_seed_same_numbers_other_seed_others(tmp_path):
    first, again = (make_run(small(tmp_path / name)) for name in ("a", "b"))
    other = make_run(small(tmp_path / "a", "seed=1"))
    assert same(parameters(first), parameters(again))
    assert curve(first).equals(curve(again))
    assert not same(parameters(first), parameters(other))


def test_a_teleport_of_no_steps_is_bit_identical_to_none(tmp_path):
    none = make_run(small(tmp_path))
    still = make_run(small(tmp_path, *SMALL_TELEPORT[:-1], "teleport.steps=0"))
    assert same(parameters(none), parameters(still))
    assert curve(none).equals(curve(still))
    assert load_table(still, "teleport_events").no_op.tolist() == [True, True]


def test_a_teleport_moves_and_is_told(tmp_path):
    folder = make_run(small(tmp_path, *SMALL_TELEPORT))
    events, layers = load_table(folder, "teleport_events"), load_table(folder, "teleport_layers")
    assert events.step.tolist() == [0, 10]
    assert events.event.tolist() == [0, 1]
    assert not events.no_op.any()
    assert (layers.groupby("event").relative_change.max() > 1e-6).all()
    before = load_table(folder, "curve")
    assert events.train_loss_before.tolist() == before.train_loss[:2].tolist()
    assert (events.train_loss_after != events.train_loss_before).all()
    assert len(load_table(folder, "teleports")) == 4
    assert not same(parameters(folder), parameters(make_run(small(tmp_path))))


def test_max_steps_ends_early_with_an_evaluation(tmp_path):
    rows = load_table(make_run(small(tmp_path, "training.max_steps=7", "training.eval_every=3")), "curve")
    assert rows.step.tolist() == [0, 3, 6, 7]


def test_training_batches_do_not_depend_on_teleports_or_evaluations(tmp_path):
    """Dropout draws from the global generator; nothing else may."""
    plain = make_run(custom(tmp_path, "with_dropout"))
    watched = make_run(
        custom(tmp_path, "with_dropout", "training.eval_every=1", *SMALL_TELEPORT[:-1], "teleport.steps=0")
    )
    assert same(parameters(plain), parameters(watched))


def test_a_loss_that_is_not_finite_ends_the_run_as_a_finding(tmp_path):
    folder = make_run(custom(tmp_path, "breaks", "training.epochs=5"))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["diverged"] is True
    assert summary["diverged_step"] == 4
    assert load_table(folder, "curve").step.tolist() == [0, 10]  # noticed at the next look, not after five epochs
    assert (folder / "curve.png").stat().st_size > 0


def test_the_rate_falls_on_a_plateau(tmp_path):
    """At a rate of nothing the loss stays: 10 evaluations are waited for, the 12th starts at half the rate."""
    rows = load_table(
        make_run(small(tmp_path, "training.plateau.factor=0.5", "optimizer.lr=1e-6", "training.epochs=13")), "curve"
    )
    assert rows.lr.tolist() == [1e-6] * 13 + [5e-7]


def test_the_rate_rises_linearly_over_a_warm_up(tmp_path):
    """On x^2 + 9 y^2 a step at the rate r multiplies x by 1 - 2 r and y by 1 - 18 r."""
    config = composed("experiment=symmetry/ellipse", "teleport=none", "training.lr_warmup_steps=4")
    config.machine.runs = str(tmp_path)
    folder = make_run(config)
    rates = np.minimum(np.arange(1, 11) / 4, 1) * 0.08
    places = load_table(folder, "positions").pivot(index="step", columns="coordinate", values="value").to_numpy()
    expected = [[8, -2], *(np.cumprod(1 - np.outer(rates, [2, 18]), axis=0) * [8, -2])]
    np.testing.assert_allclose(places, expected, rtol=1e-5, atol=1e-6)
    assert load_table(folder, "curve").lr.tolist()[1:] == pytest.approx(rates)


def test_reset_forgets_what_the_optimizer_remembers(tmp_path):
    for optimizer in ("momentum", "adagrad", "adam"):
        keep, reset = (
            make_run(small(tmp_path, f"optimizer={optimizer}", *SMALL_TELEPORT, f"teleport.optimizer_state={state}"))
            for state in ("keep", "reset")
        )
        first_epoch = curve(keep).iloc[:2]
        assert first_epoch.equals(curve(reset).iloc[:2])
        assert not same(parameters(keep), parameters(reset))


def test_a_transported_state_reaches_the_training(tmp_path):
    """Momentum after a rescaling is neither what it was nor forgotten, and without a rescaling nothing changes."""

    def made(state, bound):
        event = ["teleport=rescaling", "teleport.epochs=[1]", "teleport.batches=2", "teleport.samples=10"]
        options = [f"teleport.bound={bound}", "teleport.cap=null", f"teleport.optimizer_state={state}"]
        return parameters(make_run(small(tmp_path, "optimizer=momentum", *event, *options)))

    keep, reset, transported = (made(state, 1.0) for state in ("keep", "reset", "transported"))
    assert not same(keep, transported)
    assert not same(reset, transported)
    still = [made(state, 1e-30) for state in ("keep", "transported")]
    assert same(*still)


def test_constraint_batches_are_of_their_own(tmp_path):
    free = [*SMALL_TELEPORT, "teleport.guard=none"]  # the objective's own loss is not protected
    own = make_run(small(tmp_path, *free, "teleport.constraint_batches=2"))
    shared = make_run(small(tmp_path, *free))
    assert not same(parameters(own), parameters(shared))
    assert not load_table(own, "teleport_events").no_op.any()


def test_held_out_batches_are_of_their_own_and_steer_the_move(tmp_path, monkeypatch):
    """They are drawn anew for each event, and are neither the teleport's batches nor the constraint's."""
    drawn = []
    draw = Teleports._draw

    def told(self, stream, event, *rest):
        batches = draw(self, stream, event, *rest)
        drawn.append((stream.name, event, batches))
        return batches

    monkeypatch.setattr(Teleports, "_draw", told)
    straight = [*SMALL_TELEPORT, "teleport.lr_unit=relative", "teleport.lr=0.3"]
    held_out = make_run(small(tmp_path, *straight, "teleport.path=least_drift", "teleport.held_out_batches=3"))
    of_run = list(drawn)
    shortest = make_run(small(tmp_path, *straight, "teleport.path=shortest"))
    assert not same(parameters(held_out), parameters(shortest))
    assert not load_table(held_out, "teleport_events").no_op.any()
    own = {event: batches for name, event, batches in of_run if name == "HELD_OUT"}
    assert {event: len(batches) for event, batches in own.items()} == {0: 3, 1: 3}
    inputs = [batch[0] for _, _, batches in of_run for batch in batches]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(inputs, 2))


SYMMETRY = ["model.activation=leaky_relu", "teleport=symmetry", "teleport.epochs=[0,1]", "teleport.batches=2"]


@pytest.mark.parametrize("variant", ["2022", "2024", "corrected"])
def test_symmetry_teleports_are_recorded_with_their_residuals(tmp_path, variant):
    folder = make_run(
        small(tmp_path, *SYMMETRY, "teleport.samples=10", "teleport.lr=0.01", f"teleport.variant={variant}")
    )
    layers = load_table(folder, "teleport_layers")
    assert (layers.relative_change > 0).all()
    assert layers.residual.notna().tolist() == [True, False] * 2  # of the lower layer, an event
    # 10 samples of 64 dimensions: single precision, and in 2022 what its inverse leaves of second order
    assert layers.residual.max() < (1e-2 if variant == "2022" else 1e-4)


def test_a_model_that_a_method_cannot_teleport_is_refused_before_the_training(tmp_path):
    """The first event is after an epoch, and yet nothing was trained or written."""
    late = ["teleport.variant=corrected", "model.activation=tanh", "teleport.epochs=[1]"]
    with pytest.raises(UserError, match=r"teleport=symmetry does not go with model=mlp: .*tanh between") as caught:
        make_run(small(tmp_path, *SYMMETRY, *late))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_run_without_an_event_asks_nothing_of_the_model(tmp_path):
    never = ["teleport.variant=corrected", "model.activation=tanh", "teleport.epochs=[]"]
    assert same(
        parameters(make_run(small(tmp_path, *SYMMETRY, *never))), parameters(make_run(small(tmp_path, never[1])))
    )


@pytest.mark.parametrize(("epochs", "why"), [("[99]", "its first event is before step 990"), ("[]", "it has no event")])
def test_a_teleport_that_is_never_due_is_told_of(tmp_path, caplog, epochs, why):
    """Two epochs of ten steps."""
    caplog.set_level(logging.INFO, "experiments")
    folder = make_run(small(tmp_path, *SMALL_TELEPORT, f"teleport.epochs={epochs}"))
    assert f"note: the teleport is never due: {why}, and the run has 20 steps" in caplog.messages
    assert json.loads((folder / "summary.json").read_text())["never_due"] is True
    caplog.clear()
    due = make_run(small(tmp_path, *SMALL_TELEPORT, "teleport.epochs=[1,99]"))
    assert "never due" not in caplog.text
    assert "never_due" not in json.loads((due / "summary.json").read_text())


def test_a_teleport_between_two_looks_at_the_losses(tmp_path):
    """Steps 3 and 7 are neither the end of an epoch nor a multiple of anything that is looked at."""
    events = ["teleport=nullspace", "teleport.epochs=[]", "teleport.at_steps=[3,7]", "teleport.batches=1"]
    folder = make_run(small(tmp_path, *events, "teleport.samples=10", "teleport.steps=1"))
    assert load_table(folder, "teleport_events").step.tolist() == [3, 7]
    assert load_table(folder, "curve").step.tolist() == [0, 10, 20]
    summary = json.loads((folder / "summary.json").read_text())
    assert load_table(folder, "curve").seconds.iloc[-1] == summary["training_seconds"] + summary["teleport_seconds"]


CHANGES = ["model.activation=tanh", "teleport=change_of_basis", "teleport.epochs=[0,1]", "teleport.batches=1"]
REWRITTEN = [*CHANGES, "teleport.samples=10", "teleport.activations=teleport", "teleport.sampling=inter"]


def test_the_channels_of_a_change_of_basis_are_recorded_and_said(tmp_path, caplog):
    """Before a ReLU all 24 carry a factor of their own; the 10 that enter the loss carry 1."""
    caplog.set_level(logging.INFO, "experiments")
    folder = make_run(small(tmp_path, *CHANGES, "model.activation=relu", "teleport.epochs=[0]"))
    layers = load_table(folder, "teleport_layers").query("dimension > 0").set_index("layer")
    assert layers.loc["linear1.weight", ["free", "shared", "pinned"]].tolist() == [24, 0, 0]
    assert layers.loc["head.weight", ["free", "shared", "pinned"]].tolist() == [0, 0, 10]
    assert "cross_entropy" in layers.reason["head.weight"]
    assert "  channels: 24 free, 0 shared, 10 pinned: 10 because its output enters torch." in caplog.text
    plain = load_table(make_run(small(tmp_path, *SMALL_TELEPORT)), "teleport_layers")
    assert plain[["free", "shared", "pinned"]].isna().all(axis=None)  # no change of basis, no channels


def test_a_change_of_basis_keeps_what_the_training_has_reached(tmp_path):
    folder = make_run(small(tmp_path, *REWRITTEN))
    events = load_table(folder, "teleport_events")
    assert not events.no_op.any()
    assert events.train_loss_after.to_numpy() == pytest.approx(events.train_loss_before.to_numpy(), rel=1e-5)
    curve = load_table(folder, "curve")
    assert curve.train_loss.is_monotonic_decreasing  # the parameters that are trained are those of the rewritten model
    state = parameters(folder)
    assert {key.split(".")[0] for key in state} == {"module", "_extra_state"}
    assert state["_extra_state"]["calls"] == {"torch.tanh": 1}


def test_a_rewritten_model_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    """Stopped after the first epoch, with an optimizer's state that was transported twice."""
    options = [*REWRITTEN, "optimizer=momentum", "teleport.optimizer_state=transported"]
    whole = make_run(small(tmp_path / "whole", *options))
    save = checkpoints.save

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            make_run(small(tmp_path / "stopped", *options))
    stopped = make_run(small(tmp_path / "stopped", *options))
    one, other = parameters(whole), parameters(stopped)
    (first,), (second,) = (state.pop("_extra_state")["activations"] for state in (one, other))
    assert same(one, other)
    assert torch.equal(first["tau"], second["tau"])
    assert curve(whole).equals(curve(stopped))


def test_pseudo_teleports_are_as_long_and_keep_nothing(tmp_path):
    events = load_table(make_run(small(tmp_path, "teleport=pseudo_teleport", "teleport.batches=1")), "teleport_events")
    assert events.no_op.tolist() == [False]
    assert float(events.train_loss_after[0]) != pytest.approx(float(events.train_loss_before[0]), rel=1e-3)
