"""Where the artifacts of the top-level folders are: in the wheel, or in the checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent


def root() -> Path:
    """The folder that holds `git_hooks/`, `templates/` and `docker-images/`.

    The checkout wins where there is one: an editable install has a snapshot in
    `_assets` that grows old.
    """
    if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "git_hooks").is_dir():
        return _CHECKOUT
    return _PACKAGE / "_assets"
