"""The `tallybook` command."""


def main() -> None:
    """Run the command line."""
