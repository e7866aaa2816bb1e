"""What several keys are checked for. Each raises `ConfigError` naming the key, the value and the remedy."""

from __future__ import annotations

from grpo.errors import ConfigError


def at_least(prefix: str, config: object, minimum: float, *names: str) -> None:
    """Refuse values of `names` below `minimum`; None passes, NaN does not."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= minimum:  # so worded, NaN is refused too
            raise ConfigError(
                f"{prefix}.{name}" if prefix else name, value, "too small", f"Set it to {minimum} or more."
            )


def positive(prefix: str, config: object, *names: str) -> None:
    """Refuse values of `names` that are not above 0; None passes, NaN does not."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{prefix}.{name}", value, "must be greater than 0", "Set a positive number.")


def within(prefix: str, config: object, low: float, high: float, *names: str) -> None:
    """Refuse values of `names` outside [low, high]."""
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{prefix}.{name}", value, "out of range", f"Set a value from {low} to {high}.")
