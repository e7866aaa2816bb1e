"""Models: where their files are, whether they are whole, and whether Keel can train them.

Light to import: transformers and torch are loaded inside the functions that need them.
"""

from grpo.models.resolve import resolve_model
from grpo.models.support import check_supported
from grpo.models.tiny import tiny_model

__all__ = ["check_supported", "resolve_model", "tiny_model"]
