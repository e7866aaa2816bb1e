"""Worker extensions that misbehave while weights arrive. What they do when is told by `KEEL_TEST_ATTEMPTS`, serials."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import torch

from grpo.rollout.extension import WeightReceiver
from grpo.sync.backend import Arrival, Order, Receiver


def attempts() -> set[int]:
    """Serials of the attempts that go wrong."""
    return {int(serial) for serial in os.environ["KEEL_TEST_ATTEMPTS"].split(",")}


class Tampering:
    """A receiver that hands on what another one receives, after `tamper` has had it."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def receive(self, order: Order) -> Iterator[Arrival]:
        """See `Receiver`."""
        for number, arrival in enumerate(self._receiver.receive(order)):
            if order.serial in attempts():
                self.tamper(number, arrival)
            yield arrival

    def abandon(self) -> None:
        """See `Receiver`."""
        self._receiver.abandon()

    def tamper(self, number: int, arrival: Arrival) -> None:
        """Do something to a bucket."""


class _BitFlip(Tampering):
    def tamper(self, number: int, arrival: Arrival) -> None:
        if number == 1:
            arrival.tensors[0][1].view(torch.int32).view(-1)[7] ^= 1 << 20


class _Death(Tampering):
    def tamper(self, number: int, arrival: Arrival) -> None:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class _WrongShape(Tampering):
    def tamper(self, number: int, arrival: Arrival) -> None:
        if number == 1:
            name, tensor = arrival.tensors[0]
            arrival.tensors[0] = name, tensor[:-1]


class _Receiver(WeightReceiver):
    tampering: type[Tampering]

    def keel_join_sync(self, packed: bytes, first_rank: int, local_host: str) -> bytes:
        """Join, and put `tampering` between the receiver and the rest. Of several engines only the last tampers."""
        answer = super().keel_join_sync(packed, first_rank, local_host)
        subscriber = self.keel_subscriber
        if subscriber is not None and first_rank == int(os.environ.get("KEEL_TEST_RANK", "1")):
            subscriber._receiver = self.tampering(subscriber._receiver)
        return answer


class CorruptingReceiver(_Receiver):
    """Flips one bit of one bucket on arrival."""

    tampering = _BitFlip


class DyingReceiver(_Receiver):
    """Is killed in the middle of an update."""

    tampering = _Death


class UnloadableReceiver(_Receiver):
    """Gets a tensor that the model's loader refuses."""

    tampering = _WrongShape


class ForgetfulReceiver(WeightReceiver):
    """Loads every update whole and then spoils one weight behind everybody's back."""

    def keel_receive(self, packed: bytes) -> bytes:
        """Receive, load, and in the attempts told change the final norm."""
        import pickle

        answer = super().keel_receive(packed)
        if pickle.loads(packed).serial in attempts():
            with torch.no_grad():
                self.model_runner.model.model.norm.weight.mul_(-1.0)
        return answer
