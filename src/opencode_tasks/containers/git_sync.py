"""Git of a task's container and ours: what was committed there comes here, what happened here is told there.

All of it runs inside, as the container's own git in its own directory; of what it sends, `incoming` lets in what may
come.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import quiet, sizes
from opencode_tasks.containers.place import in_the_tree
from opencode_tasks.containers.session import Session
from opencode_tasks.errors import TaskError
from opencode_tasks.git import advance, incoming, plumbing, private
from opencode_tasks.git.advance import Outcome
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.incoming import Kind, RefusedError, Rules
from opencode_tasks.printable import printable
from opencode_tasks.store import Store
from opencode_tasks.store.locks import locked
from opencode_tasks.task import Task
from opencode_tasks.values import replace

# What a bundle may have, packed; and how long it may take, whatever the container is doing.
_BUNDLE_B = 2 << 30
_EXPORT_S = 120.0
_PATIENCE_S = 300.0

_BOTH_MOVED, _NO_BRANCH, _SAME, _BACK, _AHEAD, _OURS, _NO_GIT = 3, 4, 5, 6, 7, 8, 127
# $1: the branch, $2: where ours is; from there on what is known. The bundle is on stdout; what there is to be told on
# stderr.
_EXPORT = """\
command -v git >/dev/null || exit 127
ref=$1
shift
head=$(git symbolic-ref -q HEAD)
[ -z "$head" ] || [ "$head" = "$ref" ] ||
    echo "${head#refs/heads/} is checked out there: what is committed on it stays there (git merge it)" >&2
own=$(git rev-parse -q --verify "$ref^{commit}") || exit 4
[ "$own" != "$1" ] || exit 8
for known; do
    [ "$own" != "$known" ] || exit 5
    if git merge-base --is-ancestor "$own" "$known"; then exit 6; fi
done
not=
for known; do not="$not ^$known"; done
exec git bundle create -q - "$ref" $not
"""
# $1: the branch, $2: the commit that both know, $3: where ours is; stdin: what else has changed, for `update-ref`.
# A branch that is checked out inside is left alone, but for the task's own when nothing was committed on it.
_FOLLOW = """\
command -v git >/dev/null || exit 127
ref=$1 known=$2 ours=$3
head=$(git symbolic-ref -q HEAD)
all=$(cat)
if [ "$head" != "$ref" ] && printf '%s\\n' "$all" | grep -qxF "delete $head" && ! git rev-parse -q --verify "$ref"; then
    # It was renamed.
    git update-ref "$ref" "$head" && git symbolic-ref HEAD "$ref" && git update-ref -d "$head" && head=$ref
fi >/dev/null
lines=$(printf '%s\\n' "$all" | grep -vF " $head " | grep -vxF "delete $head")
if [ -n "$lines" ] && ! printf '%s\\n' "$lines" | git update-ref --no-deref --stdin 2>/dev/null; then
    printf '%s\\n' "$lines" | while read -r verb name sha; do
        case $verb in
        update) git update-ref --no-deref "$name" "$sha" ;;
        delete) git update-ref --no-deref -d "$name" ;;
        esac 2>/dev/null
    done
fi
own=$(git rev-parse -q --verify "$ref^{commit}")
[ "$own" != "$ours" ] || exit 0
git update-ref "refs/remotes/host/${ref#refs/heads/}" "$ours"
if [ -n "$own" ] && [ "$own" != "$known" ] && ! git merge-base --is-ancestor "$own" "$ours"; then
    git merge-base --is-ancestor "$ours" "$own" && exit 7
    exit 3
fi
if [ "$head" = "$ref" ] && [ -n "$own" ]; then
    if ! git read-tree -i -m "$own" "$ours" 2>/dev/null; then
        staged=$(git commit-tree -p "$own" -m 'What was staged' "$(git write-tree)") &&
            git update-ref refs/opencode-tasks/staged "$staged" &&
            echo 'what was staged is in refs/opencode-tasks/staged'
        git read-tree "$ours"
    fi
    git update-index -q --refresh >/dev/null 2>&1
fi
git update-ref -m 'commits of the host' "$ref" "$ours"
"""


Arrived = Callable[[str, str], None]
"""Called with where the branch was and what is on it now, again if we were killed before we had noted that."""


class Sync:
    """Of one task, through one session's way into its container. `checkout`: the task's work tree."""

    def __init__(
        self, store: Store, config: Config, task: Task, checkout: Checkout, session: Session, arrived: Arrived
    ) -> None:
        self._store, self._config, self._task, self._session = store, config, task, session
        self._arrived = arrived
        self.checkout = checkout
        self._layout = store.layout
        self._ref = f"refs/heads/{task.branch}"
        self._largest_b = sizes.parse(config.git.largest, what="git.largest")
        self._said: list[str] = []

    def run(self, *, accepted: Sequence[Kind] = (), rewrite: bool = False, again: bool = False) -> list[str]:
        """Both ways; what the person and the agent should know. `again`: also what was refused before.

        Raises `TaskError`.
        """
        path = self._layout.private_git(self._task.id)
        if not path.is_dir() or path.is_symlink():
            return []
        with locked(self._layout.lock(f"{self._task.id}.git"), timeout_s=_PATIENCE_S, hot=True):
            first = self._take(tuple(accepted), rewrite, again)
            told = self._tell()
            # To be told moved the container's branch: what it looks like now is what we know.
            then = self._take(tuple(accepted), rewrite, again=False)
        return [*first, *told, *then, *dict.fromkeys(self._said)]

    def _inside(self) -> list[object]:
        return private.inside_stamp(self._layout, self._task.id, self._task.branch)

    def _take(self, accepted: tuple[Kind, ...], rewrite: bool, again: bool) -> list[str]:
        seen, inside = private.seen(self._layout, self._task.id), self._inside()
        if seen.inside == inside and not (again or seen.problem):
            return []
        taken = self._noted(private.TAKEN)
        if seen.inside != inside or again:
            try:
                taken = self._fetched(accepted) or self._noted(private.TAKEN)
            except TaskError as e:  # it is not tried again until something moves
                private.remember(self._layout, self._task.id, replace(seen, inside=inside, refused=e.message))
                raise
            seen = replace(seen, inside=inside, refused="")
        outcome: Outcome = "there"
        was = ""
        if taken is not None:
            journal = self._layout.private_git(self._task.id).parent / "moving.json"
            outcome, was = advance.advance(self.checkout, self._task.branch, taken, journal, rewrite=rewrite)
        problem = self._problem(outcome, taken or "", was)
        if taken is not None and outcome in ("moved", "there", "behind"):
            if rewrite and outcome == "moved":
                self._note(private.REWRITTEN, was)
            self._arrived(was if outcome == "moved" else self._noted(private.AGREED) or taken, taken)
            # Whatever becomes of the branch from here on: this is no news any more.
            self._note(private.AGREED, taken)
            private.forget(self.checkout, private.TAKEN, self._task.id)
        private.remember(self._layout, self._task.id, replace(seen, problem=problem))
        return [problem] if problem and (problem != seen.problem or again) else []

    def _noted(self, what: str) -> str | None:
        return private.noted(self.checkout, what, self._task.id)

    def _note(self, what: str, tip: str) -> None:
        private.note(self.checkout, what, self._task.id, tip)

    def _fetched(self, accepted: tuple[Kind, ...]) -> str | None:
        """The container's tip, when it is another one; we have its objects then."""
        ours, before = plumbing.commit_of(self.checkout, self._ref), self._noted(private.TAKEN)
        if ours is None:
            return None
        known = [ours, *(tip for tip in (self._noted(private.AGREED), before) if tip)]
        place = self._layout.private_git(self._task.id).parent
        incoming.sweep(place)
        bundle = place / "incoming-bundle"
        try:
            code, said_b = self._export(bundle, known)
            if said_b and code in (0, _OURS, _SAME, _BACK):
                self._said.append(f"inside, {printable(said_b.decode(errors='replace').strip())[:300]}")
            if code == _OURS and before not in (None, ours):  # what was taken was given up inside
                self._note(private.REWRITTEN, str(before))
                private.forget(self.checkout, private.TAKEN, self._task.id)
            if code in (_OURS, _BACK, _SAME, _NO_BRANCH, _NO_GIT):
                return None
            if code != 0:
                said = said_b.decode(errors="replace").strip() or f"exit code {code}"
                raise RefusedError([f"The container's git sent no commits: {printable(said)[:300]}"])
            rules = Rules(in_the_tree(self.checkout, self._config.container.protected), self._largest_b, accepted)
            tip = incoming.receive(self.checkout, bundle, place, ref=self._ref, since=known, rules=rules)
        finally:
            bundle.unlink(missing_ok=True)
        self._note(private.TAKEN, tip)
        return tip

    def _export(self, bundle: Path, known: list[str]) -> tuple[int, bytes]:
        with bundle.open("xb") as f:

            def write(content_b: bytes) -> None:
                if f.tell() + len(content_b) > _BUNDLE_B:
                    raise RefusedError([f"The container sends more than {sizes.told(_BUNDLE_B)} of commits"])
                f.write(content_b)

            return self._inside_run(_EXPORT, [self._ref, *dict.fromkeys(known)], within_s=_EXPORT_S, sink=write)

    def _inside_run(
        self,
        script: str,
        words: Sequence[str],
        *,
        stdin_b: bytes = b"",
        within_s: float = 30.0,
        sink: Callable[[bytes], None] | None = None,
    ) -> tuple[int, bytes]:
        argv = ["/bin/sh", "-c", script, "sh", *words]
        try:
            return quiet.run(
                self._store,
                self._task.id,
                self._session,
                argv,
                cwd=str(self.checkout.top),
                stdin_b=stdin_b,
                within_s=within_s,
                sink=sink,
            )
        except (OSError, EOFError, ValueError, TypeError) as e:
            raise TaskError(
                f"The container's git could not be asked: {e or type(e).__name__}",
                hint="the next command in it tries again",
                code="import_failed",
            ) from e

    def _problem(self, outcome: Outcome, tip: str, was: str) -> str:
        """What keeps the container's commits from our branch; empty: nothing does."""
        kept = f"they are kept as {private.TAKEN}{self._task.id}"
        branch = self._task.branch
        return {
            "diverged": f"{branch} is at {was[:9]} here and at {tip[:9]} in the container, and neither follows "
            f"the other: {kept}. Inside: git reset host/{branch}, and commit again what then differs; a person may: "
            f"opencode-tasks import-commits {self._task.id} --rewrite",
            "busy": f"{branch} was not moved to the container's {tip[:9]}: another git is at work in "
            f"{self.checkout.top}; {kept}, and the next command tries again",
            "staged": f"{branch} was not moved to the container's {tip[:9]}: what is staged here differs from it; "
            f"{kept}. Commit or unstage it: git restore --staged .",
            "gone": f"There is no branch {branch} any more for the container's commits; {kept}",
        }.get(outcome, "")

    def _tell(self) -> list[str]:
        seen, stamp = private.seen(self._layout, self._task.id), private.refs_stamp(self.checkout)
        if seen.refused or (seen.refs is not None and seen.refs == stamp):
            return []
        refs, told = private.our_refs(self.checkout), private.told_refs(self._layout, self._task.id)
        ours = refs.get(self._ref)
        lines = list(private.updates(told, refs, but=self._ref))
        notes: list[str] = []
        if ours is not None and (lines or told.get(self._ref) != ours):
            notes = self._follow(ours, lines)
        private.remember_refs(self._layout, self._task.id, refs)
        private.remember(self._layout, self._task.id, replace(seen, refs=stamp))
        return notes

    def _follow(self, ours: str, lines: list[str]) -> list[str]:
        stdin_b = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
        words = [self._ref, self._noted(private.AGREED) or ours, ours]
        try:
            code, said_b = self._inside_run(_FOLLOW, words, stdin_b=stdin_b)
        except TaskError as e:
            seen = private.seen(self._layout, self._task.id)
            private.remember(self._layout, self._task.id, replace(seen, inside=self._inside(), refused=e.message))
            raise
        if code == 0:
            self._note(private.AGREED, ours)
        if code == _BOTH_MOVED:
            host = f"host/{self._task.branch}"
            return [
                f"{self._task.branch} moved on the host, too; inside it is {host}: git reset {host}, and commit again"
            ]
        said = printable(said_b.decode(errors="replace").strip())[:300]
        return [f"inside, {said}"] if said and code in (0, _AHEAD) else []
