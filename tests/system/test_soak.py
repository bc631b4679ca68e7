"""A short soak test, which shows that the long one works. It finds leaks of descriptors and threads only."""

from __future__ import annotations

import pytest

from tests.soak.__main__ import soak, table

MINUTES = 0.15


@pytest.mark.alone
def test_mixed_traffic_with_aborts_and_garbage_leaves_nothing_behind() -> None:
    rows = soak(MINUTES)
    assert [row for row in rows if row.kept is False] == [], table(rows)
    assert sum(row.kept is True for row in rows) >= 8
