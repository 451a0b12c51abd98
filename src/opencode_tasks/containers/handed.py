"""Our programs that run elsewhere, as one text each for `python3 -I -S -c`: none of our package is there."""

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_EGRESS = "opencode_tasks.containers.egress"


def text(*modules: str) -> str:
    """Modules that find each other without files, each after those it imports; `run` of the last is the program."""
    texts = [(name, _PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py").read_text()) for name in modules]
    return f"""import sys, types
for name, text in {texts!r}:
    sys.modules[name] = module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.run()
"""


@cache
def proxy() -> str:
    parts = ("addresses", "client_hello", "request_head", "refusals", "relay", "connection", "proxy")
    return text("opencode_tasks.hosts", *(f"{_EGRESS}.{part}" for part in parts))


@cache
def forwarder() -> str:
    return text(f"{_EGRESS}.relay", f"{_EGRESS}.forwarder")
