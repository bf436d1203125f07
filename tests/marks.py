"""Which parameters of a test run without ``--all``."""

from typing import Any

import pytest


def slow(*values: Any, **options: Any) -> Any:
    """A parameter whose promise a cheaper one of the same test also holds."""
    return pytest.param(*values, marks=pytest.mark.slow, **options)
