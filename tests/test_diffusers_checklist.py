"""What somebody who knows diffusers tries first, asked of every pipeline: each must hold, or be refused in one line."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging

import studio
from pipelines import arc2face, edit, frontalize, generate, reenact, restore, upsample
from studio import images, weights
from studio.device import pick_device
from studio.errors import ImageError, InputError, StudioError
from studio.images import Photo
from studio.latents import identity_steps, inversion
from tests import tiny
from tests.contract import plain, same
from tests.faces.synthetic import head
from tests.pipelines import (
    test_arc2face,
    test_edit,
    test_frontalize,
    test_generate,
    test_reenact,
    test_restore,
    test_upsample,
)

REPOSITORY = Path(__file__).resolve().parent.parent
CASES = {
    "restore": (restore, test_restore.RestoreConfig, test_restore.Finder),
    "upsample": (upsample, test_upsample.UpsampleConfig, tiny.SureFinder),
    "generate": (generate, test_generate.GenerateConfig, tiny.SureFinder),
    "edit": (edit, test_edit.EditConfig, tiny.SureFinder),
    "frontalize": (frontalize, test_frontalize.FrontalizeConfig, tiny.SureFinder),
    "reenact": (reenact, test_reenact.ReenactConfig, test_reenact.Following),
    "arc2face": (arc2face, test_arc2face.Arc2FaceConfig, tiny.SureFinder),
}
ALL = list(CASES)
WITH_NOISE = ["generate", "arc2face"]  # one generator a picture
WITH_BATCHES = ["restore", "upsample", "edit", "frontalize"]


@pytest.fixture(autouse=True)
def finders(monkeypatch):
    for module, _, finder in CASES.values():
        monkeypatch.setattr(module, "FaceFinder", finder)
    mesh = torch.from_numpy(head((128, 140), 120.0)).float()
    for module in (identity_steps, inversion):  # as in test_frontalize: a mesh of random weights jumps
        monkeypatch.setattr(
            module,
            "trace_aligned",
            lambda finder, given: (mesh.expand(len(given), -1, -1), torch.ones(len(given))),
        )


class Case:
    """A pipeline by its name, as its own tests build and call it."""

    def __init__(self, name):
        self.name, (self.module, config, _) = name, CASES[name]
        self.config = config()

    def pipeline(self):
        built = self.config.pipeline()
        built.set_progress_bar_config(disable=True)
        return built

    def call(self, pipeline=None, **changes):
        return (pipeline or self.pipeline())(**{**self.config.inputs(), **changes})

    def with_steps(self):
        """Arguments that make it take steps of which the callback is told."""
        more = {"num_inference_steps": 3}
        steps = {"restore": {"reference": test_restore.photo(4)}, "edit": more, "frontalize": more}
        return steps.get(self.name, {})


def values(output):
    return plain(output, ("seconds", "inside"))  # the clock; what a prepared face holds beside its values


def pictures(output):
    """All pictures of an output, one after another."""
    found = output.frames if hasattr(output, "frames") else output.images
    return [one for part in found for one in (part if isinstance(part, list) else [part])]


# ---- loading


@pytest.mark.parametrize("name", ALL)
def test_a_component_is_replaced_by_keyword(name, tmp_path, monkeypatch):
    case = Case(name)
    built = case.pipeline()
    built.save_pretrained(tmp_path / "saved")
    mine = tiny.identity_net() if name != "restore" else built.identity
    loaded = type(built).from_pretrained(tmp_path / "saved", identity=mine)
    assert loaded.identity is mine
    parts = dict(built.components)
    monkeypatch.setattr(weights, "load", lambda wanted: pytest.fail(f"{wanted} is loaded, and was given"))
    known = type(built).known_names[0]
    if name != "arc2face":  # whose tokenizer comes from the Hub
        assert type(built).from_pretrained(known, **parts).identity is built.identity
    with pytest.raises(InputError, match="identity must be a IdentityNet, got FaceMesh"):
        type(built).from_pretrained(tmp_path / "saved", identity=tiny.face_mesh())
    with pytest.raises(TypeError, match="no_such_part"):
        type(built).from_pretrained(tmp_path / "saved", no_such_part=mine)


@pytest.mark.parametrize("name", ALL)
def test_torch_dtype_is_dtype(name, tmp_path):
    built = Case(name).pipeline()
    built.save_pretrained(tmp_path)
    kinds = {
        part.dtype
        for part in type(built).from_pretrained(tmp_path, torch_dtype=torch.bfloat16).components.values()
        if isinstance(part, torch.nn.Module)
    }
    assert kinds == {torch.bfloat16}
    with pytest.raises(InputError, match="torch_dtype must be the same"):
        type(built).from_pretrained(tmp_path, dtype=torch.float32, torch_dtype=torch.bfloat16)
    with pytest.raises(InputError, match="torch_dtype must be a floating"):
        type(built).from_pretrained(tmp_path, torch_dtype="float16")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL)
def test_half_precision_on_a_cpu_runs_or_is_refused_at_once(name, dtype):
    case = Case(name)
    pipeline = case.pipeline().to(dtype)
    ran = []
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        output = case.call(pipeline, output_type="pt")
    except InputError as error:
        assert dtype == torch.float16 and not ran, "refused before the first network"
        assert "float16" in str(error) and "\n" not in str(error)
    else:
        assert all(one.dtype == torch.float32 and bool(one.isfinite().all()) for one in pictures(output))


def test_a_sharded_save_over_another_one_loads(tmp_path):
    first = Case("upsample").pipeline()
    first.save_pretrained(tmp_path)
    second = Case("upsample").pipeline()
    for parameter in second.generator.parameters():
        parameter.data += 1
    for size in ("4KB", None, "3KB"):
        second.save_pretrained(tmp_path, max_shard_size=size)
        again = upsample.UpsamplePipeline.from_pretrained(tmp_path)
        for one, other in zip(again.generator.parameters(), second.generator.parameters(), strict=True):
            assert torch.equal(one, other), size


# ---- randomness


@pytest.mark.parametrize("name", WITH_NOISE)
def test_a_generator_for_each_picture(name):
    case = Case(name)
    seeds = [3, 8]
    both = case.call(generator=[torch.Generator().manual_seed(seed) for seed in seeds])
    for i, seed in enumerate(seeds):
        alone = case.call(generator=torch.Generator().manual_seed(seed), num_images_per_prompt=1)
        torch.testing.assert_close(both.images[i], alone.images[0], atol=1e-3, rtol=0)
    with pytest.raises(InputError, match="one for each picture, got 1 for 2"):
        case.call(generator=[torch.Generator()])
    with pytest.raises(InputError, match=r"generator must be a torch\.Generator"):
        case.call(generator=7)


@pytest.mark.parametrize("name", ["restore", "upsample"])
def test_a_generator_for_each_photo(name):
    case = Case(name)
    photos = case.config.batch()
    both = case.call(image=photos, generator=[torch.Generator().manual_seed(seed) for seed in (3, 8)])
    for i, seed in enumerate((3, 8)):
        alone = case.call(image=photos[i], generator=torch.Generator().manual_seed(seed))
        assert same(plain(both.images[i]), plain(alone.images[0]), 1e-4)
    with pytest.raises(InputError, match="one for each"):
        case.call(image=photos, generator=[torch.Generator()])


@pytest.mark.parametrize(
    ("name", "shape"), [("generate", (4, 8)), ("arc2face", (2, 4, 32, 32)), ("upsample", (2, 10, 8))]
)
def test_latents_to_start_from(name, shape):
    case = Case(name)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    given = values(case.call(latents=noise))
    if name != "upsample":  # there a generator chooses among samples of the bank
        assert same(given, values(case.call(generator=torch.Generator().manual_seed(0))))
    assert not same(given, values(case.call(latents=noise.flip(0) + 0.5)))
    for wrong in (noise[:1], noise[..., :-1], noise.long(), "noise"):
        with pytest.raises(InputError, match="latents must be a floating tensor"):
            case.call(latents=wrong)
    with pytest.raises(InputError, match="latents must be finite"):
        case.call(latents=torch.full(shape, torch.nan))


# ---- steps


@pytest.mark.parametrize("name", ALL)
def test_one_rule_for_callbacks(name):
    case, told = Case(name), []

    def watch(pipe, step, timestep, tensors):
        told.append((type(pipe), step, sorted(tensors)))
        seen.append(tensors[first].clone())
        assert all(isinstance(value, torch.Tensor) for value in tensors.values())
        return tensors

    seen, changed = [], []
    first = case.pipeline()._callback_tensor_inputs[0]
    plain_call = values(case.call(**case.with_steps()))
    one = {"callback_on_step_end_tensor_inputs": [first]}
    assert same(plain_call, values(case.call(callback_on_step_end=watch, **one, **case.with_steps())))
    assert told and all(kind is type(case.pipeline()) and names == [first] for kind, _, names in told)

    def change(pipe, step, timestep, tensors):
        changed.append(tensors[first].clone())
        return {first: tensors[first] * 0.5 + 0.1}

    output = values(case.call(callback_on_step_end=change, **case.with_steps()))
    assert torch.equal(seen[0], changed[0])
    if name == "restore":  # whose toys are all much alike, so that no step is taken over
        assert (changed[1] - (0.5 * changed[0] + 0.1)).abs().max() < 0.5 * (seen[1] - changed[1]).abs().max()
    else:
        assert not same(plain_call, output), "not honoured"
    wrong = [
        (lambda *_: 7, "must return a dict or None, got int"),
        (lambda *_: {"nothing": torch.ones(1)}, "'nothing'"),
        (lambda *_: {first: torch.ones(1, 1, 1, 1, 1)}, "as a tensor"),
    ]
    for function, message in wrong:
        with pytest.raises(InputError, match=message):
            case.call(callback_on_step_end=function, **case.with_steps())
    with pytest.raises(InputError, match="callback_on_step_end_tensor_inputs"):
        case.call(callback_on_step_end=watch, callback_on_step_end_tensor_inputs=["nothing"])
    with pytest.raises(InputError, match="callback_on_step_end must be a function"):
        case.call(callback_on_step_end="print")


def test_schedulers_that_cannot_work_are_refused():
    case = Case("generate")
    for wrong in (
        DDIMScheduler(),
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    ):
        pipeline = case.pipeline()
        pipeline.scheduler = wrong
        with pytest.raises(InputError, match="the scheduler must"):
            case.call(pipeline)
    case = Case("arc2face")
    for wrong in (FlowMatchEulerDiscreteScheduler(), DDIMScheduler(prediction_type="v_prediction")):
        pipeline = case.pipeline()
        pipeline.scheduler = wrong
        with pytest.raises(InputError, match="the scheduler must be one of diffusion"):
            case.call(pipeline)


# ---- places


class Watched:
    """Networks under `enable_model_cpu_offload`: which are loaded, and which run although they are not."""

    def __init__(self, pipeline):
        self.loaded, self.astray, self.ran = set(), [], set()
        names = {id(part): name for name, part in pipeline.components.items()}
        for user in pipeline._all_hooks:
            self.watch(names[id(user.model)], user)

    def watch(self, name, user):
        before, away = user.hook.pre_forward, user.hook.init_hook

        def load(module, *args, **kwargs):
            self.loaded.add(name)
            self.ran.add(name)
            return before(module, *args, **kwargs)

        def offload(module):
            self.loaded.discard(name)
            return away(module)

        def check(*_):
            if name not in self.loaded:
                self.astray.append(name)

        user.hook.pre_forward, user.hook.init_hook = load, offload
        for module in user.model.modules():
            if module is not user.model:
                module.register_forward_pre_hook(check)


@pytest.mark.parametrize("name", ALL)
def test_networks_are_offloaded_one_after_another(name):
    case = Case(name)
    pipeline = case.pipeline()
    networks = {part for part, net in pipeline.components.items() if isinstance(net, torch.nn.Module)}
    queue = pipeline.model_cpu_offload_seq.split("->")
    assert sorted([*queue, *pipeline._exclude_from_cpu_offload]) == sorted(networks)
    expected = values(case.call(pipeline))
    pipeline.enable_model_cpu_offload(device="cpu")
    watched = Watched(pipeline)
    assert pipeline._execution_device == torch.device("cpu", 0)
    offloaded = values(case.call(pipeline))
    assert same(expected, offloaded, 1e-5)
    assert watched.ran and not watched.astray, "a network was used where its hook does not see it"
    assert same(expected, values(case.call(pipeline)), 1e-5)


def test_apple_s_devices_are_known(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == "mps"


@contextlib.contextmanager
def warnings_of_diffusers():
    """What diffusers says to its logger inside."""
    said, logger = [], diffusers_logging.get_logger("diffusers")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("name", ALL)
def test_moving_and_sharing_warn_of_nothing(name):
    built = Case(name).pipeline()
    with warnings_of_diffusers() as said:
        built.to("cpu").to(torch.bfloat16).to("cpu", torch.float32).to(device="cpu", dtype=torch.float16)
        built.to(torch.float32)
        other = type(built).from_pipe(built)
    assert said == []
    assert all(other.components[key] is part for key, part in built.components.items())


def test_a_shared_pipeline_keeps_its_type():
    built = Case("upsample").pipeline().to(torch.bfloat16)
    other = type(built).from_pipe(built)
    assert built.dtype == other.dtype == torch.bfloat16


# ---- pictures in and out


@pytest.mark.parametrize("name", WITH_BATCHES)
def test_a_batch_may_be_one_array_or_one_tensor(name):
    case = Case(name)
    two = [(255 * one).round().byte() for one in case.config.batch()]
    if name == "upsample":
        two[1] = two[0].flip(2)
    stacked = torch.stack(two)  # (B,3,H,W) uint8
    expected = values(case.call(image=[one.permute(1, 2, 0).numpy() for one in two]))
    for batch in (stacked, stacked / 255, stacked.permute(0, 2, 3, 1).numpy()):
        assert same(expected, values(case.call(image=batch)), 1e-6)
    with pytest.raises(ImageError):
        case.call(image=stacked.permute(0, 2, 3, 1))


def test_fidelity_for_each_photo():
    case = Case("restore")
    photos = case.config.batch()
    both = case.call(image=photos, fidelity=[0.0, 1.0])
    for i, fidelity in enumerate((0.0, 1.0)):
        assert same(plain(both.images[i]), plain(case.call(image=photos[i], fidelity=fidelity).images[0]))
    with pytest.raises(InputError, match="fidelity must be one number or one for each of 2 photos"):
        case.call(image=photos, fidelity=[0.5])
    with pytest.raises(InputError, match="fidelity"):
        case.call(image=photos, fidelity=[0.5, "half"])


@pytest.mark.parametrize("name", ALL)
def test_tensors_can_be_used_with_gradients(name):
    output = Case(name).call(output_type="pt")
    weight = torch.ones(1, requires_grad=True)
    for picture in pictures(output):
        (picture * weight).square().mean().backward()
    assert weight.grad.isfinite().all()


# ---- threads


FIRST_CALLS = """
import threading, torch
from tests import tiny
from tests.pipelines import test_{name} as its
from pipelines import {name} as module
module.FaceFinder = {finder}
torch.set_num_threads(1)
build = tiny.{name}_pipeline
config = [one for key, one in vars(its).items() if key.endswith("Config")][0]()

def pictures(pipeline, inputs):
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(**inputs)
    found = output.frames if hasattr(output, "frames") else output.images
    return [one for part in found for one in (part if isinstance(part, list) else [part])]

shared, gate, made = build(), threading.Barrier(8), [None] * 8
given = [config.inputs() for _ in range(10)]  # not in the threads: some are drawn with the seed of the whole process

def work(i):
    gate.wait()
    made[i] = pictures(shared, given[i])

threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
expected = pictures(build(), given[8])
for i, found in enumerate([*made, pictures(shared, given[9])]):
    assert found is not None, f"thread {{i}} failed"
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other), f"{{i}}: up to {{float((one - other).abs().max())}} apart"
print("the same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_first_calls_of_eight_threads(name):
    finder = {"restore": "its.Finder", "reenact": "its.Following"}.get(name, "tiny.SureFinder")
    script = FIRST_CALLS.format(name=name, finder=finder)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.stdout.strip().endswith("the same"), done.stderr[-2000:]


# ---- words


@pytest.mark.parametrize("name", ALL)
def test_the_example_runs(name, tmp_path, monkeypatch):
    case = Case(name)
    kind = type(case.pipeline())
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(kind.__call__))
    assert examples, "every call has an example"
    monkeypatch.setattr(kind, "from_pretrained", lambda *_, **__: case.pipeline())
    monkeypatch.setitem(studio.__dict__, kind.__name__, kind)
    (tmp_path / "examples").mkdir()
    picture = test_restore.photo() if name == "restore" else tiny.image(72, 80, seed=7)
    for file in ("portrait.jpg", "old-print.jpg"):
        images.save(Photo(picture), tmp_path / "examples" / file)
    monkeypatch.chdir(tmp_path)
    space = {}
    for example in examples:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(example.source, f"{name}: {example.source.strip()}", "single"), space)
        if example.want:
            assert doctest.OutputChecker().check_output(example.want, said.getvalue(), doctest.ELLIPSIS), example.source


@pytest.mark.parametrize("name", ALL)
def test_wrong_types_are_refused_in_one_line(name):
    case, faults = Case(name), []
    pipeline = case.pipeline()
    beside = case.with_steps()
    for argument in set(inspect.signature(type(pipeline).__call__).parameters) - {"self", "return_dict"}:
        for wrong in (object(), "no such thing", [object()], np.array(["a"])):
            changes = {**beside, argument: wrong}
            if argument == "callback_on_step_end_tensor_inputs":
                changes["callback_on_step_end"] = print
            try:
                case.call(pipeline, **changes)
            except StudioError as error:
                assert "\n" not in str(error), argument
            except Exception as error:
                faults.append(f"{argument}={wrong!r}: {type(error).__name__}: {error}")
            else:
                faults.append(f"{argument}={wrong!r} is taken")
    assert not faults, "\n".join(faults)


def test_a_photo_of_wrong_pixels_is_refused():
    for wrong, message in (
        (torch.full((3, 8, 8), torch.nan), "finite"),
        (torch.full((3, 8, 8), 200.0), r"values in \[0,1\]"),
        (torch.full((3, 8, 8), -1.0), r"values in \[0,1\]"),
    ):
        with pytest.raises(ImageError, match=message):
            Photo(wrong)
    with pytest.raises(ImageError, match=r"alpha.*values in \[0,1\]"):
        Photo(torch.zeros(3, 8, 8), alpha=torch.full((1, 8, 8), 255.0))


def test_reference_vectors_are_checked():
    case = Case("restore")
    good = test_generate.vector()
    case.call(reference=good)
    assert same(plain(case.call(reference=good).images), plain(case.call(reference=good.numpy()).images))
    broken = good.clone()
    broken[5] = torch.nan
    for wrong, message in (
        (torch.zeros(64), r"\(128,\), got \(64,\)"),
        (broken, "finite"),
        (100 * good, "long as those of IdentityEncoder"),
        (np.zeros((1, 128), np.float32), r"got \(1, 128\)"),
    ):
        with pytest.raises(InputError, match=message):
            case.call(reference=wrong)


# ---- the processor

WAITING = """
import os, sys
{start}
assert "torch" not in sys.modules, "too late: torch has read them"
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""


APP = """
import runpy, types
sys.modules["studio.ui.app"] = types.SimpleNamespace(serve=lambda: None)
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("start", "given", "expected"),
    [
        ("from studio.device import wait_quietly; assert wait_quietly()", {}, "passive 0"),
        ("from studio.device import wait_quietly; wait_quietly()", {"OMP_WAIT_POLICY": "active"}, "active None"),
        ("import studio.cli; sys.argv = ['studio']; studio.cli.app = lambda: None; studio.cli.main()", {}, "passive 0"),
        (APP, {}, "passive 0"),
    ],
)
def test_threads_that_wait_leave_the_processor_to_others(start, given, expected):
    variables = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", WAITING.format(start=start)],
        cwd=REPOSITORY,
        env={**variables, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == expected, done.stderr[-2000:]


def test_it_says_where_it_is_too_late():
    importlib.import_module("torch")
    from studio.device import wait_quietly

    assert not wait_quietly()
