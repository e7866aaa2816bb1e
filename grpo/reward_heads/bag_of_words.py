"""The baseline that a reward head has to beat: which words occur in the answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from grpo.data.preferences import PreferencePair
from grpo.reward_heads.bradley_terry import cross_validated, fit_bradley_terry, log_loss
from grpo.reward_heads.pairs import prompt_folds

_WORD = re.compile(r"[a-z']+|\d+|[^\w\s]")
_MAX_WORDS = 2000
_MIN_PAIRS = 5  # in which a word has to occur
_RIDGES = (0.3, 1.0, 3.0, 10.0)
_NUM_FOLDS = 5


def bag_of_words_margins(
    train: Sequence[PreferencePair], test: Sequence[PreferencePair], *, seed: int = 0
) -> np.ndarray:
    """Score of chosen minus score of rejected of a Bradley-Terry model on log(1 + count) of each word, [len(test)].

    Words (lower case), numbers and punctuation of the answer; at most 2,000, those in most training pairs. The ridge is
    chosen as a head's is, so that the baseline is a fair one.
    """
    counts = [[Counter(_WORD.findall(answer.lower())) for answer in _answers(pair)] for pair in train]
    spread = Counter(word for chosen, rejected in counts for word in {*chosen, *rejected})
    common = sorted((-count, word) for word, count in spread.items() if count >= _MIN_PAIRS)
    places = {word: place for place, (_, word) in enumerate(common[:_MAX_WORDS])}
    differences, folds = _differences(train, places), prompt_folds(train, _NUM_FOLDS, seed)
    ridge = min(_RIDGES, key=lambda ridge: log_loss(cross_validated(differences, folds, ridge)))
    return _differences(test, places) @ fit_bradley_terry(differences, ridge)


def _differences(pairs: Sequence[PreferencePair], places: dict[str, int]) -> np.ndarray:
    found = np.zeros((len(pairs), len(places)), dtype=np.float32)
    for row, pair in enumerate(pairs):
        for sign, answer in zip((1, -1), _answers(pair), strict=True):
            for word, count in Counter(_WORD.findall(answer.lower())).items():
                if word in places:
                    found[row, places[word]] += sign * np.log1p(count)
    return found


def _answers(pair: PreferencePair) -> tuple[str, str]:
    return pair.chosen[-1][1], pair.rejected[-1][1]
