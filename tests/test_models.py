"""Loading models: layouts, missing keys, security, the hub, memory and devices."""

import gc
import http.server
import json
import pickle
import shutil
import threading
import weakref
from pathlib import Path

import diffusers
import numpy as np
import pytest
import tiny_models as tiny
import torch

from diffpath import DiffPathV2, ModelError, load_model
from diffpath.models import NoisePredictor
from diffpath.models.schedule import read_schedule

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    """A complete pixel model."""
    return tiny.write(tmp_path / "model", tiny.unet(), diffusers.DDPMScheduler())


def load(folder, **options):
    return load_model(str(folder), "cpu", "float32", **options)


def one_sentence(caught):
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize("key", ["_class_name", "num_train_timesteps", "prediction_type", "beta_schedule", "beta_end"])
def test_a_schedule_is_never_guessed(key):
    config = {**diffusers.DDPMScheduler().config, "_class_name": "DDPMScheduler", key: None}
    with pytest.raises(ModelError, match=f"'tiny' does not say '{key}'"):
        read_schedule(config, "tiny")


@pytest.mark.parametrize(
    "scheduler, keys",
    [
        (diffusers.ScoreSdeVeScheduler(), ("num_train_timesteps", "sigma_min", "sigma_max")),
        (diffusers.EDMEulerScheduler(), ("sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "rho")),
    ],
)
def test_noise_levels_are_never_guessed(scheduler, keys):
    config = {**scheduler.config, "_class_name": type(scheduler).__name__}
    read_schedule(config, "tiny")
    for key in keys:
        with pytest.raises(ModelError, match=f"does not say '{key}'"):
            read_schedule({**config, key: None}, "tiny")


def test_ends_of_the_betas_are_not_asked_for_where_the_schedule_has_none():
    config = dict(_class_name="DDIMScheduler", num_train_timesteps=100, prediction_type="epsilon")
    schedule = read_schedule({**config, "beta_schedule": "squaredcos_cap_v2"}, "tiny")
    assert len(schedule) == 100
    assert len(read_schedule({**config, "trained_betas": [0.1] * 30}, "tiny")) == 30


@pytest.mark.parametrize("kind", ["FlowMatchEulerDiscreteScheduler", "NoSuchScheduler", "UNet2DModel"])
def test_a_scheduler_of_another_family_is_named(kind):
    config = {**diffusers.DDPMScheduler().config, "_class_name": kind}
    with pytest.raises(ModelError, match=kind) as caught:
        read_schedule(config, "tiny")
    one_sentence(caught)


@pytest.mark.parametrize("kind", ["FlowMatchEulerDiscreteScheduler", "CMStochasticIterativeScheduler"])
def test_another_family_is_said_before_what_its_own_configuration_lacks(kind):
    config = {**getattr(diffusers, kind)().config, "_class_name": kind}
    with pytest.raises(ModelError, match=f"is {kind}, of (flow matching|another family).*choose") as caught:
        read_schedule(config, "tiny")
    one_sentence(caught)


def test_an_early_repository_with_all_at_its_root_loads_once_its_prediction_type_is_given(tmp_path):
    folder = tiny.write_at_root(tmp_path, tiny.unet(), tiny.EARLY_SCHEDULER)
    with pytest.raises(ModelError, match="'prediction_type'.*pass prediction_type='epsilon'") as caught:
        load(folder)
    one_sentence(caught)
    model = load(folder, prediction_type="epsilon")
    expected = diffusers.DDPMScheduler(beta_schedule="linear").alphas_cumprod
    torch.testing.assert_close(model.alphas_cumprod, expected)
    assert model.fingerprint != load(folder, prediction_type="sample").fingerprint


def test_attention_under_its_names_of_2022_is_read(tmp_path):
    from safetensors.torch import load_file, save_file

    module = tiny.unet(
        flip_sin_to_cos=False, freq_shift=1, downsample_padding=0, norm_eps=1e-6, attention_head_dim=None
    )
    folder = tiny.write_at_root(tmp_path, module, tiny.EARLY_SCHEDULER)
    path = folder / "diffusion_pytorch_model.safetensors"
    early = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    renamed = {}
    for name, value in state.items():
        for new, old in early.items():
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = value
    assert renamed.keys() != state.keys()
    save_file(renamed, path)
    x, t = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    with torch.no_grad():
        expected = module(x, t).sample
    actual = load(folder, prediction_type="epsilon").predict_noise(x, t)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_what_a_checkpoint_says_cannot_be_overruled(folder):
    with pytest.raises(ModelError, match="says prediction_type 'epsilon'"):
        load(folder, prediction_type="v_prediction")


def test_the_same_weights_have_the_same_fingerprint_and_others_another(folder, tmp_path):
    again = shutil.copytree(folder, tmp_path / "copy")
    other = tiny.write(tmp_path / "other", tiny.unet(sample_size=32), diffusers.DDPMScheduler())
    assert load(folder).fingerprint == load(again).fingerprint != load(other).fingerprint
    assert load(folder).revision is None


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(_class_name="UNet1DModel"), "must be one of UNet2DModel.* got UNet1DModel"),
        (dict(in_channels=None), "does not say 'in_channels'"),
        (dict(sample_size=None), "does not say 'sample_size'"),
        (dict(sample_size=[16, 32]), "must be a square"),
        (dict(block_out_channels=[8, 24]), "are not of one model"),
        (dict(layers_per_block=2), "are not of one model"),
        (dict(class_embed_type="timestep"), "class_embed_type 'timestep'"),
        (dict(num_class_embeds=4), "pass class_label"),
        (dict(in_channels=5), "are not of one model"),
    ],
)
def test_a_network_that_does_not_fit_is_one_sentence(folder, change, message):
    tiny.edit_json(folder / "unet" / "config.json", **change)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    one_sentence(caught)


def test_incomplete_weights_are_never_filled_up_with_random_ones(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["conv_out.bias"], state["conv_in.weight"]
    save_file(state, path)
    with pytest.raises(ModelError, match="conv_in.weight|lack 2 parameters|cannot be loaded") as caught:
        load(folder)
    one_sentence(caught)


def test_a_model_whose_files_change_is_loaded_again(folder):
    first = load(folder)
    assert load(folder) is first
    tiny.unet(sample_size=32).save_pretrained(folder / "unet")
    assert load(folder).resolution == 32


def test_latents_without_an_autoencoder_are_refused(tmp_path):
    tiny.write(tmp_path, tiny.unet(in_channels=4, out_channels=4), diffusers.DDPMScheduler())
    with pytest.raises(ModelError, match="4 channels.*no autoencoder"):
        load(tmp_path)


def test_an_autoencoder_must_say_its_scale(tmp_path):
    unet = tiny.unet(in_channels=4, out_channels=4, sample_size=8)
    tiny.write(tmp_path, unet, diffusers.DDPMScheduler(), space=("vae", tiny.autoencoder()))
    assert load(tmp_path).space.scaling == 0.7
    tiny.edit_json(tmp_path / "vae" / "config.json", scaling_factor=None)
    with pytest.raises(ModelError, match="'scaling_factor'.*latent_scaling"):
        load(tmp_path)
    assert load(tmp_path, latent_scaling=0.2).space.scaling == 0.2
    tiny.edit_json(tmp_path / "vae" / "config.json", _class_name="AutoencoderTiny")
    with pytest.raises(ModelError, match="AutoencoderKL or VQModel, got AutoencoderTiny"):
        load(tmp_path)


@pytest.mark.parametrize("label, message", [(9, "from 0 to 3"), (-1, "from 0 to 3")])
def test_a_class_must_be_one_of_the_networks(tmp_path, label, message):
    tiny.write(tmp_path, tiny.unet(num_class_embeds=4), diffusers.DDPMScheduler())
    with pytest.raises(ModelError, match=message):
        load(tmp_path, class_label=label)
    assert load(tmp_path, class_label=2).network.extras["class_labels"].tolist() == [2]


def test_a_dit_under_its_published_class_name_is_read(tmp_path):
    module = tiny.dit()
    tiny.write(tmp_path, module, diffusers.DDIMScheduler(), part="transformer", space=("vae", tiny.autoencoder()))
    path = tmp_path / "transformer" / "config.json"
    tiny.edit_json(path, _class_name="Transformer2DModel", use_linear_projection=False, only_cross_attention=False)
    model = load(tmp_path)
    assert model.network.extras["class_labels"].tolist() == [5] and model.resolution_multiple == 4
    assert load(tmp_path, class_label=2).network.extras["class_labels"].tolist() == [2]
    with pytest.raises(ModelError, match="from 0 to 5"):
        load(tmp_path, class_label=6)
    tiny.edit_json(path, norm_type="ada_norm_single")
    with pytest.raises(ModelError, match="must be a DiT"):
        load(tmp_path)


def test_a_text_model_that_wants_more_than_a_prompt_is_refused(tmp_path):
    tiny.write(tmp_path, tiny.text_unet(), diffusers.DDPMScheduler(), space=("vae", tiny.autoencoder()))
    with pytest.raises(ModelError, match="no text_encoder"):
        load(tmp_path)
    tiny.edit_json(tmp_path / "unet" / "config.json", addition_embed_type="text_time")
    with pytest.raises(ModelError, match="SDXL"):
        load(tmp_path)


def test_an_unknown_key_of_the_own_configuration_is_named(folder):
    tiny.edit_json(folder / "diffpath.json", timestep_scales=2)
    with pytest.raises(ModelError, match="'timestep_scales'; it may have timestep_scale"):
        load(folder)


@pytest.mark.parametrize(
    "removed, message",
    [
        ("unet/config.json", "config.json"),
        ("scheduler/scheduler_config.json", "scheduler/scheduler_config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "no unet/diffusion_pytorch_model.safetensors"),
    ],
)
def test_a_missing_file_is_named(folder, removed, message):
    (folder / removed).unlink()
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    one_sentence(caught)


def test_a_timestep_without_any_image_left_is_refused_with_the_way_out(tmp_path):
    tiny.write(tmp_path, tiny.unet(), diffusers.DDPMScheduler(rescale_betas_zero_snr=True))
    DiffPathV2(str(tmp_path), num_timesteps=2)
    with pytest.raises(ModelError, match="no image left"):
        DiffPathV2(str(tmp_path), num_timesteps=2, timestep_range=(0, 1))


# Security


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def pickle_weights(folder):
    """Turns a folder's safetensors into a pickle."""
    part = folder / "unet"
    state = tiny.unet().state_dict()
    torch.save(state, part / "diffusion_pytorch_model.bin")
    (part / "diffusion_pytorch_model.safetensors").unlink()
    return state


def test_pickled_weights_need_a_flag_and_then_load_as_tensors(folder):
    expected = load(folder).network.module.state_dict()
    pickle_weights(folder)
    with pytest.raises(ModelError, match="allow_pickle=True") as caught:
        load(folder)
    one_sentence(caught)
    actual = load(folder, allow_pickle=True).network.module.state_dict()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_code_in_pickled_weights_is_never_run(folder, tmp_path):
    state = pickle_weights(folder)
    torch.save({**state, "trap": Trap(tmp_path / "sprung")}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load(folder, allow_pickle=True)
    one_sentence(caught)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung"))).close()  # the trap is one
    assert (tmp_path / "sprung").exists()


def test_code_that_a_repository_brings_is_never_imported(folder, tmp_path):
    (folder / "unet" / "network.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    tiny.edit_json(folder / "unet" / "config.json", auto_map={"AutoModel": "network.Network"})
    load(folder)
    tiny.edit_json(folder / "unet" / "config.json", _class_name="network.Network")
    with pytest.raises(ModelError, match="got network.Network"):
        load(folder)
    assert not (tmp_path / "sprung").exists()


# The hub: a small server in its place, so that the real client runs


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves ``root/owner/name`` as model repositories, as far as the client asks."""

    root, requested = None, None

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        path = self.path.split("?")[0].strip("/")
        self.requested.append(path)
        parts = path.removeprefix("api/models/").split("/")
        repository, rest = "/".join(parts[:2]), parts[2:]
        folder = self.root / repository
        if repository == "some/gated":
            return self.refuse(403, "GatedRepo")
        if not folder.is_dir():
            return self.refuse(404, "RepoNotFound")
        if rest and rest[0] in ("revision", "tree", "resolve") and rest[1] not in ("main", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        if path.startswith("api/") and "tree" in rest:
            entries = [
                {"type": "file", "path": str(f.relative_to(folder)), "size": f.stat().st_size, "oid": "0" * 40}
                for f in files
            ]
            return self.answer(json.dumps(entries).encode(), head)
        if path.startswith("api/"):
            siblings = [{"rfilename": str(file.relative_to(folder))} for file in files]
            return self.answer(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode(), head)
        file = folder / "/".join(rest[2:])
        return self.answer(file.read_bytes(), head) if file.is_file() else self.refuse(404, "EntryNotFound")

    def answer(self, content, head):
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hash(content) & (2**64 - 1):016x}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not head:
            self.wfile.write(content)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def forget_sessions():
    """Older clients ask whether they are offline only when a session begins."""
    from huggingface_hub import utils

    getattr(utils, "reset_sessions", lambda: None)()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with ``some/model``; the client's cache is empty and its address is a server here."""
    from huggingface_hub import constants, file_download

    handler = type("Handler", (Hub,), {"root": tmp_path / "hub", "requested": []})
    tiny.write(tmp_path / "hub" / "some" / "model", tiny.unet(), diffusers.DDPMScheduler())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # older clients copy the constant
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    forget_sessions()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hub_model_is_fetched_pinned_to_its_commit_and_found_again_offline(hub, monkeypatch):
    from huggingface_hub import constants

    (hub.root / "some" / "model" / "samples.png").write_bytes(b"not wanted")
    (hub.root / "some" / "model" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not wanted")
    model = load("some/model")
    assert model.revision == COMMIT and model.name == "some/model"
    assert model.fingerprint == load(hub.root / "some" / "model").fingerprint
    fetched = [Path(path).name for path in hub.requested if "/resolve/" in path]
    assert "diffusion_pytorch_model.safetensors" in fetched
    assert "samples.png" not in fetched and "diffusion_pytorch_model.bin" not in fetched
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget_sessions()
    assert load("some/model", revision=COMMIT).revision == COMMIT
    with pytest.raises(ModelError, match="'some/other' cannot be fetched and is not in the cache; check the network"):
        load("some/other")


def test_pickled_hub_weights_are_fetched_only_when_they_are_allowed(hub):
    pickle_weights(hub.root / "some" / "model")
    with pytest.raises(ModelError, match="allow_pickle=True"):
        load("some/model")
    assert not any(path.endswith(".bin") for path in hub.requested)
    assert load("some/model", allow_pickle=True).revision == COMMIT


def test_what_is_known_of_an_early_checkpoint_fills_in_what_it_leaves_unsaid(hub):
    tiny.write_at_root(hub.root / "google" / "ddpm-cifar10-32", tiny.unet(), tiny.EARLY_SCHEDULER)
    assert load("google/ddpm-cifar10-32").num_train_timesteps == 1000


@pytest.mark.parametrize(
    "model, options, message",
    [
        ("some/gated", {}, "'some/gated' is gated: accept its terms"),
        ("some/nothing", {}, "no model 'some/nothing', or it is private"),
        ("some/model", {"revision": "v7"}, "no revision 'v7'"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub, model, options, message):
    with pytest.raises(ModelError, match=message) as caught:
        load(model, **options)
    one_sentence(caught)


def test_a_missing_network_is_one_sentence(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ModelError, match="check the network") as caught:
        load("some/model")
    one_sentence(caught)


def test_a_folder_has_no_revision(folder):
    with pytest.raises(ModelError, match="leave revision out"):
        load(folder, revision="main")


# Memory and devices


def limited(most, error):
    """A network that runs out of memory above a batch size, and what it was asked."""
    asked = []

    def network(inputs, conditioning):
        asked.append(len(inputs))
        if len(inputs) > most:
            raise error
        return inputs * 0.1

    return NoisePredictor(network, diffusers.DDPMScheduler().alphas_cumprod, resolution=16), asked


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.01 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:20])
def test_out_of_memory_halves_the_batch_and_goes_on(error, photos):
    predictor, asked = limited(11, error)
    method = DiffPathV2(predictor, num_timesteps=4, max_evaluations=64)
    result = method.score_images(photos)
    roomy = DiffPathV2(limited(64, error)[0], num_timesteps=4, max_evaluations=64).score_images(photos)
    np.testing.assert_allclose(result.descriptor, roomy.descriptor, rtol=1e-5, atol=1e-6)
    assert asked[:4] == [64, 32, 16, 8] and max(asked[3:]) == 8
    assert method.max_evaluations == 8  # later images do not try again in vain


def test_a_single_image_that_does_not_fit_is_one_sentence(photos):
    method = DiffPathV2(limited(0, MemoryError())[0], num_timesteps=2)
    with pytest.raises(ModelError, match="does not fit into the memory of cpu; use a smaller resolution") as caught:
        method.score_images(photos[:1])
    one_sentence(caught)


def test_a_model_that_does_not_fit_is_one_sentence(folder, monkeypatch):
    def full(module, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(diffusers.UNet2DModel, "to", full)
    with pytest.raises(ModelError, match="does not fit into the memory of cpu; choose a smaller one") as caught:
        load(folder)
    one_sentence(caught)


def test_another_error_is_not_taken_for_a_lack_of_memory(photos):
    predictor, asked = limited(0, RuntimeError("expected scalar type Half"))
    with pytest.raises(RuntimeError, match="Half"):
        DiffPathV2(predictor, num_timesteps=2).score_images(photos[:1])
    assert len(asked) == 1


def test_images_are_split_among_devices_and_come_back_in_order(folder, photos):
    one = DiffPathV2(str(folder), device="cpu", dtype="float32", num_timesteps=3)
    expected = one.score_images(photos).descriptor
    for devices in (["cpu", "cpu"], "cpu, cpu", ("cpu", "cpu", "cpu")):
        split = DiffPathV2(str(folder), device=devices, dtype="float32", num_timesteps=3, max_evaluations=6)
        assert len(split.predictors) == len(devices if not isinstance(devices, str) else [0, 1])
        assert split.images_per_pass == 2  # each
        np.testing.assert_allclose(split.score_images(photos).descriptor, expected, rtol=1e-4, atol=1e-5)


def test_devices_work_at_the_same_time(photos):
    barrier = threading.Barrier(2, timeout=20)  # broken, if one device waits for the other to finish

    def network(inputs, conditioning):
        barrier.wait()
        return inputs

    predictor = NoisePredictor(network, diffusers.DDPMScheduler().alphas_cumprod, resolution=16)
    method = DiffPathV2(predictor, device=["cpu", "cpu"], num_timesteps=2, max_evaluations=2)
    assert len(method.score_images(photos[:4])) == 4


def test_a_model_is_loaded_once_while_it_is_in_use_and_then_leaves_the_device(folder):
    predictor = load(folder)
    assert load(folder) is predictor and DiffPathV2(str(folder), device="cpu", dtype="float32").predictor is predictor
    assert load(folder, class_label=None) is predictor and load_model(str(folder), "cpu", "bfloat16") is not predictor
    weight = weakref.ref(next(predictor.network.module.parameters()))
    del predictor
    gc.collect()
    assert weight() is None
    assert load(folder).channels == 3


@pytest.mark.parametrize("device", ["gpu 3", "cuda:99", "cpu, cuda:99"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ModelError, match=f"'{device.split(', ')[-1]}'") as caught:
        DiffPathV2(device=device)
    one_sentence(caught)


def test_a_compiled_network_says_what_the_plain_one_does(folder, monkeypatch):
    compiled = []

    def compile(module):  # a compiler takes minutes; what is compiled, and that it is used, is ours
        compiled.append(module)
        return torch.nn.Sequential(module)[0]

    monkeypatch.setattr(torch, "compile", compile)
    x, t = torch.zeros(1, 3, 16, 16), torch.tensor([5])
    torch.testing.assert_close(load(folder, compile=True).predict_noise(x, t), load(folder).predict_noise(x, t))
    assert len(compiled) == 1
