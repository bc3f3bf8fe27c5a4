"""What all commands share: the options that name a configuration, and errors that become exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.cache import CACHE_GB
from pipeline.config import Config, load
from pipeline.errors import KinecloudError, UserError

# What can be wrong with the place where results are to be written.
WRITING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
                     errno.EEXIST, errno.EISDIR))  # fmt: skip
REMEDY = "Check permissions and free space there, or name another place; what was finished is kept."


def add_config_options(parser: argparse.ArgumentParser, check: bool = True) -> None:
    """--config FILE, --set a.b=value (repeatable) and, unless ``check`` is false, --check (validate the section and
    stop)."""
    parser.add_argument("--config", type=Path, required=True, metavar="C.yaml", help="configuration file")
    add_set_option(parser)
    if check:
        parser.add_argument("--check", action="store_true", help="only check the configuration")


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """--set a.b=value (repeatable)."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=v", help="override one value of --config (repeatable)"
    )


def add_resume_option(parser: argparse.ArgumentParser) -> None:
    """--resume (the default) or --no-resume."""
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on from what is there (default); --no-resume discards it and starts again",
    )


def config_of(arguments: argparse.Namespace) -> Config:
    """The configuration that the options name."""
    config = load(arguments.config, arguments.set)
    if config.run.cache_gb is not None:
        os.environ[CACHE_GB] = str(config.run.cache_gb)  # for worker processes, too
    return config


def exit_code_of(function: Callable[[], int | None]) -> int:
    """Runs a command: 0 done, 2 bad input, 3 too many failures, 4 refused; 130 after Ctrl-C, 141 when nobody reads its
    output any more. Bugs keep their traceback and give 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be what the terminal cannot show
    # Waiting threads sleep instead of spinning: on a machine that others use too, a training step is several times
    # faster. Read when torch is loaded, which the commands do after this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the stages report progress themselves
    try:
        return function() or 0
    except KinecloudError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr, flush=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed at exit
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in WRITING:
            raise
        print(f"error: {error.filename or 'writing'}: {error.strerror}. {REMEDY}", file=sys.stderr, flush=True)
        return UserError.exit_code
