"""The policy as a sharded module: tokens in, logprobs of the loss tokens out."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from grpo.config import AlgorithmConfig, Dtype, LearnerConfig, ModelConfig
from grpo.kernels.head import head_logprobs, head_loss
from grpo.learner import attention
from grpo.records import LossTokens, MicroBatch


class PolicyModel(nn.Module):
    """A causal language model that answers with a loss, or with logprobs and entropy, instead of logits.

    The head is applied inside `forward`, to loss tokens only, so that FSDP has its weight gathered: once for all
    chunks, and its gradient is reduced once.
    """

    def __init__(self, causal_lm: PreTrainedModel, *, temperature: float, logits_chunk_tokens: int) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.temperature = temperature
        self.logits_chunk_tokens = logits_chunk_tokens

    def forward(
        self, batch: MicroBatch, tokens: LossTokens | None = None, algorithm: AlgorithmConfig | None = None
    ) -> tuple[Tensor, ...]:
        """Logprobs [L] and entropy [L] of the loss tokens, without gradient; before them the loss, if asked for.

        Args:
            batch: supplies the packed tokens.
            tokens: those of `loss_tokens` for this batch; None for logprobs and entropy alone.
            algorithm: the loss; required with `tokens`.

        Returns:
            (loss, logprobs, entropy) with `tokens`, else (logprobs, entropy). A tuple, since FSDP looks for tensors
            in what a module returns.
        """
        hidden = self.causal_lm.base_model(
            input_ids=batch.token_ids[None],
            position_ids=batch.position_ids[None],
            use_cache=False,
            bundles=batch.bundles,
        ).last_hidden_state[0][batch.loss_positions]
        head = self.causal_lm.get_output_embeddings()
        assert head is not None
        chunks = {"temperature": self.temperature, "chunk_tokens": self.logits_chunk_tokens, "bias": head.bias}
        if tokens is None:
            return head_logprobs(hidden, head.weight, batch.targets, **chunks)
        assert algorithm is not None
        return head_loss(hidden, head.weight, tokens, algorithm, **chunks)


def tensor_name(parameter_name: str) -> str:
    """The name in a Hugging Face checkpoint of a parameter of `PolicyModel`."""
    return parameter_name.removeprefix("causal_lm.")


def load_policy(
    path: Path,
    mesh: DeviceMesh,
    model: ModelConfig,
    learner: LearnerConfig,
    *,
    temperature: float,
    trainable: bool = True,
) -> PolicyModel:
    """Load a checkpoint on rank 0 and spread it over the mesh; float32 shards, `model.param_dtype` in computation.

    Only rank 0 ever holds the whole model, in host memory.

    Args:
        path: Hugging Face model directory.
        mesh: one-dimensional.
        temperature: that the engine samples with.
        trainable: False for the frozen reference.
    """
    attention.register()
    device = torch.device(mesh.device_type)
    whole = _load_whole(path, model) if dist.get_rank() == 0 else None
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=model.trust_remote_code)
        causal_lm = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention.NAME, dtype=torch.float32, trust_remote_code=model.trust_remote_code
        )
    policy = PolicyModel(causal_lm, temperature=temperature, logits_chunk_tokens=learner.logits_chunk_tokens)
    if learner.activation_checkpointing and trainable:
        causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    _shard(policy, mesh, model)
    policy.to_empty(device=device)
    causal_lm.tie_weights()
    state = {} if whole is None else {f"causal_lm.{name}": tensor for name, tensor in whole.state_dict().items()}
    set_model_state_dict(policy, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    _broadcast_buffers(causal_lm, whole, device)
    # Train mode is what activation checkpointing looks at; dropout would make the learner disagree with the engine.
    for module in policy.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return policy.requires_grad_(trainable).train(trainable)


def _load_whole(path: Path, model: ModelConfig) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, trust_remote_code=model.trust_remote_code, low_cpu_mem_usage=True
    )


def _shard(policy: PolicyModel, mesh: DeviceMesh, model: ModelConfig) -> None:
    """FSDP2 over every block and the rest; nothing to do for a single rank that computes in float32.

    There FSDP would only copy each parameter in every forward and backward pass, and each gradient after it.
    """
    if mesh.size() == 1 and model.param_dtype is Dtype.float32:
        return
    precision = MixedPrecisionPolicy(
        param_dtype=getattr(torch, model.param_dtype.value), reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    blocks = [m for m in policy.modules() if type(m).__name__ in (policy.causal_lm._no_split_modules or ())]
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision)
    for module in [*blocks, policy]:
        # The loss is already divided by global counts: gradients are summed over ranks, never averaged.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def _broadcast_buffers(causal_lm: PreTrainedModel, whole: PreTrainedModel | None, device: torch.device) -> None:
    """Buffers that no checkpoint holds (rotary frequencies) were computed by rank 0 alone."""
    source = dict(whole.named_buffers()) if whole is not None else {}
    for name, buffer in causal_lm.named_buffers():
        if name in source:
            buffer.copy_(source[name].to(device))
        dist.broadcast(buffer, src=0)
