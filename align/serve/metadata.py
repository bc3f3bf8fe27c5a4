"""The message that every connection begins with: all that a client has to know to send and to act."""

from __future__ import annotations

from typing import Any

from align.export import normalization_of
from align.serve.codec import KINDS, MOST_FIELDS
from align.serve.fields import MOST_CHARACTERS
from align.serve.served import LARGEST, Served
from align.serve.table import CAMERA
from pipeline.runner import versions
from pretrain.model.configuration_kinecloud import UNKNOWN_EMBODIMENT

PROTOCOL = 1


def metadata_of(served: Served, message_bytes: int, waiting: int) -> dict[str, Any]:
    """As JSON values. message_bytes: of the largest message taken; waiting: requests that may wait for the model."""
    config = served.policy.config
    spec = config.action_spec or {}
    return {
        "server": "kinecloud",
        "protocol": PROTOCOL,
        "takes": served.takes,
        "observation": [field.told() for field in served.fields],
        "answer": {
            "actions": {
                "dtype": "float32",
                "shape": [config.action_chunk, len(config.action_names)],
                "names": config.action_names,
                **{name: spec.get(name) for name in ("unit", "frame", "mode", "rate_hz")},
            },
            "server_timing": "milliseconds: wait_ms, infer_ms; prev_total_ms from the second answer on",
            **({"effector_visible": "flag: found in this picture"} if served.takes == "pictures" else {}),
        },
        "proprio_names": config.proprio_names,
        "normalization": normalization_of(served.policy),
        "image": {
            "size": config.image_size,
            "preprocessing": "scaled so that the longer side is `size`, padded with black; done by the server",
        },
        "camera": CAMERA + "; intrinsics are those of the picture sent, without distortion",
        "past_times_s": config.past_times,
        "embodiments": [*config.embodiments, UNKNOWN_EMBODIMENT],
        "depth_needed": any(field.name == "depth_HW" for field in served.fields),
        "limits": {
            "message_bytes": message_bytes,
            "requests_waiting": waiting,
            "sizes": LARGEST,
            "characters": MOST_CHARACTERS,
            "fields": MOST_FIELDS,
            "dtypes": list(KINDS),
        },
        "license": served.license,
        "versions": versions(),
    }
