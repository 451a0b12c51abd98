"""`opencode-tasks`, and `python -m opencode_tasks`: the command line, started fast."""

import gc


def main() -> int:
    """See `cli.main`."""
    # What imports make stays: looking through it again and again is a tenth of our start. `cli` enables it again.
    gc.disable()
    from opencode_tasks import cli

    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
