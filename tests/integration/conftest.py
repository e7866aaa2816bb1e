"""Workers that Ray and vLLM start must find the tests' own modules."""

from __future__ import annotations

import os

from tests.integration.runs import ROOT

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
