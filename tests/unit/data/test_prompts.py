"""Rendering through chat templates, and the draw: deterministic, complete in each epoch, exact on resume."""

import json
from dataclasses import replace

import numpy as np
import pytest

from grpo.config import DataConfig
from grpo.data.prompts import PromptStream, render
from grpo.errors import CheckpointError, DataError, ModelError
from grpo.models import tiny_model
from grpo.records import Task

LLAMA_LIKE = (
    "{{ '<|im_start|>' }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{{ m['content'] }}{% endfor %}"
)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def tokenizer(model_path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path)


def task(name="t0", prompt="Say hi.", prefill=""):
    return Task(task_id=name, domain="code", messages=(("user", prompt),), prefill=prefill, reference={})


def tasks(n=5):
    return [task(f"t{i}", prompt="x" * (i + 1)) for i in range(n)]


def drawn(stream, n):
    return [(prompt.uid, prompt.task.task_id, prompt.token_ids.tolist()) for prompt in stream.take(n)]


def test_render_writes_the_template_and_the_prefill(tokenizer):
    token_ids = render(task(prefill="```python\ndef f(x):"), tokenizer, None)
    assert token_ids.dtype == np.int64
    expected = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n```python\ndef f(x):"
    assert tokenizer.decode(token_ids) == expected


def test_render_adds_the_system_prompt(tokenizer):
    text = tokenizer.decode(render(task(), tokenizer, "Be brief."))
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")


def test_exactly_one_bos_where_the_template_writes_it(tokenizer):
    from tokenizers.processors import TemplateProcessing

    # A tokenizer that adds a BOS to whatever it encodes, as Llama's does, beside a template that writes one.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    assert tokenizer("a").input_ids[0] == 1
    tokenizer.chat_template = LLAMA_LIKE
    token_ids = render(task(), tokenizer, None).tolist()
    assert token_ids.count(1) == 1
    assert token_ids[0] == 1


def test_no_chat_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"has no chat template.*instruction-tuned"):
        render(task(), tokenizer, None)


def test_template_without_a_system_role(tokenizer):
    tokenizer.chat_template = NO_SYSTEM
    assert len(render(task(), tokenizer, None))
    with pytest.raises(ModelError, match=r"refuses task 't0': System role not supported.*data\.system_prompt=null"):
        render(task(), tokenizer, "Be brief.")


def test_every_epoch_is_another_permutation(tokenizer):
    stream = PromptStream(tasks(), tokenizer, DataConfig(), seed=3)
    epochs = [[prompt.task.task_id for prompt in stream.take(5)] for _ in range(6)]
    assert all(sorted(epoch) == ["t0", "t1", "t2", "t3", "t4"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert stream.epoch == 6.0


def test_order_is_numpys_permutation_of_seed_and_epoch(tokenizer):
    stream = PromptStream(tasks(), tokenizer, DataConfig(), seed=3)
    for epoch in range(2):
        expected = np.random.Generator(np.random.PCG64([3, epoch])).permutation(5)
        assert [prompt.task.task_id for prompt in stream.take(5)] == [f"t{i}" for i in expected]


def test_without_shuffling_the_order_is_the_sources(tokenizer):
    stream = PromptStream(tasks(3), tokenizer, DataConfig(shuffle=False), seed=3)
    prompts = stream.take(7)
    assert [prompt.task.task_id for prompt in prompts] == ["t0", "t1", "t2", "t0", "t1", "t2", "t0"]
    assert [prompt.uid for prompt in prompts] == list(range(7))
    assert stream.epoch == pytest.approx(7 / 3)


def test_domains_in_order_of_first_appearance(tokenizer):
    mixed = [replace(t, domain=d) for t, d in zip(tasks(4), ("math", "code", "math", "chat"), strict=True)]
    lengths = [len(render(t, tokenizer, None)) for t in mixed]
    assert PromptStream(mixed, tokenizer, DataConfig(), seed=0).domains == ("math", "code", "chat")
    short = DataConfig(max_prompt_tokens=lengths[2])
    assert PromptStream(mixed, tokenizer, short, seed=0).domains == ("math", "code"), "dropped tasks do not count"


def test_same_seed_same_draw(tokenizer):
    one, two, other = (PromptStream(tasks(), tokenizer, DataConfig(), seed=seed) for seed in (3, 3, 4))
    first = drawn(one, 20)
    assert first == drawn(two, 20)
    assert first != drawn(other, 20)


@pytest.mark.parametrize("num_before", [0, 3, 5, 13])
def test_resume_is_exact(tokenizer, num_before):
    uninterrupted = drawn(PromptStream(tasks(), tokenizer, DataConfig(), seed=3), num_before + 9)
    stopped = PromptStream(tasks(), tokenizer, DataConfig(), seed=3)
    before = drawn(stopped, num_before)
    state = json.loads(json.dumps(stopped.state()))
    resumed = PromptStream(tasks(), tokenizer, DataConfig(), seed=3)
    resumed.take(2)  # a position of its own, to be overwritten
    resumed.restore(state)
    assert before + drawn(resumed, 9) == uninterrupted


def test_restore_refuses_other_tasks_and_malformed_positions(tokenizer):
    state = PromptStream(tasks(5), tokenizer, DataConfig(), seed=3).state()
    other = PromptStream(tasks(4), tokenizer, DataConfig(path="other.jsonl"), seed=3)
    with pytest.raises(CheckpointError, match=r"data\.path='other\.jsonl': its 4 tasks are not those"):
        other.restore(state)
    for broken in ({}, {"drawn": -1, "fingerprint": state["fingerprint"]}, {**state, "drawn": "3"}):
        with pytest.raises(CheckpointError, match="data position is malformed"):
            other.restore(broken)
    assert other.take(1)[0].uid == 0, "a refused position leaves the stream where it was"


def test_long_prompts_are_dropped_and_counted(tokenizer):
    lengths = [len(render(t, tokenizer, None)) for t in tasks(5)]
    stream = PromptStream(tasks(5), tokenizer, DataConfig(max_prompt_tokens=lengths[2]), seed=0)
    assert (stream.num_dropped, len(stream)) == (2, 3)
    assert {prompt.task.task_id for prompt in stream.take(3)} == {"t0", "t1", "t2"}
    with pytest.raises(DataError, match=rf"data\.max_prompt_tokens=4: all 5 prompts .* has {lengths[0]} tokens"):
        PromptStream(tasks(5), tokenizer, DataConfig(max_prompt_tokens=4), seed=0)
