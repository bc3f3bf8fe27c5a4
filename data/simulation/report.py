"""The simulate stage's part of the run's report."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import av

from data.simulation.jobs import Job
from data.simulation.write import is_finished
from pipeline.section import Section

NOTE = (
    "The episodes of this stage are simulated. Robots are Meta-World's shipped experts; the human hand is drawn over "
    "motion that an invisible gripper performed, or over invented motion (close-ups). It is never real human data."
)
EXAMPLES = ("robot", "hand", "closeup")


def write_section(out: Path, episodes: Path, jobs: list[Job]) -> None:
    """Counts by kind and task, and one picture of each kind."""
    made = Counter((job.kind, job.task or "") for job in jobs for name in job.items if is_finished(episodes, name))
    section = Section("Simulation", order=10)
    section.note(NOTE, kind="simulated")
    section.summary(f"{sum(made.values())} simulated episodes.")
    rows = []
    for job in {(job.kind, job.task): job for job in jobs}.values():
        labelled = job.kind == "robot" and job.task in job.config.labelled_tasks
        rows.append([job.kind, job.task or "-", made[job.kind, job.task or ""], "yes" if labelled else "no"])
    section.table("Episodes", ["kind", "task", "episodes", "actions written"], rows)
    pictures = []
    for kind in EXAMPLES:
        name = next((n for job in jobs if job.kind == kind for n in job.items if is_finished(episodes, n)), None)
        if name:
            pictures.append(
                (_middle_frame(episodes / f"{name}.mp4"), f"{name}: {_instruction(episodes, name)} (simulated)")
            )
    if pictures:
        section.images("One of each", pictures)
    section.save(out)


def _instruction(episodes: Path, name: str) -> str:
    return json.loads((episodes / f"{name}.json").read_text())["instruction"]


def _middle_frame(path: Path) -> bytes:
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    buffer = io.BytesIO()
    frames[len(frames) // 2].save(buffer, format="PNG")
    return buffer.getvalue()
