"""`opencode-tasks`, and `python -m opencode_tasks`: the command line, started fast."""

import atexit
import gc
import os
import sys
from contextlib import suppress


def main() -> int:
    """See `cli.main`."""
    # What imports make stays: looking through it again and again is a tenth of our start. `cli` enables it again.
    gc.disable()
    from opencode_tasks import cli

    code = cli.main()
    _leave(code)
    return code


def _leave(code: int) -> None:
    """Taking the interpreter apart takes a tenth of a command. Whatever counts was written where it was made."""
    threads = sys.modules.get("threading")
    if threads is not None and threads.active_count() > 1:
        return
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main())
