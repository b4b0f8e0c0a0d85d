"""The Hub, from a server on this machine: what is fetched, what is refused, and in which words."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

import studio
from pipelines.arc2face import Arc2FacePipeline
from studio import hub, weights
from studio.convert import torch as published
from studio.convert.torch import Family
from studio.errors import InputError, MissingWeightsError, StudioError, WeightsError
from studio.networks.rrdb import RRDBNet
from studio.weights import Published
from tests import tiny
from tests.fake_hub import COMMIT, FakeHub
from tests.tiny import TinyPipeline

TOY = {"width": 4, "growth": 2, "blocks": 1}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub with caches of its own, reached as users reach a mirror."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    for variable in ("STUDIO_OFFLINE", "STUDIO_WEIGHTS", "STUDIO_LICENCE", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    with FakeHub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        # Read from the environment when the package is imported.
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", found.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield found


@pytest.fixture(autouse=True)
def _public(monkeypatch):
    monkeypatch.setitem(studio._PUBLIC, "TinyNet", "tests.tiny")
    monkeypatch.setattr(studio, "TinyNet", tiny.TinyNet, raising=False)
    # The real class at a toy size: a published file of it takes milliseconds.
    monkeypatch.setitem(published.FAMILIES, "realesrgan", Family("body.0.rdb1.conv1.weight", RRDBNet, options=TOY))


def toy(seed=0):
    with tiny.seeded(seed):
        return RRDBNet(**TOY).eval()


def as_bytes(tmp_path, table):
    torch.save(table, tmp_path / "file.pth")
    return (tmp_path / "file.pth").read_bytes()


def same(net, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())


def refused(error, call, *arguments, **options):
    """The one line in which a call is refused."""
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    assert isinstance(caught.value, StudioError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------- one file


def test_a_small_and_a_large_file(server):
    """A large one lies at another address."""
    data = os.urandom(5000)
    server.add("me/model", {"config.json": b"{}", "deep/a.pth": data})
    assert hub.file("me/model", "config.json").read_bytes() == b"{}"
    assert hub.file("me/model", "deep/a.pth").read_bytes() == data
    assert [line.split("/")[1] for line in server.seen if line.startswith("GET /large")]
    server.seen.clear()
    assert hub.file("me/model", "deep/a.pth", local_files_only=True).read_bytes() == data
    assert not server.seen


def test_an_interrupted_download_goes_on_where_it_stopped(server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("time.sleep", lambda _: None)
    data = os.urandom(20_000)
    server.add("me/model", {"a.pth": data}).cut_once.add("a.pth")
    assert hub.file("me/model", "a.pth").read_bytes() == data
    assert server.ranges == ["bytes=10000-"]


def test_a_data_set_a_revision_and_a_token(server):
    server.add("datasets/me/box", {"a.pth": b"one"}).add("me/secret", {"a.pth": b"two"})
    server.private["me/secret"] = "open sesame"
    assert hub.file("me/box", "a.pth", kind="dataset", revision=COMMIT).read_bytes() == b"one"
    assert "HTTP 401: check the name, or give a token" in refused(MissingWeightsError, hub.file, "me/secret", "a.pth")
    assert hub.file("me/secret", "a.pth", token="open sesame").read_bytes() == b"two"


def test_what_is_not_there(server, monkeypatch):
    server.add("me/model", {"a.pth": b"one"})
    assert "me/model must hold b.pth" in refused(MissingWeightsError, hub.file, "me/model", "b.pth")
    assert "repository on the Hub that you may read, got HTTP 404" in refused(
        MissingWeightsError, hub.file, "me/nobody", "a.pth"
    )
    assert "revision 'v9'" in refused(MissingWeightsError, hub.file, "me/model", "a.pth", revision="v9")
    monkeypatch.setenv("STUDIO_OFFLINE", "1")
    assert "Hub's cache or within reach" in refused(MissingWeightsError, hub.file, "me/model", "a.pth")
    monkeypatch.delenv("STUDIO_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "within reach" in refused(MissingWeightsError, hub.file, "me/model", "a.pth")
    assert "within reach" in refused(MissingWeightsError, hub.names, "me/model", (".pth",))


def test_nobody_answers(server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "go online" in refused(MissingWeightsError, hub.file, "me/model", "a.pth")
    assert "go online" in refused(MissingWeightsError, hub.names, "me/model", (".pth",))


# ----------------------------------------------------------------------------------------------------- pipelines


def test_pushed_and_loaded_it_is_the_same(server, tmp_path):
    with tiny.seeded(3):
        pipeline = TinyPipeline(tiny.TinyNet().eval())
    address = pipeline.push_to_hub("me/tiny", token="mine")
    assert address.endswith(f"me/tiny/commit/{COMMIT}")
    files = server.repositories["me/tiny"]
    assert set(files) == {"model_index.json", "net/config.json", "net/diffusion_pytorch_model.safetensors", "README.md"}
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: diffusers\n")
    assert "TinyPipeline.from_pretrained" in card and "| net | TinyNet | unknown |" in card
    files["evil.py"] = b"raise SystemExit"
    files["net/diffusion_pytorch_model.bin"] = b"a pickle"
    server.seen.clear()
    loaded = TinyPipeline.from_pretrained("me/tiny", revision=COMMIT)
    assert same(pipeline.net, loaded.net)
    assert not [line for line in server.seen if line.endswith((".py", ".bin"))]
    server.seen.clear()
    assert same(pipeline.net, TinyPipeline.from_pretrained("me/tiny", revision=COMMIT, local_files_only=True).net)
    assert not server.seen


def test_nobody_pushes_without_a_token(server):
    server.add("me/tiny", {})
    assert "HTTP 401" in refused(MissingWeightsError, tiny.tiny_pipeline().push_to_hub, "me/tiny")
    assert "owner/name" in refused(InputError, tiny.tiny_pipeline().push_to_hub, "tiny", token="mine")


def test_another_pipeline_and_an_empty_repository(server, tmp_path):
    server.add("me/other", {"model_index.json": b'{"_class_name": "Other"}'}).add("me/empty", {"a.txt": b"x"})
    assert "must hold a TinyPipeline, but holds 'Other'" in refused(
        InputError, TinyPipeline.from_pretrained, "me/other"
    )
    assert "or one file of weights, and has none" in refused(InputError, TinyPipeline.from_pretrained, "me/empty")
    assert "got a single RRDBNet" in refused(
        InputError, TinyPipeline.from_pretrained, "me/net/a.pth", **on(server, tmp_path)
    )


def on(server, tmp_path):
    server.add("me/net", {"a.pth": as_bytes(tmp_path, toy().state_dict())})
    return {}


# ----------------------------------------------------------------------------------------------- published files


@pytest.mark.parametrize("wrapped", [lambda x: x, lambda x: {"params": {}, "params_ema": x}, lambda x: {"params": x}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_from_a_path_a_folder_and_the_hub(server, tmp_path, wrapped, prefix):
    net = toy()
    tensors = {prefix + name: value for name, value in net.state_dict().items()}
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "net.pth"
    torch.save(wrapped(tensors), file)
    server.add("me/net", {"net.pth": file.read_bytes(), "README.md": b"hello"})
    for given in (file, str(file), tmp_path / "folder", "me/net", "me/net/net.pth"):
        assert same(net, weights.network_in(weights.find(given)))


def test_safetensors_serve_as_well(server, tmp_path):
    save_file(toy().state_dict(), tmp_path / "net.safetensors")
    assert same(toy(), weights.network_in(tmp_path / "net.safetensors"))


def test_it_is_converted_once(server, tmp_path, monkeypatch):
    file = tmp_path / "net.pth"
    torch.save(toy().state_dict(), file)
    weights.from_file(file)
    monkeypatch.setattr(published, "read", lambda _: pytest.fail("read again"))
    assert same(toy(), weights.from_file(file))
    folder = tmp_path / "cache" / "weights" / "files" / weights.sha256_of(file)
    assert sorted(one.name for one in folder.iterdir()) == [weights.CONFIG, weights.TENSORS, weights.PASSPORT]


def test_a_repository_with_several_files(server, tmp_path):
    server.add("me/net", {"a.pth": b"1", "b.safetensors": b"2"})
    assert "has a.pth, b.safetensors: name one as me/net/FILE" in refused(InputError, weights.find, "me/net")
    assert "is no file here, and me/net must hold c.pth" in refused(MissingWeightsError, weights.find, "me/net/c.pth")


# -------------------------------------------------------------------------------------------------- known names


@pytest.fixture
def known(server, tmp_path, monkeypatch):
    """A manifest entry of a checkpoint that lies on the Hub."""
    data = as_bytes(tmp_path, {"params_ema": toy().state_dict()})
    (tmp_path / "expected").write_bytes(data)
    digest = weights.sha256_of(tmp_path / "expected")
    server.add("authors/net", {"v1/net.pth": data})
    passport = weights.Entry(
        name="net-1",
        title="toy",
        network="studio.networks.rrdb:RRDBNet",
        licence="MIT",
        commercial="no",
        source="its authors",
        input="",
        published=Published("net.pth", "their page", "authors/net", "v1/net.pth", sha256=digest),
        convert="torch:network",
        options={"family": "realesrgan"},
    )
    monkeypatch.setattr(weights, "entries", lambda: {"net-1": passport})
    return server


def test_a_known_name_is_fetched_once(known):
    assert weights.locate("net-1")[0] == "absent"
    assert same(toy(), weights.load("net-1"))
    known.seen.clear()
    assert same(toy(), weights.load("net-1"))
    assert not known.seen
    assert weights.check("net-1").ok


def test_another_file_under_that_name_is_refused(known, tmp_path):
    known.repositories["authors/net"]["v1/net.pth"] = as_bytes(tmp_path, {"params_ema": toy(1).state_dict()})
    assert "must have sha256" in refused(WeightsError, weights.load, "net-1")
    assert weights.locate("net-1")[0] == "absent"


def test_what_the_user_has_is_used(known, tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_OFFLINE", "1")
    said = refused(MissingWeightsError, weights.load, "net-1")
    own = tmp_path / "cache" / "files"
    assert re.search(r"net\.pth is needed .* get it from their page, and put it into", said)
    assert str(own) in said
    own.mkdir(parents=True)
    (own / "net.pth").write_bytes((tmp_path / "expected").read_bytes())
    assert same(toy(), weights.load("net-1"))


def test_the_licence_filter(known, tmp_path, monkeypatch):
    with weights.only("commercial"):
        assert "'net-1' says 'no' (MIT)" in refused(InputError, weights.load, "net-1")
    monkeypatch.setenv("STUDIO_LICENCE", "commercial")
    refused(InputError, weights.load, "net-1")
    with weights.only("any"):
        weights.load("net-1")
    monkeypatch.setenv("STUDIO_LICENCE", "free")
    assert "licence must be any or commercial, got 'free'" in refused(InputError, weights.load, "net-1")
    # A file is known by its hash, wherever it lies; of others nothing is known.
    monkeypatch.setenv("STUDIO_LICENCE", "commercial")
    (tmp_path / "mine.pth").write_bytes((tmp_path / "expected").read_bytes())
    assert "'net-1' says 'no'" in refused(InputError, weights.from_file, tmp_path / "mine.pth")
    torch.save(toy(2).state_dict(), tmp_path / "other.pth")
    assert "nothing is known of" in refused(InputError, weights.from_file, tmp_path / "other.pth")
    tiny.tiny_pipeline().save_pretrained(tmp_path / "saved")
    assert "nothing is known of" in refused(InputError, TinyPipeline.from_pretrained, tmp_path / "saved")
    assert TinyPipeline.from_pretrained(tmp_path / "saved", licence="any")


# ------------------------------------------------------------------- networks of diffusers, a pickle and an ONNX file

ARC2FACE = {"arcface": {}, "arc2face-encoder": {}, "arc2face-unet": {}, "stable-diffusion-vae": {}}


def files_in(folder, prefix):
    return {f"{prefix}/{file.name}": file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def arc2face(server, tmp_path, monkeypatch):
    """Arc2Face and Stable Diffusion 1.5 at toy sizes, in the files in which they were published."""
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    from tests.convert.test_onnx import Writer

    toys = tiny.arc2face_pipeline()
    for name in ("unet", "vae"):
        getattr(toys, name).save_pretrained(tmp_path / name)
    toys.tokenizer.backend_tokenizer.model.save(str(tmp_path))
    encoder = {f"text_model.{name}": value for name, value in toys.text_encoder.state_dict().items()}
    server.add(
        "FoivosPar/Arc2Face",
        {
            "arcface.onnx": Writer().write(toys.arcface, tmp_path / "arcface.onnx").read_bytes(),
            "encoder/pytorch_model.bin": as_bytes(tmp_path, encoder),
            **files_in(tmp_path / "unet", "arc2face"),
        },
    )
    words = {name: (tmp_path / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    server.add(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        {**files_in(tmp_path / "vae", "vae"), **{f"tokenizer/{name}": data for name, data in words.items()}},
    )
    sizes = {"arcface": toys.arcface.config, "arc2face-encoder": toys.text_encoder.config.to_diff_dict()}
    sizes = json.loads(json.dumps(sizes))  # lists, as in the manifest
    passports = {
        name: replace(one, options={key: value for key, value in sizes.get(name, {}).items() if key[0] != "_"})
        for name, one in weights.entries().items()
        if name in ARC2FACE or name in weights.FACE_NETWORKS.values()
    }
    monkeypatch.setattr(weights, "entries", lambda: passports)
    for part, name in weights.FACE_NETWORKS.items():
        getattr(toys, part).save_pretrained(tmp_path / "own" / name)
    monkeypatch.setenv("STUDIO_WEIGHTS", str(tmp_path / "own"))
    return toys


def test_arc2face_is_put_together_from_its_published_files(server, arc2face):
    assert {weights.locate(name)[0] for name in ARC2FACE} == {"absent"}
    found = Arc2FacePipeline.from_pretrained("arc2face", dtype=torch.float32)
    for name in ("unet", "text_encoder", "vae"):
        assert same(getattr(arc2face, name), getattr(found, name)), name
    crops = tiny.image(16, 16)[None]
    torch.testing.assert_close(found.arcface.unit(crops), arc2face.arcface.unit(crops))
    ids = [pipeline.tokenizer("photo of a id person", padding="max_length").input_ids for pipeline in (found, arc2face)]
    assert ids[0] == ids[1] and len(ids[0]) == 77
    assert {weights.locate(name)[0] for name in ARC2FACE} == {"cache"}
    assert all(weights.check(name).ok for name in ARC2FACE)
    # What is in the caches is not asked for again where nothing may be fetched; the pickle was read once.
    assert sorted(path.name for path in weights.path("arc2face-encoder").iterdir() if path.suffix != ".json") == [
        "model.safetensors"
    ]


def test_arc2face_without_a_connection(server, arc2face, monkeypatch):
    monkeypatch.setenv("STUDIO_OFFLINE", "1")
    said = refused(MissingWeightsError, Arc2FacePipeline.from_pretrained, "arc2face")
    assert "config.json" in said and "'arc2face-unet'" in said and "STUDIO_WEIGHTS" in said
    monkeypatch.delenv("STUDIO_OFFLINE")
    Arc2FacePipeline.from_pretrained("arc2face")
    monkeypatch.setenv("STUDIO_OFFLINE", "1")
    server.seen.clear()
    assert same(arc2face.unet, Arc2FacePipeline.from_pretrained("arc2face").unet)
    assert not server.seen


def test_arc2face_is_not_for_commercial_use(server, arc2face):
    assert "allow commercial use" in refused(
        InputError, Arc2FacePipeline.from_pretrained, "arc2face", licence="commercial"
    )
    assert not server.seen


def test_a_denoiser_in_a_folder_of_the_user(server, arc2face, tmp_path):
    with tiny.seeded(5):
        other = type(arc2face.unet).from_config(arc2face.unet.config)
    other.save_pretrained(tmp_path / "own" / "arc2face-unet")
    assert weights.locate("arc2face-unet")[0] == "folder"
    assert same(other, Arc2FacePipeline.from_pretrained("arc2face").unet)
