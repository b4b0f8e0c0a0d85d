"""ArcFace from ONNX: toy files as several exporters write them are read back, and agree with ONNX's own evaluator."""

import pytest
import torch

from studio.convert.onnx import arcface
from studio.errors import InputError, WeightsError
from studio.networks.arcface import ArcFaceNet
from tests import parity, tiny

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
evaluator = pytest.importorskip("onnx.reference")

TOY = {"size": 16, "widths": (4, 6), "depths": (2, 1), "embedding_dim": 5}


class Writer:
    """Writes nodes and their numbers, as exporters do.

    Args:
        fold: normalizations are part of the convolutions and of the matrix; else they stand behind them, undone.
        plain: as short as can be; else with Dropout, Identity, slopes in Constant nodes and a computed Reshape.
    """

    def __init__(self, *, fold=True, plain=True):
        self.fold, self.plain = fold, plain
        self.nodes, self.numbers, self.count = [], [], 0

    def tensor(self, value, *, constant=False):
        name = f"t{self.count}{len(self.numbers)}"
        tensor = onnx.numpy_helper.from_array(value.detach().numpy(), name)
        if constant:
            return self.node("Constant", [], value=tensor)
        self.numbers.append(tensor)
        return name

    def node(self, kind, inputs, **settings):
        self.count += 1
        self.nodes.append(onnx.helper.make_node(kind, inputs, [f"x{self.count}"], **settings))
        return f"x{self.count}"

    def norm(self, x, module, eps=None):
        inputs = [self.tensor(v) for v in (module.weight, module.bias, module.running_mean, module.running_var)]
        return self.node("BatchNormalization", [x, *inputs], epsilon=eps or module.eps)

    def undone(self, x, channels, kind=torch.nn.BatchNorm2d):
        """A normalization that doubles and shifts by 3."""
        norm = kind(channels, eps=2e-5).eval()
        with torch.no_grad():
            norm.running_var.fill_(0.25 - norm.eps)
            norm.bias.fill_(3.0)
        return self.norm(x, norm)

    def conv(self, x, module):
        stride, pad = module.stride[0], module.padding[0]
        settings = {"strides": [stride] * 2, "pads": [pad] * 4, "kernel_shape": list(module.kernel_size)}
        if self.fold:
            return self.node("Conv", [x, self.tensor(module.weight), self.tensor(module.bias)], **settings)
        parts = [self.tensor(module.weight / 2), self.tensor((module.bias - 3) / 2)]
        return self.undone(self.node("Conv", [x, *parts], **settings), len(module.weight))

    def prelu(self, x, module):
        return self.node("PRelu", [x, self.tensor(module.weight[:, None, None], constant=not self.plain)])

    def flat(self, x):
        if self.plain:
            return self.node("Flatten", [x], axis=1)
        x = self.node("Dropout", [x])
        batch = self.node("Gather", [self.node("Shape", [x]), self.tensor(torch.tensor([0]))], axis=0)
        shape = self.node("Concat", [batch, self.tensor(torch.tensor([-1]), constant=True)], axis=0)
        return self.node("Reshape", [x, shape])

    def gemm(self, x, module):
        if self.fold:
            return self.node("Gemm", [x, self.tensor(module.weight), self.tensor(module.bias)], transB=1)
        parts = [self.tensor(module.weight.T.contiguous() / 2), self.tensor((module.bias - 3) / 2)]
        return self.undone(self.node("Gemm", [x, *parts]), len(module.weight), torch.nn.BatchNorm1d)

    def write(self, net, file):
        x = self.prelu(self.conv("input", net.stem), net.act)
        for block in (block for stage in net.stages for block in stage):
            y = self.prelu(self.conv(self.norm(x, block.norm), block.conv1), block.act)
            y = self.conv(y, block.conv2)
            skip = x if block.skip is None else self.conv(x, block.skip)
            x = self.node("Add", [y, skip] if self.plain else [skip, y])
        x = self.gemm(self.flat(self.norm(x, net.norm)), net.embed)
        if not self.plain:
            self.node("Identity", [x])
        self.nodes[-1].output[0] = "output"
        return self.save(file, net.config.size, net.config.embedding_dim)

    def save(self, file, side, dim):
        graph = onnx.helper.make_graph(
            self.nodes,
            "arcface",
            [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [None, 3, side, side])],
            [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [None, dim])],
            self.numbers,
        )
        onnx.save_model(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), file)
        return file


def toy(**sizes):
    net = parity.fill(ArcFaceNet(**{**TOY, **sizes}))
    with torch.no_grad():
        for name, value in net.named_buffers():
            if name.endswith("running_var"):
                value.mul_(2)  # about 1, an epsilon that is lost would hardly show
    return net


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("fold", [True, False])
def test_a_file_gives_what_onnx_gives(tmp_path, fold, plain):
    net = toy()
    file = Writer(fold=fold, plain=plain).write(net, tmp_path / "net.onnx")
    x = 2 * torch.stack([tiny.image(16, 16), tiny.image(16, 16, seed=1)]) - 1
    with torch.inference_mode():
        ours = arcface(file, **TOY)(x)
    reference = evaluator.ReferenceEvaluator(str(file)).run(None, {"input": x.numpy()})[0]
    share = parity.share_of_spread(ours, torch.from_numpy(reference))
    print(f"arcface toy: largest difference {share:.1e} of the reference's standard deviation")
    assert share < 1e-5
    torch.testing.assert_close(ours, net(x), atol=1e-4, rtol=1e-4)


def conv(channels_in, channels_out, size=3, stride=1):
    """A convolution as it is trained, with a normalization behind it."""
    plain = torch.nn.Conv2d(channels_in, channels_out, size, stride, size // 2, bias=False)
    return torch.nn.Sequential(plain, torch.nn.BatchNorm2d(channels_out))


class TrainedBlock(torch.nn.Module):
    def __init__(self, before, width, stride):
        super().__init__()
        norm, act = torch.nn.BatchNorm2d(before), torch.nn.PReLU(width)
        self.branch = torch.nn.Sequential(norm, conv(before, width), act, conv(width, width, 3, stride))
        self.skip = conv(before, width, 1, stride) if stride > 1 else torch.nn.Identity()

    def forward(self, x):
        return self.branch(x) + self.skip(x)


def trained(size, widths, depths, embedding_dim):
    """The network as it is trained: a normalization behind every convolution and the matrix."""
    layers, before = [conv(3, widths[0]), torch.nn.PReLU(widths[0])], widths[0]
    for width, depth in zip(widths, depths, strict=True):
        for i in range(depth):
            layers.append(TrainedBlock(before, width, 1 if i else 2))
            before = width
    matrix = torch.nn.Linear(before * (size // 2 ** len(widths)) ** 2, embedding_dim)
    end = torch.nn.BatchNorm2d(before), torch.nn.Flatten(), torch.nn.Dropout(0.4), matrix
    return torch.nn.Sequential(*layers, *end, torch.nn.BatchNorm1d(embedding_dim))


PUBLISHED = {"size": 112, "widths": (64, 128, 256, 512), "depths": (3, 13, 30, 3), "embedding_dim": 512}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("sizes", [TOY, pytest.param(PUBLISHED, marks=pytest.mark.slow)])
def test_what_torch_exports(tmp_path, sizes):
    net = parity.fill(trained(**sizes))
    x = 2 * torch.stack([tiny.image(sizes["size"], sizes["size"], seed=seed) for seed in range(2)]) - 1
    torch.onnx.export(net, (x[:1],), str(tmp_path / "net.onnx"), dynamo=False, opset_version=11)
    with torch.inference_mode():
        share = parity.share_of_spread(arcface(tmp_path / "net.onnx", **sizes)(x), net(x))
    print(f"arcface of {sizes['size']} px: largest difference {share:.1e} of the reference's standard deviation")
    assert share < 1e-4


def test_an_epsilon_of_its_own(tmp_path):
    net = toy()
    writer = Writer()
    writer.norm = lambda x, module: Writer.norm(writer, x, module, eps=0.1)
    file = writer.write(net, tmp_path / "net.onnx")
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.1
    x = tiny.image(16, 16)[None]
    torch.testing.assert_close(arcface(file, **TOY)(x), net(x), atol=1e-5, rtol=1e-4)


def test_unit_vectors():
    with torch.inference_mode():
        vectors = toy().unit(tiny.image(16, 16)[None])
    assert vectors.shape == (1, 5)
    assert float(vectors.norm()) == pytest.approx(1)


def test_the_published_size():
    """100 layers with weights: 1 + 2 x 49 + 1, and 65 million numbers."""
    with torch.device("meta"):
        net = ArcFaceNet()
        assert net(torch.empty(2, 3, 112, 112)).shape == (2, 512)
    assert sum(net.config.depths) == 49
    assert round(sum(one.numel() for one in net.parameters()) / 1e6) == 65


def changed(file, change):
    """The file with something else in it."""
    model = onnx.load_model(file)
    change(model.graph)
    onnx.save_model(model, file.with_name("changed.onnx"))
    return file.with_name("changed.onnx")


def of_kind(graph, kind):
    return next(node for node in graph.node if node.op_type == kind)


def set_attribute(node, name, value):
    kept = [one for one in node.attribute if one.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def rename(graph):
    of_kind(graph, "PRelu").op_type = "LeakyRelu"


def lose_numbers(graph):
    del graph.initializer[0]


def restride(graph):
    set_attribute(of_kind(graph, "Conv"), "strides", [2, 2])


def rescale(graph):
    set_attribute(of_kind(graph, "Gemm"), "alpha", 0.5)


def rewire(graph):
    adds = [node for node in graph.node if node.op_type == "Add"]
    adds[1].input[1] = adds[0].input[0]


def lengthen(graph):
    of_kind(graph, "Gemm").output[0] = "inner"
    graph.node.append(onnx.helper.make_node("Relu", ["inner"], ["output"]))


def add_output(graph):
    graph.output.append(onnx.helper.make_tensor_value_info("x3", onnx.TensorProto.FLOAT, None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "must have PRelu after x1, it has LeakyRelu"),
        (lose_numbers, "must hold the numbers t00 of Conv"),
        (restride, r"strides of Conv x1 .* must be \[1, 1\], got \[2, 2\]"),
        (rescale, "alpha of Gemm"),
        (rewire, "must add"),
        (lengthen, "goes on with Relu"),
        (add_output, "one input and one output, it has 1 and 2"),
    ],
)
def test_other_graphs_are_refused(tmp_path, change, message):
    file = Writer().write(toy(), tmp_path / "net.onnx")
    arcface(file, **TOY)
    with pytest.raises(WeightsError, match=message) as caught:
        arcface(changed(file, change), **TOY)
    assert "\n" not in str(caught.value)


def test_other_sizes_are_refused(tmp_path):
    file = Writer().write(toy(), tmp_path / "net.onnx")
    with pytest.raises(WeightsError, match="must have Conv after x20, it has Flatten"):
        arcface(file, **{**TOY, "depths": (2, 2)})
    with pytest.raises(WeightsError, match="must have Flatten after"):
        arcface(file, **{**TOY, "depths": (2,), "widths": (4,)})
    with pytest.raises(WeightsError, match=r"must be \[\(8, 3, 3, 3\), \(8,\)\], got \[\(4, 3, 3, 3\), \(4,\)\]"):
        arcface(file, **{**TOY, "widths": (8, 6)})


def test_what_is_no_onnx_file(tmp_path, monkeypatch):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(WeightsError, match="must be an ONNX file"):
        arcface(tmp_path / "text.onnx")
    file = Writer().write(toy(), tmp_path / "net.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the extra `onnx`"):
        arcface(file)


def test_numbers_outside_the_file_are_not_looked_for(tmp_path):
    file = Writer().write(toy(), tmp_path / "net.onnx")
    model = onnx.load_model(file)
    onnx.save_model(model, tmp_path / "outside.onnx", save_as_external_data=True, location="x.bin", size_threshold=0)
    with pytest.raises(WeightsError, match="must be an ONNX file"):
        arcface(tmp_path / "outside.onnx", **TOY)
