"""The fit against hand-computed numbers and its own first-order condition; shares and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grpo.data.preferences import PreferencePair
from grpo.reward_heads.bag_of_words import bag_of_words_margins
from grpo.reward_heads.bradley_terry import cross_validated, fit_bradley_terry, log_loss
from grpo.reward_heads.evaluation import PairReport, Share


def pair(chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(
        pair_id=chosen,
        prompt=(("user", rejected),),
        chosen=(("assistant", chosen),),
        rejected=(("assistant", rejected),),
    )


def test_one_feature_by_hand() -> None:
    """Three wins to one loss: sigmoid(w) = 3/4, so w = ln 3, as the penalty goes to 0."""
    differences = np.array([[1.0], [1.0], [1.0], [-1.0]])
    assert fit_bradley_terry(differences, 1e-9)[0] == pytest.approx(math.log(3), abs=1e-4)


def test_the_gradient_is_zero_and_the_unit_of_a_feature_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(size=(50, 4)) * [1, 3, 0.1, 1] + 0.2
    d[:, 3] = 0  # a feature that never differs
    ridge, rms = 0.05, np.sqrt((d**2).mean(0))
    w = fit_bradley_terry(d, ridge)
    gradient = -(d / (1 + np.exp(d @ w))[:, None]).mean(0) + ridge * w * rms**2
    assert np.abs(gradient).max() < 1e-5
    assert w[3] == 0
    units = np.array([1, 10, 1000, 1])
    assert fit_bradley_terry(d / units, ridge) == pytest.approx(w * units, rel=1e-3)


def test_cross_validation_never_sees_its_own_fold() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(60, 40))
    folds = np.arange(60) % 5
    assert (noise @ fit_bradley_terry(noise, 1e-3) > 0).all(), "40 features fit 60 coins"
    assert (cross_validated(noise, folds, 1e-3) > 0).mean() < 0.75
    margins = cross_validated(noise, folds, 0.1)
    assert margins[:1] == pytest.approx(noise[:1] @ fit_bradley_terry(noise[folds != 0], 0.1))


def test_log_loss_by_hand() -> None:
    assert log_loss(np.zeros(3)) == pytest.approx(math.log(2))
    assert log_loss(np.array([math.log(3), -1000.0])) == pytest.approx((math.log(4 / 3) + 1000) / 2)


def test_wilson_interval_by_hand() -> None:
    """8 of 10: centre (0.8 + 0.19207) / 1.38415, half 1.95996 sqrt(0.016 + 0.0096036) / 1.38415."""
    share = Share.of(np.array([1.0] * 8 + [-1.0] * 2))
    assert (share.count, share.share) == (10, 0.8)
    assert share.low == pytest.approx(0.49016, abs=1e-4)
    assert share.high == pytest.approx(0.94331, abs=1e-4)
    assert Share.of(np.array([0.0, 1.0])).share == 0.75, "a tie is half a success"
    assert math.isnan(Share.of(np.array([])).share)


def test_accuracy_by_length() -> None:
    pairs = [pair("long one", "short"), pair("a", "bb"), pair("cc", "d"), pair("e", "f")]
    report = PairReport.of(pairs, np.array([1.0, 1.0, -1.0, 1.0]))
    assert (report.accuracy.count, report.accuracy.share) == (4, 0.75)
    assert (report.chosen_longer.count, report.chosen_longer.share) == (2, 0.5)
    assert (report.chosen_shorter.count, report.chosen_shorter.share) == (1, 1.0)
    assert report.longer_answer.share == (1 + 0 + 1 + 0.5) / 4


def test_a_bag_of_words_learns_a_word() -> None:
    train = [pair(f"sure {n}", f"sorry {n}") for n in range(20)]
    margins = bag_of_words_margins(train, [pair("sure!", "sorry!"), pair("sorry", "sure"), pair("new", "words")])
    assert margins[0] > 0 > margins[1]
    assert margins[2] == 0
