"""The app serves threads: what they make together is what each makes alone, to the bit."""

from __future__ import annotations

import threading

import pytest
import torch

from pipelines.restore import RestorePipeline
from studio.images import load
from studio.networks.detector import FaceDetector
from tests import tiny


def at_once(calls):
    """Starts all calls together, each in a thread of its own; their results, in order."""
    gate, results = threading.Barrier(len(calls)), [None] * len(calls)

    def work(i):
        gate.wait()
        results[i] = calls[i]()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def layout(pipeline):
    """Where every weight lies in memory, and how."""
    networks = (part for part in pipeline.components.values() if isinstance(part, torch.nn.Module))
    return [(p.data_ptr(), p.stride()) for network in networks for p in network.parameters()]


@pytest.mark.parametrize(
    "build",
    [
        *(tiny.restore_pipeline, tiny.upsample_pipeline, tiny.frontalize_pipeline, tiny.generate_pipeline),
        tiny.edit_pipeline,
    ],
)
def test_no_look_lays_the_weights_out_anew(build):
    """Neither one that finds nobody, nor one where the mesh is placed."""
    pipeline = build()
    for part in pipeline.components.values():
        if isinstance(part, FaceDetector):  # of random weights: it takes hundreds of places for faces
            for head in part.logits:
                torch.nn.init.constant_(head.bias, -9.0)
    before = layout(pipeline)
    if isinstance(pipeline, RestorePipeline):
        pipeline.find(load(tiny.photo()))
    else:
        pipeline.finder()(tiny.photo())
    assert layout(pipeline) == before
    pipeline.finder().given(tiny.photo(), [(60, 40, 120, 130)])
    assert layout(pipeline) == before


@pytest.mark.weights
@pytest.mark.photos
@pytest.mark.slow
def test_first_calls_at_once(photos):
    """Four threads make their first call on one pipeline, and two on another, that was loaded beside it."""
    path = sorted((photos / "portraits").iterdir())[5]
    expected = RestorePipeline.from_pretrained("restore")(path, output_type="pt", scale=1).images[0]
    first, second = (RestorePipeline.from_pretrained("restore") for _ in range(2))
    for pipeline in (first, second):
        pipeline.set_progress_bar_config(disable=True)
    calls = [
        lambda pipeline=pipeline: pipeline(path, output_type="pt", scale=1) for pipeline in [first] * 4 + [second] * 2
    ]
    for output in at_once(calls):
        assert torch.equal(output.images[0], expected)
