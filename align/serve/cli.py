"""``python -m align serve``: a policy behind openpi's client protocol."""

from __future__ import annotations

import argparse
import ipaddress
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.origin import WEIGHTS
from pipeline.command import add_set_option, config_of, exit_code_of
from pipeline.errors import UserError

if TYPE_CHECKING:
    from align.serve.served import Served

TOKEN = "KINECLOUD_TOKEN"


def main(words: Sequence[str]) -> int:
    """Parses what follows ``python -m align serve`` and runs it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m align serve",
        description="Serves a policy to openpi's client, over a websocket.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", type=Path, metavar="C.yaml", help="a run: clients send pictures")
    which.add_argument("--policy", type=Path, metavar="FOLDER", help="an exported policy: clients send clouds")
    add_set_option(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address; any but this machine's own needs a token")
    parser.add_argument("--port", type=int, default=8000, help="0 = any free one")
    parser.add_argument("--token-file", type=Path, help=f"what clients have to send; or in ${TOKEN}")
    parser.add_argument("--waiting", type=int, default=16, help="requests that may wait for the model")
    parser.add_argument("--clients", type=int, default=64, help="connections at a time")
    parser.add_argument("--message-mb", type=float, default=32, help="largest message that is taken")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the policy runs")
    parser.add_argument("--describe", action="store_true", help="print what clients are told, as JSON, and stop")
    arguments = parser.parse_args(words)
    return exit_code_of(lambda: _serve(arguments))


def _serve(arguments: argparse.Namespace) -> None:
    for name, least in (("port", 0), ("waiting", 0), ("clients", 1), ("message_mb", 0.001)):
        if not least <= getattr(arguments, name) < math.inf:
            option = name.replace("_", "-")
            raise UserError(f"--{option} {getattr(arguments, name)}: expected {least} or more")
    if arguments.policy and arguments.set:
        raise UserError("--set changes values of --config; an exported policy has none to change")
    token = token_of(arguments.host, arguments.token_file, os.environ)
    # torch is loaded late: a wrong option is told at once
    served = served_run(arguments) if arguments.config else served_folder(arguments.policy)
    served.policy.to(device_of(arguments.device))  # pyright: ignore[reportArgumentType]
    from align.serve.metadata import metadata_of
    from align.serve.server import Terms, serve_until_stopped

    size = int(arguments.message_mb * 2**20)
    terms = Terms(arguments.host, arguments.port, token, arguments.waiting, arguments.clients, size)
    if arguments.describe:
        print(json.dumps(metadata_of(served, terms.message_bytes, terms.waiting), indent=2))
        return
    serve_until_stopped(served, terms)


def token_of(host: str, path: Path | None, environment: Mapping[str, str]) -> str | None:
    """What clients have to send, from the file, else the environment. Raises UserError where one is needed."""
    token = environment.get(TOKEN, "")
    if path is not None:
        try:
            token = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--token-file {path}: cannot be read ({error}); name a file that holds a token") from None
    token = token.strip()
    if path is not None and not token:
        raise UserError(f"--token-file {path}: is empty; put a token into it, for example of `openssl rand -hex 32`")
    if not token.isprintable() or " " in token:
        place = f"--token-file {path}" if path is not None else f"${TOKEN}"
        raise UserError(
            f"{place}: holds white space or what is not printed, which no header can carry; one line, please"
        )
    if not token and not _is_local(host):
        raise UserError(
            f"--host {host}: other machines can reach it, and nobody is asked for a token; put one into a file for "
            f"--token-file or into ${TOKEN}, or serve on 127.0.0.1"
        )
    return token or None


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def device_of(name: str) -> str:
    """The device that a name stands for. Raises UserError for a GPU that is not there."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU; serve with --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def served_folder(folder: Path) -> Served:
    """An exported policy. Its weights are read into this repository's own classes; code in the folder is never run.

    Raises UserError for a folder that holds no such policy.
    """
    missing = [name for name in ("config.json", WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"--policy {folder}: holds no {' and no '.join(missing)}; name a folder of `align export`")
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file() and "auto_map" in tokenizer.read_text():
        raise UserError(f"{tokenizer}: auto_map: names code in the folder, which is never run; remove the key")
    from align.policy import load_policy
    from align.serve.served import serving_clouds

    try:
        policy, license = load_policy(folder), _license_of(folder)
    except Exception as error:  # of whatever kind: the folder is somebody else's
        raise UserError(f"--policy {folder}: cannot be loaded: {error}; export it again") from error
    return serving_clouds(policy, license)


def _license_of(folder: Path) -> str | None:
    """As provenance.json tells it; None where it tells nothing."""
    path = folder / "provenance.json"
    told = json.loads(path.read_text()).get("license") if path.is_file() else None
    return told if isinstance(told, str) else None


def served_run(arguments: argparse.Namespace) -> Served:
    """The aligned policy of a run, with the follower of its extractor.

    Raises UserError when alignment has not finished, or its clips cannot be followed in a running policy.
    """
    from align.config import ExportConfig
    from align.followers import following
    from align.origin import policy_folder
    from align.policy import load_policy
    from align.serve.served import serving_pictures
    from extract.config import ExtractConfig
    from pipeline.fingerprint import require_done
    from pretrain.model.configuration_kinecloud import UNKNOWN_EMBODIMENT

    config = config_of(arguments)
    extraction, export = config.section("extract", ExtractConfig), config.section("export", ExportConfig)
    labelled = require_done(config.folder("align"), "align")["labelled"]
    policy = load_policy(policy_folder(config))
    embodiment = labelled["embodiments"][0]
    return serving_pictures(
        policy,
        following(labelled["extractor"], extraction, config.folder("extract")),
        extraction.image_side,
        embodiment if embodiment in policy.config.embodiments else UNKNOWN_EMBODIMENT,
        export.license,
    )
