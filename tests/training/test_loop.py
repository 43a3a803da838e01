import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn

from ka2er_training.loop import train
from ka2er_training.schedule import Schedule, Work
from napari_ka2er.core.errors import CancelledError, UserError

SCHEDULE = Schedule(steps=8, batch=4, learning_rate=1e-2, warm_up=2, checkpoint_every=2)


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def draw(step, generator):
    x = torch.from_numpy(generator.normal(size=(1, 3))).float()
    return x, x.sum(dim=1, keepdim=True)


def loss(model, sample, step):
    x, y = sample
    noisy = x + 0.1 * torch.randn_like(x)  # torch's own randomness must resume too
    return {"loss": (model(noisy) - y).square().mean()}


WORK = Work(draw=draw, loss=loss)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_learns(tmp_path):
    train(network(), WORK, Schedule(steps=200, batch=4, learning_rate=2e-2), tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "scalars.jsonl").open()]
    assert len(losses) == 200
    assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:20])


@pytest.mark.parametrize("stop_after", [2, 3, 7])
def test_a_broken_run_resumes_with_the_same_numbers(tmp_path, stop_after):
    whole = train(network(), WORK, SCHEDULE, tmp_path / "whole")
    asked = iter(range(1, 100))
    with pytest.raises(CancelledError, match="--resume"):
        train(
            network(), WORK, SCHEDULE, tmp_path / "cut", cancelled=lambda: next(asked) == stop_after
        )
    resumed = train(network(), WORK, SCHEDULE, tmp_path / "cut", resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    logs = [(tmp_path / name / "scalars.jsonl").read_text("utf-8") for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_killed_run_resumes_from_its_last_checkpoint(tmp_path):
    class Killed(RuntimeError): ...

    def kill(done, text):
        if done == 5 / 8:
            raise Killed

    whole = train(network(), WORK, SCHEDULE, tmp_path / "whole")
    with pytest.raises(Killed):
        train(network(), WORK, SCHEDULE, tmp_path / "cut", progress=kill)
    resumed = train(network(), WORK, SCHEDULE, tmp_path / "cut", resume=True)
    assert torch.equal(weights(whole), weights(resumed))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(network(), WORK, SCHEDULE, tmp_path)
    with pytest.raises(UserError, match="without --resume"):
        train(nn.Linear(3, 1), WORK, SCHEDULE, tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"no zip", pickle.dumps([1]), "list"])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save([1, 2], path) if content == "list" else path.write_bytes(content)
    with pytest.raises(UserError, match="without --resume") as refused:
        train(network(), WORK, SCHEDULE, tmp_path, resume=True)
    assert "\n" not in f"{refused.value}"


def test_a_full_disk_ends_the_training_and_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    train(network(), WORK, dataclasses.replace(SCHEDULE, steps=2), tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state, file):
        file.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="free space"):
        train(network(), WORK, SCHEDULE, tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def broken_from(first, last=10**9):
    def loss_of(model, sample, step):
        terms = loss(model, sample, step)
        return {"loss": terms["loss"] * (float("nan") if first <= step <= last else 1.0)}

    return Work(draw=draw, loss=loss_of)


def test_late_parameters_wait_and_then_learn(tmp_path):
    work = dataclasses.replace(WORK, late={"0": 0.5})
    start = network().state_dict()
    for steps, waits in ((4, True), (5, False)):  # of 8
        asked = iter(range(1, 100))
        model = network()
        with pytest.raises(CancelledError):
            train(
                model, work, SCHEDULE, tmp_path / f"{steps}",
                cancelled=lambda: next(asked) == steps,  # noqa: B023
            )  # fmt: skip
        assert torch.equal(model[0].weight, start["0.weight"]) == waits
        assert not torch.equal(model[2].weight, start["2.weight"])


def test_a_step_without_a_finite_gradient_is_left_out(tmp_path):
    trained = train(network(), broken_from(3, 3), SCHEDULE, tmp_path)
    assert torch.isfinite(weights(trained)).all()
    lines = [json.loads(line) for line in (tmp_path / "scalars.jsonl").open()]
    assert [line["loss"] is None for line in lines] == [False] * 3 + [True] + [False] * 4


def test_training_stops_where_gradients_stay_infinite_and_keeps_finite_weights(tmp_path):
    schedule = dataclasses.replace(SCHEDULE, steps=40)
    with pytest.raises(UserError, match="6 steps in a row"):
        train(network(), broken_from(3), schedule, tmp_path)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(t).all() for t in kept["network"].values())


def test_a_resumed_run_remembers_how_many_steps_in_a_row_were_left_out(tmp_path):
    asked = iter(range(1, 100))
    with pytest.raises(CancelledError):  # after steps 1, 2 and 3
        train(network(), broken_from(1), SCHEDULE, tmp_path, cancelled=lambda: next(asked) == 4)
    with pytest.raises(UserError, match="6 steps in a row without, up to step 6"):
        train(network(), broken_from(1), SCHEDULE, tmp_path, resume=True)


def test_frozen_parameters_stay(tmp_path):
    model = network()
    before = model[0].weight.clone()
    train(model, Work(draw=draw, loss=loss, frozen=("0.",)), SCHEDULE, tmp_path)
    assert torch.equal(model[0].weight, before)
    assert not torch.equal(model[2].weight, network()[2].weight)


def _one_of_two(rank, folder, schedule):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    averaged = train(network(), WORK, schedule, folder / "two")
    if rank == 0:
        torch.save(weights(averaged), folder / "two.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize(("batch", "windows"), [(4, 4), (1, 2)])
def test_two_processes_agree_with_one_on_all_their_windows(tmp_path, batch, windows):
    """A batch of 1 used to leave the second process without a window, and the first waiting."""
    schedule = dataclasses.replace(SCHEDULE, batch=batch)
    multiprocessing.spawn(_one_of_two, (tmp_path, schedule), nprocs=2)
    alone = dataclasses.replace(SCHEDULE, batch=windows)
    one = train(network(), WORK, alone, tmp_path / "one")
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    torch.testing.assert_close(weights(one), two, rtol=1e-5, atol=1e-6)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "scalars.jsonl").open()]
        for name in ("one", "two")
    ]
    assert logs[1] == [pytest.approx(line, rel=1e-4) for line in logs[0]]
