"""Sharded checkpoints (torch.distributed.checkpoint) and the export as Hugging Face safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from transformers import AutoConfig, AutoModelForCausalLM

from grpo.config import ModelConfig
from grpo.learner.policy import PolicyModel, tensor_name

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".safetensors.index.json", ".bin.index.json")


def save(directory: Path, policy: nn.Module, optimizer: torch.optim.Optimizer, *, num_updates: int) -> None:
    """Write shards of policy and optimiser under `directory`/shards, and this rank's RNG state. A collective."""
    model_state, optimizer_state = get_state_dict(policy, optimizer)
    dcp.save({"policy": model_state, "optimizer": optimizer_state}, checkpoint_id=directory / "shards")
    save_file({"torch": torch.get_rng_state()}, directory / f"rng_rank_{dist.get_rank()}.safetensors")
    if dist.get_rank() == 0:
        (directory / "learner.json").write_text(json.dumps({"num_updates": num_updates}))
    dist.barrier()


def load(directory: Path, policy: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Read what `save` wrote, resharding to this number of ranks; returns the number of updates made. A collective."""
    model_state, optimizer_state = get_state_dict(policy, optimizer)
    state = {"policy": model_state, "optimizer": optimizer_state}
    dcp.load(state, checkpoint_id=directory / "shards")
    set_state_dict(policy, optimizer, model_state_dict=state["policy"], optim_state_dict=state["optimizer"])
    rng = directory / f"rng_rank_{dist.get_rank()}.safetensors"
    if rng.exists():  # absent for a rank that the saving run did not have
        torch.set_rng_state(load_file(rng)["torch"])
    return int(json.loads((directory / "learner.json").read_text())["num_updates"])


def export(directory: Path, policy: PolicyModel, model_path: Path, model: ModelConfig) -> None:
    """Write a directory that transformers and vLLM load as they are. A collective; rank 0 writes.

    Weights in ``model.rollout_dtype``; tokenizer, chat template and generation settings as in the base model.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(policy, options=options)
    if dist.get_rank() == 0:
        dtype = getattr(torch, model.rollout_dtype.value)
        tensors = {tensor_name(n): value.to(dtype) for n, value in state.items() if isinstance(value, torch.Tensor)}
        directory.mkdir(parents=True, exist_ok=True)
        _copy_companions(model_path, directory)
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(model_path, trust_remote_code=model.trust_remote_code)
            shell = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=model.trust_remote_code)
        tied = getattr(shell, "_tied_weights_keys", None) or ()
        if config.tie_word_embeddings:
            tensors = {name: value for name, value in tensors.items() if name not in tied}
        shell.save_pretrained(directory, state_dict=tensors)
    dist.barrier()


def _copy_companions(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if file.is_file() and not file.name.endswith(_WEIGHT_SUFFIXES):
            shutil.copyfile(file, target / file.name)
