"""Preference pairs for a head, and their split by prompt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from grpo.data.preferences import PreferencePair, read_preference_pairs
from grpo.errors import DataError

_NOT_WORD = re.compile(r"[\W_]+")


def read_pairs(files: Sequence[str | Path], *, per_file: Sequence[int] = ()) -> dict[str, list[PreferencePair]]:
    """Usable pairs of each file, by the file's name without its endings.

    Those whose two answers are equal, or whose roles don't alternate, are left out.

    Args:
        per_file: how many of each file are kept, from its start: one number for all, or one for each; empty: all.

    Raises:
        DataError: as `read_preference_pairs`, two files of one name, or a file without usable pairs.
    """
    pairs: dict[str, list[PreferencePair]] = {}
    if len(per_file) not in (0, 1, len(files)):
        raise DataError(f"{len(per_file)} numbers of pairs for {len(files)} files: give one, or one for each")
    for place, file in enumerate(files):
        name = Path(file).name.split(".")[0]
        found, _ = read_preference_pairs(file)
        usable = [pair for pair in found if _is_usable(pair)]
        if per_file:
            usable = usable[: per_file[place % len(per_file)]]
        if name in pairs:
            raise DataError(f"{file}: a second file of the name {name}. Rename one, since figures are given by name")
        if not usable:
            raise DataError(f"{file}: no usable preference pairs. A row has chosen and rejected, and perhaps prompt")
        pairs[name] = usable
    return pairs


def split_by_prompt(
    pairs: Sequence[PreferencePair], held_out_share: float
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Training and held-out pairs. All pairs that begin with the same question are on the same side.

    The side depends on the question alone (letters and digits, in lower case), so it is the same in every file and run.
    """
    sides: tuple[list[PreferencePair], list[PreferencePair]] = [], []
    for pair in pairs:
        sides[prompt_place(pair) < held_out_share].append(pair)
    return sides


def prompt_place(pair: PreferencePair) -> float:
    """A number from 0 to 1 (1 excluded), evenly spread over the pairs' first user messages."""
    return text_place(_question(pair))


def text_place(text: str) -> float:
    """A number from 0 to 1 (1 excluded) that depends on a text's letters and digits alone, in lower case."""
    plain = _NOT_WORD.sub(" ", text.lower()).strip()
    return int(hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:12], 16) / 16**12


def prompt_folds(pairs: Sequence[PreferencePair], num_folds: int, seed: int) -> np.ndarray:
    """The fold of each pair, [N]; a function of its first question and the seed.

    Raises:
        DataError: too few prompts for two folds.
    """
    return text_folds([_question(pair) for pair in pairs], num_folds, seed)


def text_folds(texts: Sequence[str], num_folds: int, seed: int) -> np.ndarray:
    """The fold of each text, [N]; a function of the text and the seed. Raises DataError as `prompt_folds`."""
    places = np.array([text_place(text) for text in texts])
    # Digits that the split into training and held-out pairs does not look at.
    order = np.random.default_rng(seed).permutation(1024)
    folds = order[(places * 1e9 % 1024).astype(int)] % num_folds
    if len(np.unique(folds)) < 2:
        raise DataError(
            f"{len(texts)} training pairs with {len(np.unique(places))} prompts: too few to choose by. Give more"
        )
    return folds


def _question(pair: PreferencePair) -> str:
    return next(content for role, content in pair.prompt if role == "user")


def _is_usable(pair: PreferencePair) -> bool:
    roles = [role for role, _ in pair.prompt if role != "system"]
    alternates = roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    return alternates and pair.chosen[-1][1] != pair.rejected[-1][1]
