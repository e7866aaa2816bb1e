"""Weights as safetensors files in a directory that learner rank 0 and all engines see.

    <directory>/update_000012/bucket_00000.safetensors, ...

An update is written aside, flushed to disk and renamed, so that what has its name is whole; then older ones go. The
controller asks the engines to read only after that, so they sample on while the files are written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from grpo.config import RunConfig, SyncBackend
from grpo.errors import ConfigError, SyncError
from grpo.records import WeightManifest
from grpo.run_state import flush
from grpo.sync.backend import Arrival, Order
from grpo.sync.packing import place, views

_PATTERN = "update_*"


def sync_directory(config: RunConfig, run_directory: Path) -> Path:
    """Where updates lie: hidden in the run directory, or below `sync.directory` by a name of this run's own."""
    if config.sync.directory is None:
        return run_directory / ".sync"
    own = sha256(str(run_directory.resolve()).encode()).hexdigest()[:12]
    return Path(config.sync.directory) / f"keel_{own}"


def check_directory(config: RunConfig) -> None:
    """Refuse a directory that can't be written from here.

    Raises:
        ConfigError: names the key, the directory and the remedy.
    """
    if config.sync.directory is None or config.sync.backend not in (SyncBackend.disk, SyncBackend.auto):
        return
    directory = Path(config.sync.directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError(
            "sync.directory",
            config.sync.directory,
            f"can't be written ({error.strerror})",
            "Name a directory on a file system that learners and engines share, or drop the key.",
        ) from error


def remove_updates(directory: Path) -> None:
    """Delete what was written there, and the directory if nothing else is in it."""
    for found in [*directory.glob(_PATTERN), *directory.glob(f".{_PATTERN}")]:
        shutil.rmtree(found, ignore_errors=True)
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


class DiskSender:
    """Writes a file for each bucket."""

    def __init__(self, directory: Path, manifest: WeightManifest) -> None:
        self._directory = directory
        self._manifest = manifest
        self._aside: Path | None = None

    def begin(self, order: Order) -> None:
        """See `Sender`."""
        self._final = self._directory / _name(order)
        self._aside = self._final.with_name(f".{self._final.name}.incomplete")
        try:
            shutil.rmtree(self._aside, ignore_errors=True)
            self._aside.mkdir(parents=True)
        except OSError as error:
            raise self._failed("making the directory", error) from error

    def send(self, number: int, flat: Tensor) -> None:
        """See `Sender`."""
        assert self._aside is not None
        file = self._aside / _file_name(number)
        # The format refuses tensors that share memory, as those of a bucket do.
        tensors = {name: view.to("cpu", copy=True) for name, view in views(flat, self._manifest.buckets[number])}
        try:
            save_file(tensors, file)
            flush(file)
        except (OSError, SafetensorError) as error:
            raise self._failed(f"writing {place(self._manifest, number)}", error) from error

    def end(self) -> None:
        """See `Sender`."""
        assert self._aside is not None
        try:
            flush(self._aside)
            os.replace(self._aside, self._final)
            flush(self._directory)
        except OSError as error:
            raise self._failed("renaming the finished directory", error) from error
        for old in self._directory.glob(_PATTERN):
            if old != self._final:
                shutil.rmtree(old, ignore_errors=True)

    def abandon(self) -> None:
        """See `Sender`."""
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)

    def _failed(self, phase: str, error: Exception) -> SyncError:
        return SyncError(f"weight sync, learner rank 0, {phase} in {self._directory}: {error}")


class DiskReceiver:
    """Reads those files onto its own device."""

    def __init__(self, directory: Path, manifest: WeightManifest, device: torch.device, rank: int) -> None:
        self._directory = directory
        self._manifest = manifest
        self._device = device
        self._rank = rank

    def receive(self, order: Order) -> Iterator[Arrival]:
        """See `Receiver`."""
        update = self._directory / _name(order)
        for number, bucket in enumerate(self._manifest.buckets):
            file = update / _file_name(number)
            found = self._read(file, number)
            yield Arrival(tensors=[(spec.name, found[spec.name]) for spec in bucket], num_bytes=file.stat().st_size)

    def abandon(self) -> None:
        """See `Receiver`. Nobody waits for a reader."""

    def _read(self, file: Path, number: int) -> dict[str, Tensor]:
        phase = f"weight sync, rank {self._rank}, reading {place(self._manifest, number)}"
        try:
            found = load_file(file, device=str(self._device))
        except FileNotFoundError as error:
            raise SyncError(
                f"{phase}: no {file} here. Is sync.directory, or without it the run directory, on a file system that "
                "learners and engines share?"
            ) from error
        except (OSError, SafetensorError) as error:
            raise SyncError(f"{phase}: {file} can't be read: {error}") from error
        if missing := [spec.name for spec in self._manifest.buckets[number] if spec.name not in found]:
            raise SyncError(f"{phase}: {file} lacks {missing[0]}")
        return found


def _name(order: Order) -> str:
    return f"update_{order.serial:06d}"


def _file_name(number: int) -> str:
    return f"bucket_{number:05d}.safetensors"
