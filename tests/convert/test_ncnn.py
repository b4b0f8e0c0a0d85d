"""ncnn's files: a toy network is written as one, read back, and run by ncnn itself; what is damaged is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio import weights
from studio.convert import ncnn
from studio.convert.ncnn import fill, read
from studio.errors import WeightsError
from studio.networks.rrdb import RRDBNet
from studio.networks.span import SPAN
from tests import tiny

NETS = {"realesrgan": RRDBNet, "span": SPAN}


class Writer:
    """Writes ncnn's two files, layer by layer."""

    def __init__(self):
        self.lines, self.blobs, self.bin = ["Input data 0 1 data"], 1, b""

    def layer(self, kind, inputs, settings="", outputs=1):
        made = [f"b{self.blobs + i}" for i in range(outputs)]
        self.blobs += outputs
        counts = f"{len(inputs)} {outputs}"
        self.lines.append(f"{kind} l{len(self.lines)} {counts} {' '.join([*inputs, *made])} {settings}")
        return made[0] if outputs == 1 else made

    def conv(self, module, name, leaky=False):
        weight = module.weight.detach().numpy().astype("<f2").tobytes()
        self.bin += ncnn.HALF.to_bytes(4, "little") + weight + b"\0" * (-len(weight) % 4)
        self.bin += module.bias.detach().numpy().astype("<f4").tobytes()
        out, _, kernel, _ = module.weight.shape
        act = " 9=2 -23310=1,2.0e-01" if leaky else ""
        settings = f"0={out} 1={kernel} 4={kernel // 2} 5=1 6={module.weight.numel()}{act}"
        return self.layer("Convolution", [name], settings)

    def files(self, last):
        lines = [line.replace(f" {last} ", " output ") for line in self.lines]
        head = f"7767517\n{len(lines)} {self.blobs}\n"
        return (head + "\n".join(lines) + "\n").encode(), self.bin


def rrdb_files(net):
    """A toy `RRDBNet` as ncnn's exporter writes the real one."""
    to = Writer()
    skip, x = to.layer("Split", [to.conv(net.conv_first, "data")], outputs=2)
    for block in net.body:
        outer, x = to.layer("Split", [x], outputs=2)
        for dense in (block.rdb1, block.rdb2, block.rdb3):
            inner, x = to.layer("Split", [x], outputs=2)
            seen = x
            for conv in (dense.conv1, dense.conv2, dense.conv3, dense.conv4):
                kept, given = to.layer("Split", [seen], outputs=2)
                seen = to.layer("Concat", [kept, to.conv(conv, given, leaky=True)])
            x = to.layer("Eltwise", [to.conv(dense.conv5, seen), inner], "0=1 -23301=2,2.0e-01,1.0e+00")
        x = to.layer("Eltwise", [x, outer], "0=1 -23301=2,2.0e-01,1.0e+00")
    x = to.layer("BinaryOp", [skip, to.conv(net.conv_body, x)])
    for conv in (net.conv_up1, net.conv_up2):
        x = to.conv(conv, to.layer("Interp", [x], "0=1 1=2.0 2=2.0"), leaky=True)
    return to.files(to.conv(net.conv_last, to.conv(net.conv_hr, x, leaky=True)))


def toy():
    with tiny.seeded():
        net = RRDBNet(width=6, growth=3, blocks=1).eval()
    tiny.fill_randomly(net)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_(module.weight.half())  # as the file stores them
    return net


def reference(param, data, x, folder):
    """What ncnn gives for one picture (1,3,H,W), in float32."""
    engine = pytest.importorskip("ncnn")
    (folder / "n.param").write_bytes(param)
    (folder / "n.bin").write_bytes(data)
    net = engine.Net()
    for option in ("vulkan_compute", "fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    net.opt.num_threads = 1
    assert net.load_param(str(folder / "n.param")) == 0
    assert net.load_model(str(folder / "n.bin")) == 0
    extractor = net.create_extractor()
    extractor.input("data", engine.Mat(x[0].contiguous().numpy()))
    status, output = extractor.extract("output")
    assert status == 0
    return torch.from_numpy(np.array(output))[None]


def share_of_spread(ours, theirs):
    """The largest difference as a share of the reference's standard deviation."""
    return float((ours - theirs).abs().max() / theirs.std())


def test_a_toy_file_gives_what_ncnn_gives(tmp_path):
    net, files = toy(), rrdb_files(toy())
    x = tiny.image(12, 20)[None]
    filled = fill(RRDBNet(width=6, growth=3, blocks=1), read(*files))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in filled.state_dict().items())
    with torch.inference_mode():
        assert share_of_spread(filled(x), reference(*files, x, tmp_path)) < 1e-3


@pytest.mark.weights
@pytest.mark.parametrize("name", NETS)
def test_parity_with_ncnn(name, tmp_path):
    passport = weights.entry(name)
    archive = weights.obtain(passport.archive, tmp_path)
    files = weights.read_members(archive, passport.members)
    small = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    x = torch.nn.functional.interpolate(small, scale_factor=6.0, mode="bilinear")
    net = weights.load(name)
    with torch.inference_mode():
        ours, theirs = net(x), reference(*files, x, tmp_path)
    share = share_of_spread(ours, theirs)
    print(f"{name}: largest difference {share:.1e} of the reference's standard deviation")
    assert share < 1e-3


# ------------------------------------------------------------------------------------------------------- what is wrong


def spoilt(change):
    """A toy file that `change` made another one of: (param, bin) -> (param, bin)."""
    return change(*rrdb_files(toy()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda param, data: (b"<html>", data), "must begin with 7767517"),
        (lambda param, data: (param, data[:-8]), "ends within a layer"),
        (lambda param, data: (param, data + b"more"), "must end at byte"),
        (lambda param, data: (param, (0x000D4B38).to_bytes(4, "little") + data[4:]), "0xd4b38 at byte 0"),
        (lambda param, data: (param.replace(b"BinaryOp", b"InnerProduct"), data), "got InnerProduct"),
        (lambda param, data: (param.replace(b"0=6", b"0=7"), data), "whole kernels"),
    ],
)
def test_damaged_files_are_refused(change, said):
    with pytest.raises(WeightsError, match=said) as caught:
        read(*spoilt(change))
    assert "\n" not in str(caught.value)


def test_another_network_is_refused():
    layers = read(*rrdb_files(toy()))
    with pytest.raises(WeightsError, match="36 convolutions and 0 constants, the file has 21 and 0"):
        fill(RRDBNet(width=6, growth=3, blocks=2), layers)
    with pytest.raises(WeightsError, match=r"l1 must be \(8, 3, 3, 3\), the file has \(6"):
        fill(RRDBNet(width=8, growth=3, blocks=1), layers)
