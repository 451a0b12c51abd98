"""Programs from npm that tests use: installed once, for all runs."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock


def installed(config: pytest.Config, *packages: str, without: str = "") -> Path:
    """The `node_modules` that has them; scripts of packages are not run. A second process waits for the first.

    `without`: a package that another one wants, and that tests do not need.
    """
    assert config.cache is not None
    top = config.cache.mkdir("node") / "-".join(packages).replace("/", "_")
    with FileLock(f"{top}.lock", timeout=170):
        if not top.exists():
            with tempfile.TemporaryDirectory(dir=top.parent) as made:
                place = Path(made, "made")
                place.mkdir()
                (place / "empty").mkdir()
                (place / "empty" / "package.json").write_text('{"name": "empty", "version": "0.0.0"}')
                overrides = {without: "file:./empty"} if without else {}
                (place / "package.json").write_text(json.dumps({"overrides": overrides}))
                argv = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", *packages]
                done = subprocess.run(argv, cwd=place, capture_output=True, timeout=150, check=False)
                assert done.returncode == 0, f"`{' '.join(argv)}` failed:\n{done.stderr.decode(errors='replace')}"
                place.rename(top)
    return top / "node_modules"
