"""`python -I -m opencode_tasks.opencode_hooks DIRECTORY PID`: see `bridge`."""

import sys

if __name__ == "__main__":
    from opencode_tasks.opencode_hooks import bridge

    raise SystemExit(bridge.main(sys.argv[1:]))
