"""verl's public functions; importing this skips the importing test file where verl is not installed.

verl pins versions of its own, so it is in no requirement of Keel's. To run what is compared with it:
`pip install --no-deps --target DIR verl==0.9.1 tensordict pyvers codetiming orjson`, then pytest with `PYTHONPATH=DIR`.
"""

from __future__ import annotations

import os
import warnings
from unittest.mock import patch

import pytest

with patch.dict(os.environ), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    core = pytest.importorskip("verl.trainer.ppo.core_algos", reason="see tests/agreement/verl_functions.py")
    correction = pytest.importorskip("verl.trainer.ppo.rollout_corr_helper")
    functional = pytest.importorskip("verl.utils.torch_functional")
    workers = pytest.importorskip("verl.workers.config")
