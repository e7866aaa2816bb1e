"""What protects this machine from the programs it runs: the record of layers and canaries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Layer(StrEnum):
    """A means of isolation."""

    SEPARATE_JUDGE = "separate_judge"  #: tests and verdict in another process than the program
    NO_NEW_PRIVILEGES = "no_new_privileges"
    SYSTEM_CALLS = "system_calls"  #: seccomp
    RESOURCE_LIMITS = "resource_limits"
    FILE_ACCESS = "file_access"  #: Landlock
    MOUNT_NAMESPACE = "mount_namespace"  #: a root of its own, and a temporary directory of fixed size
    UNPRIVILEGED_USER = "unprivileged_user"
    NO_CAPABILITIES = "no_capabilities"
    USER_NAMESPACE = "user_namespace"
    NETWORK_NAMESPACE = "network_namespace"
    IPC_NAMESPACE = "ipc_namespace"
    PID_NAMESPACE = "pid_namespace"
    THREAD_COUNT = "thread_count"


#: Without these nothing runs, and without one of `EITHER` neither.
REQUIRED = (Layer.SEPARATE_JUDGE, Layer.NO_NEW_PRIVILEGES, Layer.SYSTEM_CALLS, Layer.RESOURCE_LIMITS)
EITHER = (Layer.FILE_ACCESS, Layer.MOUNT_NAMESPACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerState:
    """Whether a layer is in force, and what there is to say about it, above all if it is not."""

    layer: Layer
    in_force: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryState:
    """An attack that was tried when the sandbox started."""

    name: str
    held: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All layers, and the canaries tried so far."""

    layers: tuple[LayerState, ...]
    canaries: tuple[CanaryState, ...] = ()

    def missing(self) -> list[str]:
        """Why programs must not run here; empty if they may."""
        states = {state.layer: state for state in self.layers}
        off = {layer: state.reason or "off" for layer, state in states.items() if not state.in_force}
        off |= {layer: "not reported" for layer in Layer if layer not in states}
        reasons = [f"{layer.value}: {off[layer]}" for layer in REQUIRED if layer in off]
        if all(layer in off for layer in EITHER):
            reasons.append(" and ".join(f"{layer.value}: {off[layer]}" for layer in EITHER))
        return reasons + [f"canary {state.name}: {state.reason}" for state in self.canaries if not state.held]

    def table(self) -> str:
        """One line a layer and a canary."""
        lines = [f"{'on ' if state.in_force else 'OFF'} {state.layer.value:18} {state.reason}" for state in self.layers]
        lines += [f"{'held' if state.held else 'BROKEN'} {state.name} {state.reason}" for state in self.canaries]
        return "\n".join(line.rstrip() for line in lines)
