"""Faults injected into real processes, then a look at the books. `FAULTS=short` for fewer rounds."""

import pytest

# Its assertions are to tell what they compared, like those of the tests.
pytest.register_assert_rewrite("chat.tests.faults.stage")
