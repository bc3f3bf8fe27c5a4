"""What was done is told from the path alone: the task's own way, or that of its labelled sibling."""

import numpy as np
import pytest

from align.confusion import apart, confused, spaced
from align.control import expert_path

TASK, SIBLING = "faucet-open-v3", "faucet-close-v3"


def test_the_siblings_way_is_confusion_and_the_tasks_own_is_not():
    own, other = (expert_path(TASK, 3, 0.0, expert)[0] for expert in (TASK, SIBLING))
    assert apart(own, other) > 0.02
    wander = np.random.default_rng(0).normal(0, 0.003, own.shape)
    assert confused(TASK, 3, 0.0, own + wander, success=False) is False
    assert confused(TASK, 3, 0.0, other, success=False) is True
    assert confused(TASK, 3, 0.0, other, success=True) is False
    assert confused("door-open-v3", 3, 0.0, own, success=False) is None


def test_paths_are_compared_by_where_they_lead_not_by_when():
    line = np.linspace([0, 0, 0], [0.3, 0, 0], 31)
    slow = np.repeat(line, 4, axis=0)  # stands still now and then
    assert apart(line, slow) == pytest.approx(0, abs=1e-9)
    assert apart(line, line + np.array([0, 0.05, 0])) == pytest.approx(0.05)
    assert apart(line, line[:11]) > 0.03  # one that never arrives
    assert len(spaced(slow)) == 31 and spaced(line[:1]).shape == (1, 3)
