"""What `init` put into a work tree for OpenCode is read-only in its container, and no commit from there has it."""

from pathlib import Path

from tests.conftest import Repo

ATTACK = """
names="plugins/opencode-tasks.js opencode.jsonc opencode.json plugins/another.js ../opencode.json ../opencode.jsonc"
for path in $names; do
    if echo x >.opencode/$path; then echo wrote $path; fi
done 2>/dev/null
if mv opencode.json away || rm opencode.jsonc; then echo moved; fi 2>/dev/null
if mv .opencode away || rm .opencode/opencode.jsonc; then echo moved; fi 2>/dev/null
touch mine; git add -A; git commit -qm mine; git show --name-only --format= HEAD
"""


def test_in_a_worktree_that_had_no_such_folder(live_repo: Repo) -> None:
    live_repo.git("rm", "-r", "--quiet", "--cached", ".opencode")
    live_repo.git("commit", "--quiet", "-m", "nothing of it is tracked")
    made = live_repo.tasks("create-task", "Beside", "--worktree", "--json").json
    top = Path(made["workspace"]["path"])
    before = {p: p.read_bytes() for p in (top / ".opencode").rglob("*") if p.is_file()}
    assert top / ".opencode/plugins/opencode-tasks.js" in before
    assert live_repo.tasks("exec", "--task", made["id"], "--", "sh", "-c", ATTACK).out == "mine\n"
    assert {p: p.read_bytes() for p in (top / ".opencode").rglob("*") if p.is_file()} == before
