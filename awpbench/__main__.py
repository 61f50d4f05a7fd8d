"""`awpbench` and `python -m awpbench`."""

import sys


def main() -> int:
    """Run the command line and return its exit code; Ctrl-C while its modules are imported shows no traceback."""
    try:
        from awpbench.cli import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
