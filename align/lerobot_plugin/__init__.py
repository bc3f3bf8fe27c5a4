"""A policy plugin of LeRobot: its commands load, run and train Kinecloud policies. See docs/lerobot_policy.md.

``build.sh`` makes the distribution ``lerobot_policy_kinecloud`` of these files and of those of the repository that they
import; ``discovered.py`` is its ``__init__.py``. Modules whose names lerobot looks for end in ``_kinecloud``.
"""
