"""The `tallybook` command."""

import sys


def main() -> None:
    """Run the command line."""
    from tallybook.cli.run import run

    sys.exit(run(sys.argv[1:]))
