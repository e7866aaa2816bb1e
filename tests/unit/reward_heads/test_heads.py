"""From pairs to a model directory that loads like any reward model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from grpo.config import ModelConfig
from grpo.errors import ModelError
from grpo.models import resolve_model, tiny_model
from grpo.reward_heads.composition import compose
from grpo.reward_heads.evaluation import score_pairs
from grpo.reward_heads.features import FeatureRun, join_rows, read_features
from grpo.reward_heads.head import RewardHead
from grpo.reward_heads.pairs import read_pairs
from grpo.reward_heads.templates import ask_after
from launch.reward_head import main
from rewards.head_facts import read_facts
from rewards.reward_models.loading import Dtype

QUESTION = 'Is it "kind"?'


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Pairs that differ in one word, at random places."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(80):
        rest = "".join(rng.choice(list("abcdefgh "), size=8))
        rows.append({"prompt": f"Question {number}", "chosen": f"{rest} list", "rejected": f"{rest} def"})
    path = tmp_path_factory.mktemp("pairs") / "words.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def head_of(backbone: Path, layer: int, **changes: object) -> RewardHead:
    rng = np.random.default_rng(1)
    values = {
        "score_weight": rng.normal(size=64).astype(np.float32),
        "norm_weight": rng.normal(size=64).astype(np.float32),
        "backbone": str(backbone),
        "layer": layer,
        "chat_template": ask_after(backbone, QUESTION),
        "facts": {"max_length": 512},
    }
    return RewardHead(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def states(backbone: Path, text: str) -> list[torch.Tensor]:
    model, tokenizer = AutoModel.from_pretrained(backbone, dtype=torch.float32), AutoTokenizer.from_pretrained(backbone)
    with torch.no_grad():
        hidden = model.eval()(torch.tensor([tokenizer(text).input_ids]), output_hidden_states=True).hidden_states
        scaled = [h[0, -1] * (h[0, -1].pow(2).mean() + model.config.rms_norm_eps).rsqrt() for h in hidden]
        return [*scaled[:-1], hidden[-1][0, -1]]  # transformers has applied the final norm, whose weight is 1 here


def text_of(prompt: str, answer: str) -> str:
    turns = [("user", prompt), ("assistant", answer), ("user", QUESTION)]
    written = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return written + "<|im_start|>assistant\n"


def test_features_are_the_states_of_a_pass_for_each_dialogue(backbone: Path, file: Path, tmp_path: Path) -> None:
    pairs = read_pairs([file], per_file=[3])["words"]
    run = FeatureRun(
        backbone=backbone,
        chat_template=ask_after(backbone, QUESTION),
        layers=(1, 2),
        max_length=512,
        dtype=Dtype.float32,
        cache=tmp_path,
    )
    features = read_features(run, pairs)
    assert features.shape == (3, 2, 2, 64)
    for number, pair in enumerate(pairs):
        for side, answer in enumerate((pair.chosen, pair.rejected)):
            expected = states(backbone, text_of(pair.prompt[0][1], answer[-1][1]))
            for place, layer in enumerate(run.layers):
                assert features[number, side, place] == pytest.approx(expected[layer].numpy(), abs=1e-4)
    [kept] = tmp_path.glob("*.npy")
    np.save(kept, features + 1)
    assert read_features(run, pairs) == pytest.approx(features + 1), "read from disk the second time"


def test_rows_joined_at_their_common_beginning() -> None:
    ids, positions, mask, ends = join_rows([[1, 2, 3], [1, 2, 4, 5]])
    assert ids.tolist() == [[1, 2, 3, 4, 5]]
    assert positions.tolist() == [[0, 1, 2, 2, 3]]
    assert ends == [2, 4]
    visible = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    assert (mask[0, 0] == 0).int().tolist() == visible
    assert join_rows([[1, 2], [1, 2]])[0].tolist() == [[1, 2, 2]], "each keeps a token of its own"


@pytest.mark.parametrize("layer", [1, 2])
def test_a_composed_model_is_the_head_on_that_layer(backbone: Path, tmp_path: Path, layer: int) -> None:
    head = head_of(backbone, layer)
    head.save(tmp_path / "h.safetensors")
    loaded = RewardHead.load(tmp_path / "h.safetensors")
    model = compose(backbone, loaded, tmp_path / "model")
    expected = float((states(backbone, text_of("a", "b"))[layer].numpy() * head.norm_weight) @ head.score_weight)
    tokenizer = AutoTokenizer.from_pretrained(model)
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == text_of("a", "b")
    composed = AutoModelForSequenceClassification.from_pretrained(model)
    assert composed.config.num_labels == 1
    assert composed.config.num_hidden_layers == layer
    assert composed.config.pad_token_id not in (None, composed.config.eos_token_id)
    with torch.no_grad():
        assert composed(torch.tensor([tokenizer(text).input_ids])).logits.item() == pytest.approx(expected, abs=1e-3)
    assert (tmp_path / "h.safetensors").stat().st_size < 1000
    assert read_facts(model)["max_length"] == 512
    assert read_facts(backbone) == {}


def test_a_head_that_does_not_fit_is_refused(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="2 blocks; the head was fitted to 64 and reads block 3"):
        compose(backbone, head_of(backbone, 3), tmp_path / "model")
    with pytest.raises(ModelError, match=r"hidden_size=64.*fitted to 5"):
        compose(backbone, head_of(backbone, 1, score_weight=np.ones(5, np.float32)), tmp_path / "model")
    composed = compose(backbone, head_of(backbone, 1), tmp_path / "model")
    with pytest.raises(ModelError, match="a LlamaForSequenceClassification, no backbone"):
        compose(composed, head_of(backbone, 1), tmp_path / "again")
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="no reward head"):
        RewardHead.load(tmp_path / "x.safetensors")


def test_fit_and_evaluate_from_the_command_line(
    backbone: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "words.safetensors"
    arguments = ["fit", "--pairs", str(file), "--backbone", str(backbone), "--layers", "1", "2", "--ridges", "0.1"]
    main([*arguments, "--output", str(out), "--source", "made up", "--licence", "none"])
    head = RewardHead.load(out)
    facts = head.facts["held_out"]["words"]["head"]
    assert facts["accuracy"]["share"] > 0.9, "one word tells"
    assert facts["accuracy"]["count"] + head.facts["num_training_pairs"]["words"] == 80
    assert (head.facts["source"], head.facts["licence"]) == ("made up", "none")
    first = capsys.readouterr().out
    model = compose(backbone, head, tmp_path / "model")
    main(["evaluate", "--model", str(model), "--pairs", str(file), "--json", str(tmp_path / "r.json")])
    printed = capsys.readouterr().out
    assert first.splitlines()[:3] == printed.splitlines()[:3]
    assert f"stated with the head: {facts['accuracy']['share']:.1%}" in printed
    assert json.loads((tmp_path / "r.json").read_text())["words"]["accuracy"] == facts["accuracy"]
    main([*arguments, "--output", str(tmp_path / "again.safetensors"), "--cache", str(tmp_path / "features")])
    assert np.array_equal(RewardHead.load(tmp_path / "again.safetensors").score_weight, head.score_weight)


def test_bad_input_exits_with_2(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output", str(tmp_path / "h.safetensors")]
    for arguments, words in (
        (["fit", "--pairs", str(tmp_path / "none.jsonl"), *out], "none.jsonl"),
        (
            ["fit", "--pairs", str(file), "--judge-on", "x", *out],
            "--judge-on x: no such file of pairs; there are words",
        ),
        (["fit", "--pairs", str(file), "--backbone", "/no/such", *out], "/no/such"),
        (["evaluate", "--model", "tiny-random", "--pairs", str(file)], "not a *ForSequenceClassification"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert words in capsys.readouterr().err


def test_scores_of_pairs_are_differences_of_verdicts(backbone: Path, file: Path, tmp_path: Path) -> None:
    model = compose(backbone, head_of(backbone, 2), tmp_path / "model")
    pairs = read_pairs([file], per_file=[4])["words"]
    margins = score_pairs(model, pairs, device="cpu")
    swapped = [type(p)(pair_id=p.pair_id, prompt=p.prompt, chosen=p.rejected, rejected=p.chosen) for p in pairs]
    assert score_pairs(model, swapped, device="cpu") == pytest.approx(-margins, abs=1e-5)
    assert np.abs(margins).min() > 1e-4


def test_resolving_accepts_a_composed_model(backbone: Path, tmp_path: Path) -> None:
    model = compose(backbone, head_of(backbone, 1), tmp_path / "model")
    assert resolve_model(ModelConfig(path=str(model))) == model
