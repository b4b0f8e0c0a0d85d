"""The questions asked of every pipeline. A test file answers with a config class and inherits the mixins:

    class RestoreConfig:
        batch_argument = "image"                    # the argument that also takes a list; None where there is none
        volatile = ("seconds",)                     # names in the output that may differ from run to run

        def pipeline(self): ...                     # a new toy pipeline; the same weights every time
        def inputs(self): ...                       # keyword arguments of one call; new objects every time
        def batch(self): ...                        # two values of `batch_argument`, of different content
        def variations(self): ...                   # argument of __call__ -> another value, or a list of them
        def bad_inputs(self): ...                   # list of (changed arguments, error class, regex of the message)

    class TestRestore(RestoreConfig, PipelineContract): ...

A config builds and asserts nothing. `variations` names every argument of `__call__` but `return_dict`, which the
contract knows; each value must change the output, or raise an `InputError`, or, if it is a `Recorder`, be called.
Where an argument only matters next to another, give the pair: {"scale": With(2, output_type="pil")}.
Pipelines of random outcome take their `generator` in `inputs()`, with a fixed seed.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import studio
from studio.errors import InputError, StudioError


class Recorder:
    """A callback that counts its calls and gives back what it is handed last (diffusers' step callbacks want that)."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return args[-1] if args else None


class With:
    """A variation that needs other arguments beside it; the comparison is made with these in place."""

    def __init__(self, value: Any, **others: Any) -> None:
        self.value, self.others = value, others


def plain(value: Any, volatile: tuple[str, ...] = ()) -> Any:
    """Reduces an output to dicts, lists, arrays and scalars, so that two can be compared whatever they are made of."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: plain(getattr(value, f.name), volatile) for f in dataclasses.fields(value) if f.name not in volatile
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item, volatile) for key, item in value.items() if key not in volatile}
    if isinstance(value, list | tuple):
        return [plain(item, volatile) for item in value]
    if isinstance(value, torch.Tensor):
        return value.detach().float().cpu().numpy()
    if isinstance(value, PIL.Image.Image):
        return np.asarray(value).astype(np.float32) / 255
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    return value


def same(a: Any, b: Any, tolerance: float = 0.0) -> bool:
    """Whether two results of `plain` agree, numbers to within `tolerance`; NaN agrees with NaN."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key], tolerance) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    numbers = (np.ndarray, float, int)
    if isinstance(a, numbers) and isinstance(b, numbers):
        x, y = np.asarray(a), np.asarray(b)
        if x.shape != y.shape:
            return False
        if x.dtype.kind in "US" or y.dtype.kind in "US":
            return bool((x == y).all())
        return bool(np.allclose(x.astype(np.float64), y.astype(np.float64), rtol=0, atol=tolerance, equal_nan=True))
    return type(a) is type(b) and a == b


class _Subject:
    """What the mixins expect of a config, with the defaults of the optional parts."""

    batch_argument: str | None = "image"
    volatile: tuple[str, ...] = ()
    # A convolution over two pictures may sum in another order than over one.
    batch_tolerance = 1e-4

    def run(self, pipeline, inputs):
        pipeline.set_progress_bar_config(disable=True)
        return plain(pipeline(**inputs), self.volatile)


class SavesAndLoads(_Subject):
    """save_pretrained -> from_pretrained gives the same pipeline, in a format that does not move."""

    def test_round_trip_gives_the_identical_output(self, tmp_path):
        first = self.pipeline()
        first.save_pretrained(tmp_path / "saved")
        second = type(first).from_pretrained(tmp_path / "saved")
        assert same(self.run(first, self.inputs()), self.run(second, self.inputs()))

    def test_saved_index_names_public_classes_only(self, tmp_path):
        pipeline = self.pipeline()
        pipeline.save_pretrained(tmp_path)
        index = json.loads((tmp_path / "model_index.json").read_text())
        assert index["_class_name"] == type(pipeline).__name__
        assert "_name_or_path" not in index
        for name, part in pipeline.components.items():
            if part is None:
                continue
            library, class_name = index[name]
            assert library in ("studio", "diffusers", "transformers")
            assert class_name == type(part).__name__
            if library == "studio":
                assert getattr(studio, class_name) is type(part)

    def test_saved_files_are_safetensors_and_json(self, tmp_path):
        self.pipeline().save_pretrained(tmp_path)
        suffixes = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
        assert suffixes <= {".json", ".safetensors", ".md"}  # the model card

    def test_refuses_misspelt_keyword_of_from_pretrained(self, tmp_path):
        pipeline = self.pipeline()
        pipeline.save_pretrained(tmp_path)
        with pytest.raises(TypeError, match="torch_dtyp"):
            type(pipeline).from_pretrained(tmp_path, torch_dtyp=torch.float16)


class IsRepeatable(_Subject):
    """The same call gives the same answer, alone or in a list, as an object or as a tuple."""

    def test_same_call_twice(self):
        pipeline = self.pipeline()
        assert same(self.run(pipeline, self.inputs()), self.run(pipeline, self.inputs()))

    def test_leaves_the_global_random_state_alone(self):
        pipeline, inputs = self.pipeline(), self.inputs()
        before = torch.get_rng_state()
        self.run(pipeline, inputs)
        assert torch.equal(before, torch.get_rng_state())

    def test_leaves_its_inputs_alone(self):
        inputs = self.inputs()
        before = plain({k: v for k, v in inputs.items() if not isinstance(v, torch.Generator)})
        before = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in before.items()}
        self.run(self.pipeline(), inputs)
        after = plain({k: v for k, v in inputs.items() if not isinstance(v, torch.Generator)})
        assert same(before, after)

    def test_tuple_equals_object(self):
        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        as_object = pipeline(**self.inputs())
        as_tuple = pipeline(**self.inputs(), return_dict=False)
        assert type(as_tuple) is tuple
        names = [field.name for field in dataclasses.fields(as_object) if getattr(as_object, field.name) is not None]
        assert same(
            plain(dict(zip(names, as_tuple, strict=True)), self.volatile),
            plain({name: getattr(as_object, name) for name in names}, self.volatile),
        )

    def test_batch_equals_loop(self):
        if self.batch_argument is None:
            pytest.skip("takes one input at a time")
        pipeline, values = self.pipeline(), self.batch()
        together = self.run(pipeline, {**self.inputs(), self.batch_argument: list(values)})
        alone = [self.run(pipeline, {**self.inputs(), self.batch_argument: value}) for value in values]
        for name, items in together.items():
            if not isinstance(items, list):
                continue
            expected = [item for one in alone for item in one[name]]
            assert same(items, expected, self.batch_tolerance), f"{name} differs between batch and loop"


class MeansEveryArgument(_Subject):
    """No argument is accepted and ignored."""

    def test_every_argument_has_a_variation(self):
        arguments = set(inspect.signature(type(self.pipeline()).__call__).parameters) - {"self", "return_dict"}
        assert arguments == set(self.variations())

    def test_no_catch_all_arguments(self):
        kinds = {p.kind for p in inspect.signature(type(self.pipeline()).__call__).parameters.values()}
        assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}

    def test_every_variation_changes_something_or_raises(self):
        """And the plain call gives the same after all of them as before: none leaves anything behind."""
        pipeline = self.pipeline()
        plain_call = self._types_and_values(pipeline, self.inputs())
        for argument, values in self.variations().items():
            for value in values if isinstance(values, list) else [values]:
                self._check(pipeline, argument, value, plain_call)
        assert same(self._types_and_values(pipeline, self.inputs()), plain_call)

    def _check(self, pipeline, argument, value, plain_call):
        others, before = {}, plain_call
        if isinstance(value, With):
            value, others = value.value, value.others
            before = self._types_and_values(pipeline, {**self.inputs(), **others})
        try:
            after = self._types_and_values(pipeline, {**self.inputs(), **others, argument: value})
        except InputError:
            return
        if isinstance(value, Recorder):
            assert value.calls, f"{argument} was never called"
        else:
            assert not same(before, after), f"{argument}={value!r} changes nothing"

    def _types_and_values(self, pipeline, inputs):
        pipeline.set_progress_bar_config(disable=True)
        output = pipeline(**inputs)
        kinds = [
            type(item).__name__
            for value in (getattr(output, field.name) for field in dataclasses.fields(output))
            for item in (value if isinstance(value, list | tuple) else [value])
        ]
        return [kinds, plain(output, self.volatile)]


class RefusesBadInput(_Subject):
    """A wrong argument is one clear line, not a traceback from inside and not a plausible picture."""

    def test_bad_inputs(self):
        pipeline = self.pipeline()
        cases = self.bad_inputs()
        assert cases, "a pipeline has wrong inputs"
        for change, error, message in cases:
            with pytest.raises(error, match=message) as caught:
                self.run(pipeline, {**self.inputs(), **change})
            assert issubclass(error, StudioError | TypeError), f"{error.__name__} is not one of ours"
            assert "\n" not in str(caught.value), f"more than one line: {caught.value}"

    def test_unknown_argument(self):
        with pytest.raises(TypeError):
            self.run(self.pipeline(), {**self.inputs(), "no_such_argument": 1})

    def test_unknown_output_type(self):
        if "output_type" not in inspect.signature(type(self.pipeline()).__call__).parameters:
            pytest.skip("has no output_type")
        with pytest.raises(InputError, match="output_type"):
            self.run(self.pipeline(), {**self.inputs(), "output_type": "no_such_type"})


class PipelineContract(SavesAndLoads, IsRepeatable, MeansEveryArgument, RefusesBadInput):
    """All of the above."""
