"""Several batches in a step, and several processes that train together: the same network comes out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studio.errors import InputError
from studio.training.data import make_shard
from studio.training.team import Team
from tests.training import test_training
from tests.training.test_training import STAGE_2, advance, generator, state_of, toy_trainer

LAUNCHED = Path(__file__).with_name("launched.py")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studio.training.data.SHARD", test_training.FACES)
        folder = tmp_path_factory.mktemp("cache")
        make_shard(generator(), 0, folder)
        yield folder


def differing(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_alone_a_step_is_a_batch():
    team = Team("cpu")
    assert team.leads and team.together == 1
    assert list(team.numbers(7)) == [7]
    assert team.agree(True) and not team.agree(False)


def test_numbers_go_on_from_process_to_process(monkeypatch):
    class Second:
        num_processes, process_index, is_main_process = 3, 1, False

    team = Team("cpu", 2)
    assert [list(team.numbers(step)) for step in range(2)] == [[0, 1], [2, 3]]
    monkeypatch.setattr(team, "accelerator", Second)
    assert [list(team.numbers(step)) for step in range(2)] == [[2, 3], [8, 9]]
    assert not team.leads and team.together == 6


@pytest.mark.parametrize("batches", [0, -1, 1.0, True, 2000])
def test_numbers_of_batches_that_are_none(batches):
    with pytest.raises(InputError, match="whole number from 1 to 1024"):
        Team("cpu", batches)


def test_a_step_of_two_batches_has_the_mean_gradient(cache, tmp_path):
    trainer = toy_trainer(cache, tmp_path / "a", accumulate=2, identity_weight=0.0)
    first, second = trainer.load(0)
    assert (first.number, second.number) == (0, 1)
    gradients = []
    for batch in (first, second):
        trainer.restorer.zero_grad()
        sum(trainer.losses(batch).values()).backward()
        gradients.append({name: one.grad.clone() for name, one in trainer.restorer.named_parameters()})
    trainer.preset = trainer.preset.__class__(**{**vars(trainer.preset), "learning_rate": 0.0})
    kept, torch.nn.utils.clip_grad_norm_ = torch.nn.utils.clip_grad_norm_, lambda *_: None
    try:
        trainer.update(first, second)
    finally:
        torch.nn.utils.clip_grad_norm_ = kept
    for name, one in trainer.restorer.named_parameters():
        torch.testing.assert_close(one.grad, (gradients[0][name] + gradients[1][name]) / 2, atol=1e-6, rtol=1e-4)
    assert (trainer.step, trainer.images) == (1, 4)


def test_accumulating_resumes_to_the_bit(cache, tmp_path):
    settings = {**STAGE_2, "adversarial_weight": 0.05, "images": 16, "accumulate": 2}
    straight = toy_trainer(cache, tmp_path / "straight", **settings)
    advance(straight, 3)
    first = toy_trainer(cache, tmp_path / "stopped", **settings)
    advance(first, 2)
    first.save()
    second = toy_trainer(cache, tmp_path / "stopped", **settings)
    second.resume()
    advance(second, 1)
    assert not differing(state_of(straight), state_of(second))
    with pytest.raises(InputError, match=r"must be 2 as in .*, got 1: resume with as many"):
        toy_trainer(cache, tmp_path / "stopped", **{**settings, "accumulate": 1}).resume()


def launch(cache, folder, how):
    """Two processes on the CPU, over gloo; what both had at the end."""
    folder.mkdir(exist_ok=True)
    # `accelerate launch` starts processes for GPUs, and for CPUs asks mpirun to; torchrun's are the same to accelerate.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(LAUNCHED), str(cache), str(folder), how]
    repository = LAUNCHED.parents[2]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, [load_file(folder / f"rank-{rank}.safetensors") for rank in range(2)]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_two_batches(cache, tmp_path):
    said, (first, second) = launch(cache, tmp_path / "two", "start")
    assert "rank 0 of 2: 4 steps, 16 images" in said and "rank 1 of 2: 4 steps, 16 images" in said
    assert not differing(first, second), "both hold the same network, and the same critic"
    alone = toy_trainer(cache, tmp_path / "alone", accumulate=2, images=16, adversarial_weight=0.05, **STAGE_2)
    before = {name: value.clone() for name, value in alone.restorer.state_dict().items()}
    alone.run()
    mine = state_of(alone)
    moved = max(float((mine[name] - before[name]).abs().max()) for name in before)
    apart = max(float((mine[name] - first[name]).abs().max()) for name in before)
    print(f"two processes: at most {apart:.1e} from one with two batches; training moved weights by {moved:.1e}")
    assert apart < 0.01 * moved

    # One process wrote the files; both go on from them, and nothing is lost by stopping.
    assert [path.name for path in (tmp_path / "two" / "training" / "samples").iterdir()] == ["0000016.png"]
    said, _ = launch(cache, tmp_path / "stopped", "stop")
    assert "rank 0 of 2: 1 steps, 4 images" in said and "rank 1 of 2: 1 steps, 4 images" in said
    state = json.loads((tmp_path / "stopped" / "training" / "checkpoint" / "state.json").read_text())
    assert (state["step"], state["batches"]) == (1, 2)
    said, resumed = launch(cache, tmp_path / "stopped", "resume")
    assert "rank 0 of 2: 4 steps, 16 images" in said
    assert not differing(first, resumed[0]) and not differing(second, resumed[1])
