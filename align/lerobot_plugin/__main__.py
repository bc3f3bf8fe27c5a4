"""``python -m lerobot_policy_kinecloud SET --out DIR``: a converted data set under the names that lerobot hands on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from align.lerobot_plugin.data_set import rename
from pipeline.errors import UserError


def main() -> int:
    """Exit code: 0 done, 2 the data set is not one of ``python -m data convert``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", type=Path, help="one labelled data set that python -m data convert --to lerobot wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set to write")
    arguments = parser.parse_args()
    try:
        files = rename(arguments.set, arguments.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments.out}: {files} files of data")
    return 0


if __name__ == "__main__":
    sys.exit(main())
