"""All checks and loading that come before Ray starts, cheap ones first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from grpo.cluster import check_buffer, check_resources, resolve_device
from grpo.config import Importance, ModelConfig, RatioTo, RunConfig
from grpo.data.draw import make_prompts, open_sources
from grpo.data.prompts import Prompts
from grpo.errors import ConfigError, ModelError
from grpo.models import check_supported, resolve_model
from grpo.report.display import Display, RunPlan, make_display
from grpo.report.run_directory import RunDirectory
from grpo.reward_worker import TermSpec
from grpo.run_state import find_checkpoint, load_state
from grpo.schedule.intake import Intake
from grpo.sync.disk import check_directory
from launch.configuration import as_yaml
from rewards import registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that is checked and ready to start."""

    device: str
    model_path: Path
    prompts: Prompts
    intake: Intake
    terms: dict[str, TermSpec]
    checkpoint: Path | None
    first_step: int
    directory: RunDirectory
    display: Display
    plan: RunPlan

    def close(self) -> None:
        """Give the terminal and the run directory back. May be called twice."""
        self.display.close()
        self.directory.release()


def prepare(config: RunConfig) -> Prepared:
    """Check the whole configuration against the world and load tasks and tokenizer.

    Raises:
        KeelError, RewardError: something can't work; nothing has been started.
    """
    assert config.output_dir is not None
    device = resolve_device(config)
    check_resources(config, device)
    check_buffer(config)
    check_directory(config)
    terms = prepare_terms(config)
    checkpoint = find_checkpoint(config.resume) if config.resume is not None else None
    state = load_state(checkpoint, config) if checkpoint is not None else None
    model_path, prompts = prepare_prompts(config)
    _check_domains(config, prompts)
    intake = Intake(config, prompts)
    if state is not None:
        intake.restore(state.prompts)
    finished_steps = state.step if state is not None else 0
    directory = RunDirectory.claim(
        Path(config.output_dir),
        config_text=as_yaml(config),
        resumed_step=finished_steps if state is not None else None,
    )
    display = make_display(config.quiet, directory.run_log)
    for line in (line for report in prompts.reports() for line in report.lines()):
        display.note(line)
    if prompts.num_dropped:
        display.note(f"{prompts.num_dropped} prompts are longer than data.max_prompt_tokens and were left out.")
    if config.schedule.staleness and not _corrects_staleness(config):
        display.warn(
            f"schedule.mode={config.schedule.mode.value} trains on completions of older policies, and "
            "algorithm.importance=none corrects nothing. Set algorithm.importance=token_truncate."
        )
    plan = RunPlan(
        experiment=config.experiment,
        model=config.model.path,
        output_dir=config.output_dir,
        num_steps=config.steps,
        first_step=finished_steps + 1,
    )
    return Prepared(
        device=device,
        model_path=model_path,
        prompts=prompts,
        intake=intake,
        terms=terms,
        checkpoint=checkpoint,
        first_step=finished_steps + 1,
        directory=directory,
        display=display,
        plan=plan,
    )


def prepare_prompts(config: RunConfig) -> tuple[Path, Prompts]:
    """The model on disk, and the tasks rendered for it.

    Raises:
        DataError, ModelError: a source or the model can't be used.
    """
    sources = open_sources(config.data)  # first: it takes no model
    model_path = resolve_model(config.model)
    check_supported(model_path, config.model)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=config.model.trust_remote_code)
    return model_path, make_prompts(sources, tokenizer, config.data, seed=config.seed)


def prepare_terms(config: RunConfig) -> dict[str, TermSpec]:
    """Every reward term's checked settings, its models on disk.

    Raises:
        RewardError: an unknown kind, settings that can't work, or a term that can't work on this machine.
        ModelError: a reward model that is not there.
    """
    terms: dict[str, TermSpec] = {}
    for name in config.reward.term_weights.terms:
        term = config.reward.term(name)
        kind, key = term.kind or name, f"reward.terms.{name}.settings"
        if term.kind is None and name not in config.reward.terms:
            registry.check(kind, f"reward.weights.{name}")
        settings = registry.settings_of(kind, term.settings, key)
        for field in registry.model_fields(settings):
            settings = replace(settings, **{field: _reward_model(getattr(settings, field), f"{key}.{field}")})
        registry.preflight(kind, settings, key)
        terms[name] = TermSpec(kind=kind, settings=settings)
    return terms


def _reward_model(model: str | None, key: str) -> str | None:
    """A built-in name or hub id as a local directory; None and "" name no model."""
    if not model:
        return model
    try:
        return str(resolve_model(ModelConfig(path=model)))
    except ModelError as error:
        raise ModelError(str(error).replace("model.path", key)) from error


def _corrects_staleness(config: RunConfig) -> bool:
    """Whether the loss weighs tokens by how far the policy has moved since they were sampled."""
    return config.algorithm.importance is not Importance.none or config.algorithm.ratio_to is RatioTo.behavior


def _check_domains(config: RunConfig, prompts: Prompts) -> None:
    if config.data.streaming:  # what later blocks hold is not known yet
        return
    for domain, weights in config.reward.mixtures.items():
        if domain not in prompts.domains:
            raise ConfigError(
                f"reward.mixtures.{domain}",
                weights,
                "no task has this domain",
                f"The data has: {', '.join(prompts.domains)}.",
            )
