"""The model card of an exported policy."""

from __future__ import annotations

from typing import Any

from pretrain.model.configuration_kinecloud import KinecloudConfig


def loading(config: KinecloudConfig) -> str:
    """Python that loads a policy and asks it for actions, with all arguments that it cannot do without."""
    depth = ", depth_HW=depth" if config.depth else ""
    return f"""\
from transformers import AutoModel

policy = AutoModel.from_pretrained("path/to/policy", trust_remote_code=True).eval()
# numpy in, float32 [K, A] out
actions = policy.act(image, instruction, past_clouds, past_valid, intrinsics, proprio, embodiment{depth})"""


def model_card(config: KinecloudConfig, provenance: dict[str, Any]) -> str:
    """README.md: how to load it, what goes in and out in which units, data, measured figures, limits."""
    parts = [
        _front_matter(provenance),
        "# A Kinecloud policy\n",
        _origin(provenance),
        f"## Loading\n\nIt needs torch, transformers and numpy.\n\n```python\n{loading(config)}\n```\n",
        _inputs(config),
        _outputs(config),
        _data(provenance),
        _figures(provenance),
        _limits(config, provenance),
    ]
    return "\n".join(parts)


def _front_matter(provenance: dict[str, Any]) -> str:
    license_line = f"license: {provenance['license']}\n" if provenance["license"] else ""
    return f"---\nlibrary_name: transformers\npipeline_tag: robotics\n{license_line}---\n"


def _origin(provenance: dict[str, Any]) -> str:
    data = provenance["data"]
    text = (
        "From one camera's picture, an instruction, the recent 3D cloud of the gripper and proprioception it gives a "
        "chunk of actions. A predictor of hand and gripper motion was pretrained on video without actions, then "
        "aligned with a small labelled set."
    )
    if provenance["labelled"]["simulated"]:
        share = f"{data['simulated_episodes']} of {data['episodes']} episodes"
        text += (
            f"\n\n**The labelled data is simulated**, and so are {share} behind the pretraining; simulated human hands "
            "are rendered overlays, never real human data. Nothing here shows that it works on a real robot."
        )
    return text + "\n"


def _inputs(config: KinecloudConfig) -> str:
    times = ", ".join(f"{time:g}" for time in config.past_times)
    shown = "RGB of any size" if config.scene == "none" else "RGB of any size, of the scene without the robot"
    rows = [
        ("image_u8_HW3", "uint8 [H, W, 3]", f"{shown}; scaled and padded to {config.image_size} pixels inside"),
        ("instruction", "str", f"any text, the first {_text_limit(config)} count"),
        (
            "past_clouds_PN3",
            f"float32 [{len(config.past_times)}, N, 3]",
            f"metres, camera frame (x right, y down, z forward) at {times} s; row n is the same physical point in "
            "every cloud; N is free",
        ),
        ("past_valid", f"bool [{len(config.past_times)}]", "which of these clouds are known"),
        ("intrinsics_33", "float [3, 3]", "pixels of the image given; the centre of the first pixel is at (0.5, 0.5)"),
        ("proprio", f"float [{len(config.proprio_names)}]", ", ".join(config.proprio_names)),
        ("embodiment", "str", _embodiments(config)),
        ("past_visible_PN", "bool [P, N], optional", "which points were measured rather than carried"),
        ("past_opening_P", "float [P], optional", "grasp aperture in metres, NaN where unknown"),
        ("past_grasp_P3", "float [P, 3], optional", "where it grasps, metres, camera frame; else the cloud's centroid"),
    ]
    if config.depth:
        rows.append(("depth_HW", "float [H, W]", "depth of what the image shows, metres along z, 0 = unknown"))
    lines = [f"| `{name}` | {shape} | {meaning} |" for name, shape, meaning in rows]
    return "## Inputs\n\n| argument | shape | meaning |\n|---|---|---|\n" + "\n".join(lines) + "\n"


def _embodiments(config: KinecloudConfig) -> str:
    known = " or ".join(f"`{name}`" for name in [*config.embodiments, "unknown"])
    if config.asks_as is None:
        return known
    return f"{known}; whatever it says, the predictor is asked as `{config.asks_as}`, with points moved inside"


def _text_limit(config: KinecloudConfig) -> str:
    pretrained = config.text is not None or config.mixture is not None
    return f"{config.max_text_tokens} tokens" if pretrained else f"{config.max_text_bytes} bytes"


def _outputs(config: KinecloudConfig) -> str:
    spec = config.action_spec or {}
    return (
        f"## Output\n\n`act` gives float32 [{config.action_chunk}, {len(config.action_names)}]: the next "
        f"{config.action_chunk} actions at {spec.get('rate_hz', 0):g} Hz. Dimensions: "
        f"{', '.join(config.action_names)}. Unit: {spec.get('unit')}. Frame: {spec.get('frame')}, {spec.get('mode')}. "
        f"`predict` gives the predicted clouds [1, {len(config.horizons)}, N, 3] in metres too, at "
        f"{', '.join(f'{horizon:g}' for horizon in config.horizons)} s ahead"
        f"{', one sample of what is likely' if config.generative else ''}. Normalisation is inside the model; "
        "`normalization.json` repeats its numbers.\n"
    )


def _data(provenance: dict[str, Any]) -> str:
    labelled, data = provenance["labelled"], provenance["data"]
    lines = [
        f"- Labelled: {labelled['clips']} clips ({labelled['frames']} frames) of {', '.join(labelled['tasks'])}; "
        f"embodiment {', '.join(labelled['embodiments'])}.",
    ]
    for name, split in data["splits"].items():
        counts = ", ".join(f"{count} {embodiment}" for embodiment, count in split["embodiments"].items())
        lines.append(f"- Motion clips, {name}: {split['clips']} ({counts or 'none'}).")
    for source, licenses in data["sources"].items():
        lines.append(f"- Source `{source}`: licence as declared: {', '.join(licenses)}.")
    return "## Data\n\n" + "\n".join(lines) + "\n"


def _figures(provenance: dict[str, Any]) -> str:
    evaluation, lines = provenance["evaluation"], []
    aligned = evaluation["align"]
    if aligned and aligned["windows"]:
        lines += [
            f"Mean absolute error of the next action on {aligned['episodes']} held-out episodes ({aligned['unit']}):\n",
            "| method | " + " | ".join(aligned["names"]) + " |",
            "|---" * (1 + len(aligned["names"])) + "|",
            *(
                f"| {method} | " + " | ".join(f"{value:.3f}" for value in errors["first"]) + " |"
                for method, errors in sorted(aligned["errors"].items(), key=lambda item: item[0] != "policy")
            ),
            "",
        ]
    rollout = evaluation["rollout"]
    if rollout:
        lines += [
            rollout["conditions"] + "\n",
            "| task | labels seen | success (95 % Wilson interval) | constant mean action |",
            "|---|---|---|---|",
        ]
        for row in rollout["tasks"]:
            rate = row["policy"]
            interval = f"{100 * rate['low']:.0f}–{100 * rate['high']:.0f} %"
            seen = "yes" if row["labelled"] else "no, video only"
            best = max(row["references"].values(), key=lambda found: found["successes"], default=None)
            constant = f"{best['successes']} of {best['episodes']}" if best else "–"
            ours = f"{rate['successes']} of {rate['episodes']} ({interval})"
            lines.append(f"| {row['task']} | {seen} | {ours} | {constant} |")
        lines.append("")
    return "## Measured\n\n" + ("\n".join(lines) if lines else "Nothing was measured.\n")


def _limits(config: KinecloudConfig, provenance: dict[str, Any]) -> str:
    lines = [
        "- One action space and one control rate, those of the labelled set; other robots need their own alignment.",
        "- It needs the gripper's 3D cloud with point identity: a mask and depth, or another tracker in metric scale.",
        f"- Trained on {provenance['labelled']['groups']} labelled episodes: expect little from viewpoints, objects "
        "and tasks unlike theirs.",
    ]
    if config.scene != "none":
        lines.append(
            "- It was taught with pictures from which the effector and its arm were removed: what lies behind them is "
            "shown as it was last seen. `extract/scene.py` and `extract/actor.py` of Kinecloud make such pictures."
        )
    if config.text is None and config.mixture is None:
        lines.append(
            "- Instructions are read as bytes and learned from scratch: wordings that were not in the data say nothing."
        )
    if provenance["labelled"]["simulated"]:
        lines.append("- Success was counted in the simulator that the demonstrations come from.")
    return "## Limits\n\n" + "\n".join(lines) + "\n"
