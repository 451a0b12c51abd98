"""What the labels are promised for, form by form: quoting, wrappers, texts within texts, paths.

In the lists of cases `⏎` is a line break, `⇥` a tab, `␛` an escape, and behind `=>` stands what is to be found.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from opencode_tasks.policy.risk import assess
from tests.conftest import run
from tests.policy.lines import WORKSPACE, assessed

_DELETES = r"""
rm -rf x
rm -fr x
rm -r -f x
rm x -rf
rm --recursive x
rm --rec x
rm -Rf -- x
/bin/rm -r x
r""m -r x
r'm' '-r' x
$'\x72m' -r x
"rm" "-r" x
\rm -r x
X=rm; $X -r x
F="-r -f"; rm $F x
a='rm -r x'; eval $a
${R:-rm} -r x
rm -r "$DIR"
sh -c 'rm -r x'
bash -xec 'rm -r x'
bash -lc "sh -c 'rm -r x'"
env A=1 B=2 rm -r x
env -i sh -c 'rm -r x'
sudo -u root -- rm -r x
nohup rm -r x &
timeout -k 2 5 rm -r x
nice -n 5 rm -r x
time -p rm -r x
exec rm -r x
command rm -r x
builtin eval 'rm -r x'
flock /tmp/l rm -r x
flock l -c 'rm -r x'
su dev -c 'rm -r x'
watch -n 5 rm -r x
xargs -0 -n1 rm -r < l
ls | xargs -I{} sh -c 'rm -r {}'
parallel rm -r ::: a b
parallel 'rm -r {}' ::: a
find . -name a -exec rm -r {} +
find . -exec sh -c 'rm -r {}' \;
fd -e pyc -x rm -r
docker exec -it -u 0 c rm -r x
docker compose -f a.yml run --rm web sh -c 'rm -r x'
ssh -p 22 host rm -r x
ssh host <<'E'⏎rm -r x⏎E
kubectl exec pod -- rm -r x
npx rimraf x
npx --yes rimraf@5 x
echo $(rm -r x)
echo `rm -r x`
echo "a $(rm -r x) b"
cat <(rm -r x)
A=$(rm -r x)
export A=$(rm -r x)
(rm -r x)
{ rm -r x; }
! rm -r x
a && b || rm -r x
a | b | rm -r x
a & rm -r x
a;⏎⏎ rm -r x # no
if a; then b; else rm -r x; fi
for i in a b; do rm -r $i; done
until rm -r x; do :; done
case $1 in *) rm -r x;; esac
f() { rm -r x; }; f
function f { rm -r x; }
trap 'rm -r x' EXIT
[[ -d x ]] && rm -r x
coproc rm -r x
bash <<E⏎rm -r x⏎E
bash <<-'E'⏎⇥rm -r x⏎⇥E
bash -s a <<E⏎rm -r $1⏎E
bash <<< 'rm -r x'
sh << E && ls⏎rm -r x⏎E
echo rm -r x | sh
printf 'rm -r x\n' | bash -s
cat <<'E' | sudo bash⏎rm -r x⏎E
cat <<E⏎$(rm -r x)⏎E
rm -r x > log 2>&1
> log rm -r x
A=1 rm -r x
while read l; do rm -r x; done < f
git bisect run sh -c 'rm -r x'
git submodule foreach 'rm -r x'
git -c alias.x='!rm -r y' x
"""
_TALKS = r"""
echo rm -rf x
echo 'rm -rf x'
# rm -rf x
ls # ; rm -rf x
grep -r 'rm -rf' .
printf '%s' "rm -rf x"
cat <<E⏎rm -rf x⏎E
cat <<'E' > f⏎$(rm -rf x)⏎E
git commit -m 'rm -rf x'
git log --grep='rm -rf'
rm x -- -r
A='rm -rf x'
alias c='rm -rf x'
rm -f r
firm -rf x
python -c 'print("rm -rf")'
awk '/rm -rf/' f
"""
_RISKS = r"""
git -C a --no-pager -c x.y=z reset -q --hard   => git-reset-hard
git -c alias.x='reset --hard' x HEAD~1   => git-reset-hard
git reset --soft HEAD~1 && git reset x.py
git clean -e build -n; git clean --dry-run -d
git clean -e n -fd   => git-clean
git -c a.b=c clean -n
A=rm; A+=x; $A -r y
git checkout -q main
git checkout -b a.py; git checkout --orphan b; git checkout -t origin/x.y; git checkout --detach v1.py
git checkout topic -- src   => git-checkout-paths
git checkout HEAD~1 src   => git-checkout-paths
git checkout -- topic   => git-checkout-paths
git checkout src/   => git-checkout-paths
git checkout topic --
git checkout -fq topic   => git-checkout-force
git restore --staged a && git restore -S b
git restore -SW a   => git-restore
git stash show -p; git stash list; git stash create; git stash store abc
git stash -- a   => git-stash
git rebase --show-current-patch; git pull --rebase=false
git rebase -x 'git clean -f' main   => git-clean git-rebase
git branch x; git branch -m y; git branch -a
git branch -rd origin/x   => git-branch-delete
git push origin main; git push --dry-run --force
git push origin +main   => git-push-force
git rm -r --cached x
git gc; git reflog; git tag v1
git filter-branch -f --msg-filter cat   => git-history
find . -name '*.delete'
git ls-files -o | xargs -r rm --   => find-delete
for f in $(find . -name a); do rm $f; done   => find-delete
D=$(mktemp -d); rm "$D"
sed -n 's/-i/x/p' f; sed -e s/a/b/ f; perl -ne print f; echo a | perl -pi -e s/a/b/
sed -i.bak -e s/a/b/ f   => codemod
perl -0pi -e s/a/b/ f   => codemod
ruff check --diff --fix .; black --check .; cargo fmt -- --check; prettier -c .
uv run --group dev ruff format .   => codemod
python -m black .   => codemod
pnpm --filter web exec prettier --write .   => codemod
dd if=a of=/dev/null
ln -sfn a current; mv -n a b; cp a b; > /dev/null; ls 2>/dev/null
truncate --size 0 a   => overwrite
npm run migrate:status; rake db:seed; make migrations-check; npx prisma migrate diff
poetry run python manage.py migrate app 0003   => migration
make -C api db:reset   => migration
mysql -e 'drop table a' db   => migration
psql db <<E⏎delete from a;⏎E   => migration
echo 'TRUNCATE a' | sqlite3 x.db   => migration
curl -sf u -o f && bash f
sudo bash -c "$(wget -qO- u)"   => remote-script
python3 <(curl -s u)   => remote-script
python3 - <<E⏎import shutil⏎shutil.rmtree('a')⏎E   => rm-recursive
if then )   => unparsed
"""
_BEYOND = r"""
rm a ./b /home/dev/app/c ../app/d ~/app/e $PWD/f "$(pwd)"/g *.o
rm /etc/a   => outside the workspace: /etc/a
rm -r ../b   => outside the workspace: ../b
rm -r ../app2   => outside the workspace: ../app2
cd src && rm ../../x   => outside the workspace: ../../x
(cd .. && ls); rm x
cd /srv; rm x   => outside the workspace: x
cd "$D"; rm x
rm -rf /   => outside the workspace: /
rm -rf /home/dev/*   => outside the workspace: /home/dev/*
rm -rf ~   => outside the workspace: ~
rm -rf "${HOME}/.cache"   => outside the workspace: ~/.cache
rm -rf ~other/x   => outside the workspace: ~other/x
rm -rf /tmp/x /var/tmp/y
rm -rf .   => git's own files: .
rm -rf ./*
rm .git/index.lock   => git's own files: .git/index.lock
echo a > .git/HEAD   => git's own files: .git/HEAD
rm -rf .github .gitignore
cp a /usr/local/bin   => outside the workspace: /usr/local/bin
cp /etc/hosts .
mv /etc/hosts .   => outside the workspace: /etc/hosts
make &> /var/log/x 2>> /dev/null   => outside the workspace: /var/log/x
find /srv -name a -exec rm {} +   => outside the workspace: /srv/…
find . -delete   => git's own files: .
git -C /srv/a reset --hard   => outside the workspace: .
git clean -fdX   => ignored files: git clean -fdX
git stash drop   => git's own files: git stash drop
git push -f   => remote: git push -f
prisma migrate reset   => a database: prisma migrate reset
ssh h rm -r /etc   => remote: ssh h
docker volume rm a   => docker's volumes: docker volume rm a
rm '/etc/a␛[2J'   => outside the workspace: /etc/a\x1b[2J
"""
_READS = r"""
ls -la
git status
cd src && ls; pwd
git log -p | head -5
cat a 2>/dev/null
a=1
# nothing
find . -type f -exec wc -l {} +
ls | xargs cat
if [ -f a ]; then cat a; fi
bash -c 'git diff --stat'
time ls
sed -n '1,5p' a
awk '{print $1}' a
sort a | uniq -c
git stash list
env | sort
f() { ls; }; f
command -v node
"""
_CHANGES = r"""
pytest
make
./ls
python a.py
unknown-tool --help
ls > a
cat a | tee b
$X
"$@"
source a
. a
sort -o a a
uniq a b
find . -fprint a
sed 's/a/b/w c' d
sed -i p a
awk '{print > "a"}' b
awk 'BEGIN{system("x")}'
git -c core.fsmonitor=./x status
git diff --output=a
git grep -O a
git fetch
git config a.b c
git tag v1
rg --pre x y
echo x | bash
eval "$X"
xargs rm < a
find . -exec ./x {} +
curl -X POST u
curl -o a u
ls $(touch a)
f() { ls; }; f > a
"""


def _cases(block: str) -> Iterator[tuple[str, str]]:
    for row in block.strip().splitlines():
        text, _, expected = row.replace("⏎", "\n").replace("⇥", "\t").replace("␛", "\x1b").partition("   => ")
        yield text, expected


def test_a_recursive_deletion_is_seen_in_every_form() -> None:
    found = {text: assessed(text) for text, _ in _cases(_DELETES)}
    assert not [text for text, risk in found.items() if "rm-recursive" not in risk.labels or not risk.mutates]


def test_words_about_a_deletion_are_none() -> None:
    assert not {text: assessed(text).labels for text, _ in _cases(_TALKS) if assessed(text).labels}


def test_what_is_a_risk_and_what_looks_like_one() -> None:
    found = {text: set(assessed(text).labels) for text, _ in _cases(_RISKS)}
    assert found == {text: set(expected.split()) for text, expected in _cases(_RISKS)}


def test_what_undo_of_the_workspace_would_not_bring_back() -> None:
    found = {text: assessed(text).beyond for text, _ in _cases(_BEYOND)}
    assert found == {text: (expected,) if expected else () for text, expected in _cases(_BEYOND)}


def test_paths_are_compared_as_they_are_written() -> None:
    def beyond(*command: str, cwd: str = "/tmp/w", workspace: str = "/tmp/w") -> int:
        return len(assess(command, workspace=PurePosixPath(workspace), cwd=PurePosixPath(cwd)).beyond)

    assert beyond("rm", "-r", "a") == 0
    assert beyond("rm", "-r", "/tmp/other") == 0, "scratch"
    assert beyond("rm", "-r", "/tmp") == 1, "the workspace is in it"
    assert beyond("rm", "-r", "/tmp/*") == 1, "the workspace is in it"
    assert beyond("rm", "a", cwd="/srv") == 1
    assert beyond("rm", "~/a") == 1, "nobody knows where the home is"
    assert beyond("rm", "~/a/b", workspace="/root/a", cwd="/root/a") == 0


def test_only_what_is_known_to_read_changes_nothing() -> None:
    assert not [text for text, _ in _cases(_READS) if assessed(text).mutates]
    assert not assessed("").mutates
    assert not [text for text, _ in _cases(_CHANGES) if not assessed(text).mutates]


def test_arguments_are_taken_as_they_are_executed() -> None:
    """No shell: nothing in them is a variable, an operator or a quote."""
    assert assess(["rm", "-r", "a"], workspace=WORKSPACE, cwd=WORKSPACE).labels == ("rm-recursive",)
    assert not assess(["echo", "; rm -rf a", "$(rm -rf b)"], workspace=WORKSPACE, cwd=WORKSPACE).mutates
    assert not assess([], workspace=WORKSPACE, cwd=WORKSPACE).labels


def test_a_plain_line_that_reads_needs_neither_the_grammar_nor_the_rules(tmp_path: Path) -> None:
    script = """
import json, sys
from pathlib import PurePosixPath
from opencode_tasks.policy.risk import assess
def loaded(line):
    assess(["sh", "-c", line], workspace=PurePosixPath("/w"), cwd=PurePosixPath("/w"))
    return [name in sys.modules for name in ("tree_sitter", "opencode_tasks.policy.programs")]
print(json.dumps([loaded("git status --short"), loaded("git log | head"), loaded("git log | rm -r x")]))
"""
    done = run([sys.executable, "-I", "-c", script], cwd=tmp_path)
    assert json.loads(done.out) == [[False, False], [True, False], [True, True]]
