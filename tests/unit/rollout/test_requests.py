"""What is asked of vLLM and read from its answers, with vLLM's own classes; no engine is started."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grpo.config import RolloutConfig
from grpo.records import FinishReason
from grpo.rollout.requests import completion, leave_out_token_texts, request_timing, sampling_params
from tests.builders import make_completion, make_group

PROMPT = make_group([make_completion([3])], prompt=(1, 2, 3)).prompt
CONFIG = RolloutConfig(max_new_tokens=20, stop=["```"], temperature=0.8)


def test_a_completion_ends_by_itself_within_the_models_length() -> None:
    params = sampling_params(CONFIG, 18, PROMPT, [7])
    assert (params.max_tokens, params.stop, params.stop_token_ids) == (15, ["```"], [7])
    assert not params.ignore_eos and params.temperature == 0.8
    assert sampling_params(CONFIG, 100, PROMPT, [7]).max_tokens == 20


def test_a_length_that_is_given_is_exact() -> None:
    params = sampling_params(CONFIG, 100, PROMPT, [7], 33)
    assert (params.max_tokens, params.stop, params.stop_token_ids, params.ignore_eos) == (33, [], [], True)
    assert params.logprobs == sampling_params(CONFIG, 100, PROMPT, [7]).logprobs


class NeverAsked:
    """A tokenizer that must not be used."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def decoded(leave_out: bool) -> Any:
    """vLLM's own record of two sampled tokens' logprobs."""
    from vllm.logprobs import create_sample_logprobs
    from vllm.v1.engine.logprobs import LogprobsProcessor
    from vllm.v1.outputs import LogprobsLists

    tokenizer: Any = NeverAsked()
    processor = LogprobsProcessor(
        tokenizer=tokenizer,
        logprobs=create_sample_logprobs(sampling_params(CONFIG, 100, PROMPT, []).flat_logprobs),
        prompt_logprobs=None,
        cumulative_logprob=0.0,
        num_logprobs=0,
        num_prompt_logprobs=None,
    )
    if leave_out:
        leave_out_token_texts(SimpleNamespace(logprobs_processor=processor))
    for token, logprob in ((5, -0.25), (9, -1.5)):
        ranks = np.array([1])
        processor._update_sample_logprobs(LogprobsLists(np.array([[token]]), np.array([[logprob]]), ranks, None))
    return processor.logprobs


def test_logprobs_are_read_without_decoding_their_tokens() -> None:
    output = SimpleNamespace(token_ids=[5, 9], logprobs=decoded(True), text="ab", finish_reason="length")
    found = completion(output, [(4, 0)])
    assert found.behavior_logprobs.tolist() == [-0.25, -1.5] and found.token_ids.tolist() == [5, 9]
    assert (found.text, found.finish_reason, found.version_spans) == ("ab", FinishReason.LENGTH, ((4, 2),))
    with pytest.raises(AssertionError):  # what vLLM would do otherwise
        decoded(False)


def test_a_request_that_is_done_has_no_state_left() -> None:
    leave_out_token_texts(None)


def test_admission_is_brought_to_the_clock_of_the_other_times() -> None:
    from vllm.v1.metrics.stats import RequestStateStats

    now = time.monotonic()
    metrics = RequestStateStats(
        arrival_time=time.time() - 3.0, scheduled_ts=now - 2.0, first_token_ts=now - 1.5, last_token_ts=now - 0.5
    )
    found = request_timing(metrics)
    assert found.admitted_s == pytest.approx(now - 3.0, abs=0.5)
    assert (found.scheduled_s, found.first_token_s, found.finished_s) == (now - 2.0, now - 1.5, now - 0.5)
