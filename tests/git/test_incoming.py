"""Commits as a hostile container would send them: real bundles, and packs made by hand where git makes none."""

import hashlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.git import discovery, incoming
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.incoming import RefusedError, Rules
from tests.conftest import Repo

REF = "refs/heads/task/x"
RULES = Rules(protected=("ci", "hooks"), largest_b=1 << 20)
Receive = Callable[..., str]


@pytest.fixture
def ours(make_repo: Callable[..., Repo]) -> Repo:
    return make_repo()


@pytest.fixture
def theirs(ours: Repo, tmp_path: Path) -> Repo:
    """The container's clone: everything in it is hostile."""
    ours.git("clone", "--quiet", ".", str(tmp_path / "theirs"))
    made = Repo(tmp_path / "theirs")
    made.git("checkout", "--quiet", "-b", "task/x")
    return made


@pytest.fixture
def receive(ours: Repo, theirs: Repo, tmp_path: Path) -> Receive:
    checkout = discovery.find(ours.top, {})
    base = ours.git("rev-parse", "HEAD").out.strip()

    def run(bundle_b: bytes | None = None, *, rules: Rules = RULES) -> str:
        bundle = tmp_path / "bundle"
        if bundle_b is None:
            theirs.git("bundle", "create", "-q", str(bundle), REF, f"^{base}")
        else:
            bundle.write_bytes(bundle_b)
        before = objects(checkout)
        try:
            return incoming.receive(checkout, bundle, tmp_path / "place", ref=REF, since=[base], rules=rules)
        except RefusedError:
            assert objects(checkout) == before, "what was refused was kept"
            raise
        finally:
            assert not list((tmp_path / "place").glob("*"))

    return run


def objects(checkout: Checkout) -> set[str]:
    return {str(path) for path in (checkout.common_dir / "objects").rglob("*") if path.is_file()}


def refused(receive: Receive, *args: bytes, rules: Rules = RULES) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        receive(*args, rules=rules)
    return caught.value


def planted(repo: Repo, mode: str, sha: str, path: str) -> None:
    """An index may have what no work tree does."""
    repo.git("update-index", "--add", "--cacheinfo", f"{mode},{sha},{path}")
    repo.git("commit", "--quiet", "-m", "planted")


def blob(repo: Repo, content: str) -> str:
    return repo.git("hash-object", "-w", str(repo.write(".git/blob", content))).out.strip()


@pytest.mark.parametrize("count", [1, 120])
def test_what_comes_is_ours_and_whole(ours: Repo, theirs: Repo, receive: Receive, count: int) -> None:
    for n in range(count // 3 + 1):
        theirs.commit(f"c{n}", **{f"folder {n}/ü": f"{n}\n"})
    tip = receive()
    assert tip == theirs.git("rev-parse", "HEAD").out.strip()
    ours.git("update-ref", REF, tip)
    ours.git("fsck", "--strict", "--full")
    assert len(ours.git("rev-list", REF).out.splitlines()) == count // 3 + 2
    found = incoming.commits(discovery.find(ours.top, {}), tip, ["main"], most=1)
    assert [(one[0], one[2]) for one in found] == [(tip, f"c{count // 3}")]


@pytest.mark.parametrize(
    ("mode", "content", "path", "kinds"),
    [
        ("160000", None, "nested", ("gitlinks",)),
        ("120000", "/etc/passwd", "link", ("links",)),
        ("120000", "../../up", "a/link", ("links",)),
        ("100644", "x", ".opencode/plugin/x.js", ("protected",)),
        ("100644", "x", ".OpenCode/x", ("protected",)),
        ("100644", "x", "opencode.json", ("protected",)),
        ("100755", "x", "ci/run", ("protected",)),
        ("120000", "elsewhere", "hooks", ("protected",)),
        ("100644", "x", ".tasks/one", ()),
        ("100644", "y" * (1 << 21), "big", ("large",)),
    ],
)
def test_refused_in_any_commit_unless_a_person_accepts_it(
    theirs: Repo, receive: Receive, mode: str, content: str | None, path: str, kinds: tuple[incoming.Kind, ...]
) -> None:
    sha = theirs.git("rev-parse", "HEAD").out.strip() if content is None else blob(theirs, content)
    planted(theirs, mode, sha, path)
    theirs.git("rm", "--quiet", "--cached", "-r", path)
    theirs.git("commit", "--quiet", "-m", "and gone again")
    assert refused(receive).kinds == kinds
    if kinds:
        others = tuple(kind for kind in incoming.KINDS if kind not in kinds)
        assert refused(receive, rules=Rules(RULES.protected, RULES.largest_b, others)).kinds == kinds
        receive(rules=Rules(RULES.protected, RULES.largest_b, kinds))


def test_a_merge_of_what_is_the_hosts_own_is_no_plant(ours: Repo, theirs: Repo, receive: Receive) -> None:
    ours.git("checkout", "--quiet", "-b", "side")
    ours.commit("settings", **{".opencode/x": "mine"})
    theirs.commit("work", work="1")
    theirs.git("fetch", "--quiet", str(ours.top), "side")
    theirs.git("merge", "--quiet", "--no-edit", "FETCH_HEAD")
    # The side is sent along here: another refusal, of the commit that has it, and not of the merge.
    assert refused(receive).reasons == (".opencode/x: programs on your machine do what it says",)
    theirs.git("reset", "--quiet", "--hard", "HEAD~")
    theirs.git("merge", "--quiet", "--no-commit", "FETCH_HEAD")
    theirs.commit("an evil merge", **{".opencode/y": "evil"})
    assert ".opencode/y: programs on your machine do what it says" in refused(receive).reasons


def _entry(kind: int, content_b: bytes, *, says: int | None = None, base_b: bytes = b"") -> bytes:
    size = len(content_b) if says is None else says
    head, size = [kind << 4 | size & 15], size >> 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head) + base_b + zlib.compress(content_b)


def _bundle(tip: str, *entries: bytes, ref: str = REF, count: int | None = None) -> bytes:
    pack_b = struct.pack(">4sLL", b"PACK", 2, len(entries) if count is None else count) + b"".join(entries)
    return f"# v2 git bundle\n{tip} {ref}\n\n".encode() + pack_b + hashlib.sha1(pack_b).digest()  # noqa: S324


def _number(n: int) -> bytes:
    made = []
    while True:
        made.append(n & 0x7F | (0x80 if n > 0x7F else 0))
        n >>= 7
        if not n:
            return bytes(made)


def test_bundles_that_no_git_made(ours: Repo, theirs: Repo, receive: Receive) -> None:
    tip = theirs.commit("real", real="1")
    head = ours.git("rev-parse", "HEAD").out.strip()
    commit_b = theirs.git("cat-file", "commit", tip).out.encode()
    bomb_b = _entry(3, bytes(64 << 20))
    assert len(bomb_b) < 1 << 17
    base_b = bytes.fromhex(blob(ours, "base"))
    grows = _number(4) + _number(1 << 40) + b"\x90\x04"
    crafted = {
        "no bundle": b"",
        "no bundle at all": b"x" * 200_000,
        "another branch": _bundle(tip, ref="refs/heads/main"),
        "two branches": _bundle(tip).replace(b"\n\n", f"\n{tip} refs/heads/main\n\n".encode(), 1),
        "a name that is none": _bundle("../../../../etc/passwd"),
        "no pack": f"# v2 git bundle\n{tip} {REF}\n\nPAC".encode(),
        "fewer than it says": _bundle(tip, _entry(1, commit_b), count=1 << 31),
        "a bomb": _bundle(tip, bomb_b),
        "a bomb that says it is small": _bundle(tip, _entry(3, bytes(64 << 20), says=100)),
        "a delta that makes a terabyte": _bundle(tip, _entry(7, grows, base_b=base_b)),
        "a type that is none": _bundle(tip, _entry(5, b"x")),
        "no zlib": _bundle(tip, b"\x33xxxxxxxxxxxxxxx"),
        "only the commit": _bundle(tip, _entry(1, commit_b)),
        "a commit that is none": _bundle(tip, _entry(1, b"tree x\n")),
        "another than it names": _bundle("0" * 40, _entry(1, commit_b)),
        "nothing in it": _bundle("1" * 40),
    }
    for bundle_b in crafted.values():
        refused(receive, bundle_b)
    # A tree with `.git` in it, which git itself would not check out either.
    evil = theirs.git("hash-object", "-w", "-t", "tree", "--literally", str(_tree(theirs, b".git"))).out.strip()
    made = theirs.git("commit-tree", evil, "-p", head, "-m", "evil").out.strip()
    theirs.git("update-ref", REF, made)
    assert "git refuses the commits" in refused(receive).message


def _tree(repo: Repo, name_b: bytes) -> Path:
    path = repo.top / ".git" / "tree"
    path.write_bytes(b"100644 " + name_b + b"\0" + bytes.fromhex(blob(repo, "x")))
    return path
