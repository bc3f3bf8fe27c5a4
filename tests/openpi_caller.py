"""Asks a policy server for actions through openpi's own client: ``python openpi_caller.py PORT TOKEN OBS.npz OUT.npy``.

It runs in whatever environment openpi-client is installed in, so it imports nothing of this repository. Writes the
actions of one observation f32 [K,A], twice: as they came, and step by step through openpi's ActionChunkBroker.
"""

import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker  # pyright: ignore[reportMissingImports]
from openpi_client.websocket_client_policy import WebsocketClientPolicy  # pyright: ignore[reportMissingImports]

port, token, path, out = sys.argv[1:]
observation = {name: value if value.ndim else value.item() for name, value in np.load(path).items()}
policy = WebsocketClientPolicy(host="127.0.0.1", port=int(port), api_key=token)
steps = policy.get_server_metadata()["answer"]["actions"]["shape"][0]
whole = policy.infer(observation)["actions"]
broker = ActionChunkBroker(policy, action_horizon=steps)
np.save(out, [whole, np.stack([broker.infer(observation)["actions"] for _ in range(steps)])])
try:
    policy.infer({})
except RuntimeError as error:
    assert "image_u8_HW3: found nothing" in str(error), error
else:
    raise SystemExit("an empty observation was answered")
