"""Arc2FacePipeline with toy networks: the contract, the token that becomes a person, guidance, schedulers, adapters."""

import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, LCMScheduler
from safetensors.torch import load_file, save_file

from pipelines import arc2face
from pipelines.arc2face import PROMPT, Arc2FacePipeline
from studio.errors import ImageError, InputError, NoFaceError, WeightsError
from tests import tiny
from tests.contract import PipelineContract, Recorder, With, plain, same


class OneFinder(tiny.SureFinder):
    """`SureFinder` for faces with 24 px and more between the eyes."""


@pytest.fixture(autouse=True)
def finder(monkeypatch):
    monkeypatch.setattr(arc2face, "FaceFinder", OneFinder)


def photo(width=80, seed=7):
    return tiny.image(72, width, seed=seed)


def vector(seed=0):
    return F.normalize(torch.randn(16, generator=torch.Generator().manual_seed(seed)), dim=0)


class Arc2FaceConfig:
    batch_argument = None

    def pipeline(self):
        return tiny.arc2face_pipeline()

    def inputs(self):
        return {
            "identity": vector(),
            "consent": True,
            "num_inference_steps": 2,
            "num_images_per_prompt": 2,
            "output_type": "pt",
            "generator": torch.Generator().manual_seed(0),
        }

    def variations(self):
        return {
            "identity": [vector(1), photo(), [vector(), photo()]],
            "consent": False,
            "face": With(1, identity=photo(160), face=0),
            "num_images_per_prompt": 3,
            "guidance_scale": [1, 5.0],
            "num_inference_steps": 3,
            "generator": [torch.Generator().manual_seed(5), None],
            "callback_on_step_end": Recorder(),
            "callback_on_step_end_tensor_inputs": [["no_such_tensor"], "latents"],
            "latents": [torch.ones(2, 4, 32, 32), torch.ones(2, 4, 32, 31)],
            "output_type": ["pil", "np"],
        }

    def bad_inputs(self):
        broken = vector()
        broken[3] = float("nan")
        return [
            ({"consent": False}, InputError, "consent=True"),
            ({"consent": 1}, InputError, "consent must be True or False"),
            ({"identity": None}, ImageError, "got NoneType"),
            ({"identity": torch.zeros(3, 72, 80)}, NoFaceError, "none was found"),
            ({"identity": photo(160)}, InputError, "shows 2: pass face=0 for the largest"),
            ({"identity": photo(160), "face": 2}, InputError, "face must be from 0 to 1.*got 2"),
            ({"identity": b"no image"}, ImageError, "image"),
            ({"identity": torch.zeros(128)}, InputError, r"\(16,\), got \(128,\)"),
            ({"identity": np.zeros((1, 16), np.float32)}, InputError, r"got \(1, 16\)"),
            ({"identity": broken}, InputError, "finite"),
            ({"identity": 0 * vector()}, InputError, "not zero"),
            ({"identity": []}, InputError, "empty list"),
            ({"num_images_per_prompt": 0}, InputError, "1 to 16"),
            ({"num_images_per_prompt": True}, InputError, "num_images_per_prompt"),
            ({"num_inference_steps": 101}, InputError, "num_inference_steps"),
            ({"guidance_scale": 0.5}, InputError, "guidance_scale must be from 1 to 20"),
            ({"guidance_scale": float("nan")}, InputError, "guidance_scale"),
            ({"face": -1}, InputError, "face must be"),
        ]


class TestArc2Face(Arc2FaceConfig, PipelineContract):
    pass


def run(pipeline=None, **changes):
    return (pipeline or tiny.arc2face_pipeline())(**{**Arc2FaceConfig().inputs(), **changes})


# ---- the person in the prompt


def looked_up(pipeline, call):
    """What comes out of the token embedding while `call` runs."""
    found = []
    handle = pipeline.text_encoder.embeddings.register_forward_hook(lambda _, __, given: found.append(given))
    with torch.no_grad():
        call()
    handle.remove()
    return found[0]


def test_exactly_the_token_of_the_person_is_replaced():
    pipeline = tiny.arc2face_pipeline()
    ids = pipeline.tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
    words = pipeline.tokenizer.convert_ids_to_tokens(ids[0])
    assert words[:7] == ["<|startoftext|>", "photo</w>", "of</w>", "a</w>", "id</w>", "person</w>", "<|endoftext|>"]
    assert ids.shape == (1, 77)
    before = looked_up(pipeline, lambda: pipeline.text_encoder(ids))
    after = looked_up(pipeline, lambda: pipeline.encode(vector()))
    position = pipeline.text_encoder.embeddings.position_embedding.weight[4]
    torch.testing.assert_close(after[0, 4], F.pad(vector(), (0, 8)) + position)
    others = [i for i in range(77) if i != 4]
    assert torch.equal(after[0, others], before[0, others])
    assert not torch.equal(after[0, 4], before[0, 4])


def test_the_prompt_is_the_last_hidden_state_and_the_other_one_is_empty():
    pipeline = tiny.arc2face_pipeline()
    empty = torch.tensor([[0, *[1] * 76]])
    with torch.no_grad():
        prompt, plain_prompt = pipeline.encode(vector()), pipeline.encode(None)
        assert torch.equal(plain_prompt, pipeline.text_encoder(empty).last_hidden_state)
    assert prompt.shape == plain_prompt.shape == (1, 77, 24)
    torch.testing.assert_close(prompt.mean(2), torch.zeros(1, 77), atol=1e-5, rtol=0)  # behind the last layer norm
    assert not torch.allclose(prompt, plain_prompt, atol=0.1)


def test_two_threads_encode_two_people():
    pipeline = tiny.arc2face_pipeline()
    with torch.no_grad():
        alone = [pipeline.encode(vector(seed)) for seed in range(2)]
    found, barrier = {}, threading.Barrier(2)

    @torch.no_grad()
    def work(seed):
        barrier.wait()
        found[seed] = [pipeline.encode(vector(seed)) for _ in range(400)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # they take turns in the middle of everything
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert all(torch.equal(one, alone[seed]) for seed in range(2) for one in found[seed])


def test_a_tokenizer_that_cuts_the_placeholder_up():
    pipeline = tiny.arc2face_pipeline()
    pipeline.tokenizer = tiny.clip_tokenizer("photo of a person i d")
    with pytest.raises(InputError, match="as one token, got 2 tokens"):
        run(pipeline)


def test_the_length_of_a_vector_does_not_matter():
    assert same(plain(run(identity=7 * vector())), plain(run()), tolerance=1e-4)


def test_photos_are_averaged_on_the_sphere():
    pipeline = tiny.arc2face_pipeline()
    with torch.no_grad():
        one, other = (pipeline.person(photo(seed=seed)).vector for seed in (7, 8))
        both = pipeline.person([photo(seed=7), photo(seed=8)]).vector
    torch.testing.assert_close(both, F.normalize(one + other, dim=0))
    assert float(both.norm()) == pytest.approx(1)


# ---- the report


def test_the_report():
    output = run(identity=[photo(), vector()])
    report = output.report.to_dict()
    assert report["consent"] is True and report["note"].startswith("generated")
    first, second = report["references"]
    assert first["eye_distance"] > 12 and first["distance"] == pytest.approx(0, abs=1e-5)
    assert second == {
        "name": "embedding 2", "eye_distance": None, "distance": None, "outlier": False, "monochrome": False
    }  # fmt: skip
    for sample in report["samples"]:
        assert sample["seen"] and -1 <= sample["similarity"] <= 1
        assert sample["identity_distance"] > 0
        assert set(sample["attributes"]) == {"yaw", "pitch"}
    assert report["mean_identity_distance"] > 0
    assert output.identity.shape == (16,)


def test_without_a_photo_nobody_can_judge():
    assert all(sample.identity_distance is None for sample in run().report.samples)


def test_a_vector_that_was_returned_gives_the_same_again():
    output = run(identity=photo())
    assert torch.equal(run(identity=output.identity).images[0], output.images[0])


def test_a_picture_without_a_face(monkeypatch):
    pipeline = tiny.arc2face_pipeline()
    monkeypatch.setattr(pipeline, "decode", lambda latents: torch.zeros(len(latents), 3, 64, 64))
    report = run(pipeline).report
    assert [vars(sample) for sample in report.samples] == [
        {"identity_distance": None, "similarity": None, "seen": False, "attributes": {}}
    ] * 2
    assert report.mean_identity_distance is None


def test_photos_of_somebody_else_are_left_out(monkeypatch):
    pipeline = tiny.arc2face_pipeline()
    vectors = iter([torch.zeros(1, 128), torch.zeros(1, 128), torch.full((1, 128), 0.1)])

    class Encoder:
        def embed(self, pixels, mesh):
            return next(vectors) + 0.05

    monkeypatch.setattr(pipeline, "encoder", Encoder)
    with torch.no_grad():
        person = pipeline.person([photo(seed=seed) for seed in (7, 8, 9)])
        assert [one.outlier for one in person.references] == [False, False, True]
        assert person.references[2].distance == pytest.approx(128**0.5 * 0.1)
        torch.testing.assert_close(person.vector, tiny.arc2face_pipeline().person([photo(), photo(seed=8)]).vector)


# ---- drawing


def test_guidance_moves_away_from_the_empty_prompt():
    """One step of DDIM is linear in what is predicted, so that guidance 1, 2, 3 lie on a line."""
    pipeline = tiny.arc2face_pipeline()
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    with torch.no_grad():
        wanted, empty = pipeline.encode(vector()), pipeline.encode(None)
        noise = pipeline.noise(2, [torch.Generator().manual_seed(0)])
        alone = pipeline.sample(noise, [wanted], 1.0, 1)
        nobody = pipeline.sample(noise, [empty], 1.0, 1)
        guided = pipeline.sample(noise, [wanted, empty], 3.0, 1)
    assert not torch.allclose(alone, nobody)
    torch.testing.assert_close(guided, nobody + 3 * (alone - nobody), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scheduler", [LCMScheduler, EulerAncestralDiscreteScheduler, DDIMScheduler])
def test_any_scheduler_of_diffusers(scheduler):
    pipeline = tiny.arc2face_pipeline()
    other = run(pipeline)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    before = torch.get_rng_state()
    first, second = (run(pipeline, num_inference_steps=4, guidance_scale=1.0) for _ in range(2))
    assert torch.equal(first.images[0], second.images[0]), "what a scheduler draws comes from the generator"
    assert not torch.equal(first.images[0], other.images[0])
    run(pipeline, generator=None)
    assert torch.equal(before, torch.get_rng_state())
    assert pipeline.scheduler.num_inference_steps is None, "the pipeline's own one was used"


def test_a_saved_pipeline_keeps_its_scheduler(tmp_path):
    pipeline = tiny.arc2face_pipeline()
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(tmp_path)
    back = Arc2FacePipeline.from_pretrained(tmp_path)
    assert type(back.scheduler) is LCMScheduler
    assert same(plain(run(pipeline, guidance_scale=1.0)), plain(run(back, guidance_scale=1.0)))


def test_a_saved_denoiser_with_a_tensor_missing(tmp_path):
    tiny.arc2face_pipeline().save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_out.bias"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 missing \(conv_out.bias\)"):
        Arc2FacePipeline.from_pretrained(tmp_path)


def test_the_callback_may_change_the_latents():
    seen = []

    def still(pipeline, step, timestep, given):
        assert type(pipeline) is Arc2FacePipeline
        seen.append((step, int(timestep), given["latents"].shape))
        return {"latents": torch.zeros_like(given["latents"])}

    output = run(callback_on_step_end=still, num_inference_steps=3)
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert seen[0][1] == 999 > seen[-1][1]
    assert {shape for *_, shape in seen} == {(2, 4, 32, 32)}
    assert torch.equal(output.images[0], output.images[1]), "both are drawn from what the callback gave"


def test_slices_and_offloading_change_nothing():
    pipeline = tiny.arc2face_pipeline()
    expected = run(pipeline, identity=photo()).images
    pipeline.enable_attention_slicing()
    pipeline.vae.enable_slicing()
    sliced = run(pipeline, identity=photo()).images
    pipeline.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        offloaded = run(pipeline, identity=photo()).images
    for one, other, wanted in zip(sliced, offloaded, expected, strict=True):
        torch.testing.assert_close(one, wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(other, wanted, atol=1e-5, rtol=0)


def test_every_network_is_offloaded_or_kept():
    pipeline = tiny.arc2face_pipeline()
    networks = {name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    assert set(pipeline.model_cpu_offload_seq.split("->")) | set(pipeline._exclude_from_cpu_offload) == networks


def test_half_precision():
    output = tiny.arc2face_pipeline().to(torch.bfloat16)(**{**Arc2FaceConfig().inputs(), "identity": photo()})
    assert output.images[0].dtype == torch.float32 and output.images[0].isfinite().all()


# ---- adapters


def test_adapters_of_diffusers(tmp_path):
    peft = pytest.importorskip("peft", reason="the extra `lora` is not installed")
    teacher = tiny.arc2face_pipeline()
    teacher.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    Arc2FacePipeline.save_lora_weights(tmp_path, peft.get_peft_model_state_dict(teacher.unet))
    pipeline = tiny.arc2face_pipeline()
    expected = run(pipeline).images[0]
    pipeline.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    adapted = run(pipeline).images[0]
    assert not torch.allclose(adapted, expected)
    with pytest.raises(InputError, match="without adapters"):
        pipeline.save_pretrained(tmp_path / "saved")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    torch.testing.assert_close(run(pipeline).images[0], adapted, atol=1e-5, rtol=0)
    pipeline.save_pretrained(tmp_path / "saved")
    again = Arc2FacePipeline.from_pretrained(tmp_path / "saved")
    assert torch.equal(run(pipeline).images[0], run(again).images[0])
