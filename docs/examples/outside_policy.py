"""A policy of one's own on the features of a pretrained predictor; from the root of the checkout:

    PYTHONPATH=. python docs/examples/outside_policy.py MODEL SHARDS

MODEL: RUN/pretrain/model. SHARDS: RUN/pack, with labelled clips. Prints the error of the next action on held-out clips,
in the labels' units, beside that of always taking the training mean.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from data.loader import WindowDataset
from data.pack import packed
from pretrain.features import DynamicsPredictor
from pretrain.reading import in_batches

torch.manual_seed(0)
predictor = DynamicsPredictor.from_pretrained(sys.argv[1])


def read(split: str) -> tuple[Tensor, Tensor]:
    windows = WindowDataset(packed(Path(sys.argv[2]), split), predictor.window(action_chunk=1), labels="only")
    inputs, actions = [], []
    for _, window in in_batches(windows, range(len(windows))):
        features = predictor(window)
        ahead = features.grasp_BH3 - window["past_grasp"][:, -1:]
        inputs.append(torch.cat([features.motion_BHD.flatten(1), ahead.flatten(1), window["proprio"]], 1))
        actions.append(window["actions"][:, 0])
    return torch.cat(inputs), torch.cat(actions)


inputs, actions = read("train")
held_out, truth = read("val")
mean, spread = inputs.mean(0), inputs.std(0) + 1e-6
middle, scale = actions.mean(0), actions.std(0) + 1e-6
policy = nn.Sequential(nn.Linear(inputs.shape[1], 128), nn.GELU(), nn.Linear(128, actions.shape[1]))
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=0.1)
for _ in range(500):
    rows = torch.randint(len(inputs), (64,))
    error = policy((inputs[rows] - mean) / spread) - (actions[rows] - middle) / scale
    optimizer.zero_grad()
    error.abs().mean().backward()
    optimizer.step()
with torch.no_grad():
    found = policy((held_out - mean) / spread) * scale + middle
for name, said in (("policy", found), ("training mean", middle)):
    print(f"{name}: {(said - truth).abs().mean(0).tolist()}")
