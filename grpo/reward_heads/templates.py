"""Chat templates that ask about the answer, so that the last token's state is about what is asked."""

from __future__ import annotations

import json
from pathlib import Path

from grpo.errors import ModelError
from rewards.reward_models.loading import Checkpoint


def ask_after(backbone: Path, question: str) -> str:
    """The backbone's own chat template, with a user's question after the conversation and the assistant's turn open.

    Raises:
        ModelError: the backbone has no chat template.
    """
    own = Checkpoint(path=backbone).tokenizer().chat_template
    if not isinstance(own, str):
        raise ModelError(f"{backbone}: has no chat template to put a question in. Give one with --template")
    asked = json.dumps(question, ensure_ascii=False)
    return (
        f"{{%- set messages = messages + [{{'role': 'user', 'content': {asked}}}] -%}}"
        f"{{%- set add_generation_prompt = true -%}}\n{own}"
    )
