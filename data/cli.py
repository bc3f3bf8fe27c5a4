"""``python -m data index|simulate|pack|verify|upgrade|convert|stats|peek|samples|format``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from data.config import IndexConfig, PackConfig, WindowConfig
from data.simulation.config import SimulateConfig
from pipeline.atomic import remove_leftovers
from pipeline.command import add_config_options, config_of, exit_code_of
from pipeline.config import Settings
from pipeline.errors import UserError
from pipeline.logs import StageLog

WIDEST = 1000  # characters that a table may ask for


def main() -> int:
    """Parses the command line and runs it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m data", description="Episodes in, packed motion clips out.")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str, function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        return command

    add_config_options(add("index", "list every file of the sources, as episodes or rejections", _index))
    add_config_options(add("simulate", "make simulated episodes as an ordinary folder of videos", _simulate))
    add_config_options(add("pack", "filter, split, shuffle: extracted clips to training shards", _pack))
    _shards(add("verify", "check every clip of the shards against the format", _verify))
    upgrade = add("upgrade", "shards of an older format version, written anew in this one's", _upgrade)
    _shards(upgrade)
    upgrade.add_argument("--out", type=Path, required=True, help="folder for the new shards")
    convert = add("convert", "clips to LeRobot data sets (v3.0), or what it made of them back to clips", _convert)
    _shards(convert)
    direction = convert.add_mutually_exclusive_group(required=True)
    direction.add_argument("--to", choices=["lerobot"], help="write one data set for each kind of clip")
    direction.add_argument("--from", choices=["lerobot"], dest="source", help="the argument is a folder of data sets")
    convert.add_argument("--out", type=Path, required=True, help="folder to write")
    convert.add_argument("--file-mb", type=int, default=100, help="size of data files, with --to (default: 100)")
    convert.add_argument("--allow-rejected", type=int, default=0, metavar="N", help="clips that may be left out")
    _shards(add("stats", "what the shards hold", _stats))
    peek = add("peek", "one clip as a picture and a video: its frames with the points on them", _peek)
    peek.add_argument("shard", type=Path)
    peek.add_argument("--key", help="the clip (default: the first)")
    peek.add_argument("--out", type=Path, default=Path("peek.png"), help="picture to write; the video goes beside it")
    peek.add_argument("--rerun", type=Path, metavar="FILE.rrd", help="also write a recording for the Rerun viewer")
    samples = add("samples", "which windows a training step reads", _samples)
    _shards(samples)
    for name, default in (("--seed", 0), ("--step", 0), ("--batch-size", 8), ("--rank", 0), ("--world", 1)):
        samples.add_argument(name, type=_at_least(1 if name in ("--batch-size", "--world") else 0), default=default)
    add("format", "print docs/format.md", _format)

    arguments = parser.parse_args()
    return exit_code_of(lambda: arguments.function(arguments))


def _at_least(least: int) -> Callable[[str], int]:
    def number(word: str) -> int:
        if (value := int(word)) < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    return number


def _shards(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", type=Path, nargs="+", help="shards, or folders of shards")


def _paths(arguments: argparse.Namespace) -> list[Path]:
    paths: list[Path] = []
    for path in arguments.shards:
        found = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not found or not found[0].exists():
            raise UserError(f"{path}: no shard here (*.tar)")
        paths += found
    return paths


def _checked(arguments: argparse.Namespace, section: str, model: type[Settings]) -> bool:
    """Validates the section; true when nothing else was asked for."""
    config_of(arguments).section(section, model)
    return arguments.check


def _simulate(arguments: argparse.Namespace) -> None:
    if _checked(arguments, "simulate", SimulateConfig):
        return
    from data.simulation.run import run_simulate

    run_simulate(config_of(arguments))


def _index(arguments: argparse.Namespace) -> None:
    if _checked(arguments, "index", IndexConfig):
        return
    from data.index import REJECTED, read_rejected
    from data.scan.build import build_index

    config = config_of(arguments)
    settings, folder = config.section("index", IndexConfig), config.folder("index")
    log = StageLog(config.run.out, "index")
    remove_leftovers(folder)
    found = build_index(settings, folder, config.folder("simulate") / "episodes")
    rejected = read_rejected(folder)
    log.first([f"rejected {one.item}: {one.reason}: {one.detail}" for one in rejected], folder / REJECTED)
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(found.rejected.items()))
    log.info(
        f"{found.episodes} episodes ({found.wordless} without words of their own), {found.seconds / 60:.1f} minutes of "
        f"video, {len(rejected)} rejected"
        f"{f' ({reasons})' if reasons else ''}"
    )
    if unread := found.unread:
        log.warning(
            f"{len(unread)} NPZ files beside videos are not read, {unread[0]} the first: no sidecar names them. Say "
            f'"arrays": "{unread[0].name}" in {unread[0].with_suffix(".json").name} (or in a column of the CSV file '
            "that is the sidecar), with what the arrays need (docs/sources.md, arrays beside a video)."
        )


def _pack(arguments: argparse.Namespace) -> None:
    if _checked(arguments, "pack", PackConfig):
        return
    from data.index import read_index
    from data.pack import made_from, pack
    from pipeline.fingerprint import is_done

    config = config_of(arguments)
    settings, folder, extracted = config.section("pack", PackConfig), config.folder("pack"), config.folder("extract")
    log = StageLog(config.run.out, "pack")
    episode_ids = [episode.episode_id for episode in read_index(config.folder("index"))]
    document = made_from(settings, config.run.seed, extracted, episode_ids)
    if is_done(folder, document, follows=("units", "episodes")):  # more clips are welcome, other settings are not
        log.info("nothing to do: the clips are packed")
        return
    summary = pack(settings, config.run.seed, extracted, episode_ids, folder, document)
    for name, split in summary["splits"].items():
        log.info(f"{name}: {split['clips']} clips of {split['groups']} groups in {split['shards']} shards")
    for reason, count in summary["left_out"].items():
        log.info(f"left out: {count} clips: {reason}")


def _verify(arguments: argparse.Namespace) -> None:
    from data.clips import verify

    paths = _paths(arguments)
    found = verify(paths)
    if found:
        raise UserError("\n".join([f"{len(found)} violations of the format:", *found]))
    print(f"{len(paths)} shards: every clip keeps the format")


def _upgrade(arguments: argparse.Namespace) -> None:
    from data.upgrade import targets, upgrade

    paths = _paths(arguments)
    for path, target in zip(paths, targets(paths, arguments.out), strict=True):
        print(f"{path}: {upgrade(path, target)} clips -> {target}")


def _convert(arguments: argparse.Namespace) -> None:
    from data.convert.command import convert_from, convert_to

    if arguments.to:
        convert_to(_paths(arguments), arguments.out, arguments.file_mb, arguments.allow_rejected)
        return
    if len(arguments.shards) != 1:
        raise UserError(f"{len(arguments.shards)} arguments; --from takes one folder, of one or more data sets.")
    convert_from(arguments.shards[0], arguments.out, arguments.allow_rejected)


def _stats(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from data.stats import COLUMNS, stats

    table = Table(*(Column(name, no_wrap=True) for name in COLUMNS))
    for row in stats(_paths(arguments)):
        table.add_row(*(Text(str(row[column])) for column in COLUMNS))
    wanted = Console(width=WIDEST).measure(table).maximum
    Console(width=max(wanted, Console().width)).print(table, crop=False)


def _peek(arguments: argparse.Namespace) -> None:
    from data.peek import peek

    print(peek(arguments.shard, arguments.key, arguments.out, arguments.rerun))


def _samples(arguments: argparse.Namespace) -> None:
    from data.loader import WindowDataset, batches

    dataset = WindowDataset(_paths(arguments), WindowConfig())
    first = arguments.step * arguments.batch_size * arguments.world
    stream = batches(dataset, arguments.batch_size, arguments.seed, first, arguments.rank, arguments.world)
    batch = next(stream)
    for key, time in zip(batch["key"], batch["time"].tolist(), strict=True):
        print(f"{key} {time:.3f}")


def _format(arguments: argparse.Namespace) -> None:
    from data.format_page import format_page

    print(format_page(), end="")
