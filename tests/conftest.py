"""For all tests: what a failure says, and what a law is judged by."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# The contracts are no test modules, so pytest would not show what their assertions compared.
pytest.register_assert_rewrite("tests.contract")

# Laws are judged by what comes out, never by how long it took on a busy machine.
settings.register_profile("laws", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("laws")
