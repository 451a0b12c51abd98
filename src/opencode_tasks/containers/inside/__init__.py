"""What runs in the task's container. Its texts are handed to the image's own python3."""

from pathlib import Path

# Each after those that it imports; the last is the program.
_MODULES = ("processes", "watch", "supervisor")


def program() -> str:
    """One text for `python3 -c`: modules that find each other without files."""
    texts = [(f"{__name__}.{name}", Path(__file__).with_name(f"{name}.py").read_text()) for name in _MODULES]
    return f"""import sys, types
for name, text in {texts!r}:
    sys.modules[name] = module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.run()
"""
