"""Run one hook's module.

A bug of ours never breaks git: it is written to the errors log and git goes on.
"""

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from opencode_tasks import config
from opencode_tasks.config_sections import BranchConfig, Config
from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, memory
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git_hooks import MODULES
from opencode_tasks.store import Store, settings
from opencode_tasks.store.layout import Layout


def run(argv: list[str]) -> int:
    name, args = argv[0], argv[1:]
    try:
        checkout = discovery.find(Path.cwd())
        store = Store(checkout.common_dir, hot=True, versions=memory.versions(Layout(checkout.common_dir)))
        if not store.exists():
            return 0
        hook = import_module(f"opencode_tasks.git_hooks.{MODULES[name]}")
        try:
            return int(hook.main(args, store, checkout, _settings(store, checkout)))
        finally:
            if store.written:
                memory.commit_if_due(store)
    except TaskError as e:
        say(f"{e.message}" + (f"\n  {e.hint}" if e.hint else ""))
    except KeyboardInterrupt:
        return 130
    except Exception:  # the one catch of this entry point
        say(f"{name} failed and was left out; {_logged()}")
    return 0


def _settings(store: Store, checkout: Checkout) -> Config:
    """Where the file cannot be read, the prefix as it was last: a task that is left has to be paused all the same."""
    try:
        return config.load(checkout.top, through=settings.through(store.layout))
    except TaskError as e:
        say(f"{e.message}; going on without it" + (f"\n  {e.hint}" if e.hint else ""))
        with suppress(FileNotFoundError, ValueError):
            _, prefix = store.layout.branches.read_text().splitlines()[0].split(" ", 1)
            return Config(branch=BranchConfig(prefix=prefix))
        return Config()


def say(text: str) -> None:
    print(f"opencode-tasks: {text}", file=sys.stderr)  # noqa: T201


def _logged() -> str:
    import traceback

    with suppress(Exception):
        path = Store(discovery.find(Path.cwd()).common_dir).layout.errors_log
        with path.open("a") as f:
            traceback.print_exc(file=f)
        return f"the details are in {path}"
    traceback.print_exc()
    return "the details are above"
