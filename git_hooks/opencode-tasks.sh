# opencode-tasks hook v1: what the shims beside this file share. Sourced, never run.
# Nothing but this shell's own builtins: a checkout that concerns no task pays for no process.

python='python3' # init writes the interpreter that has the package here

# The file's text, in $whole: a path may hold line breaks.
read_whole() {
    whole=
    while IFS= read -r line || [ -n "$line" ]; do
        whole=$whole${whole:+
}$line
    done <"$1"
}

# Where this work tree's git directory is ($dir), the one that all share ($common), and what we wrote there ($known).
find_known() {
    [ "$OPENCODE_TASKS_HOOKS" != off ] || return 1
    dir=${GIT_DIR:-.git}
    if [ -f "$dir" ]; then
        read_whole "$dir"
        dir=${whole#gitdir: }
    fi
    common=$dir
    if [ -f "$dir/commondir" ]; then
        read_whole "$dir/commondir"
        case $whole in /*) common=$whole ;; *) common=$dir/$whole ;; esac
    fi
    known=$common/opencode-tasks/branches
    [ -r "$known" ]
}

# Whether a branch is a task's, by what is known.
is_a_tasks() {
    while read -r kind name; do
        case $kind in
        prefix) case $1 in "$name"*) return 0 ;; esac ;;
        branch) if [ "$1" = "$name" ]; then return 0; fi ;;
        esac
    done <"$known"
    return 1
}

# Whether a task's branch is checked out in this work tree, or was until now.
task_is_here() {
    find_known || return 1
    if [ -e "$dir/opencode-task" ]; then return 0; fi
    head=
    read -r head <"$dir/HEAD"
    case $head in
    'ref: refs/heads/.invalid') return 0 ;; # reftable keeps HEAD elsewhere: Python asks git
    'ref: refs/heads/'*) is_a_tasks "${head#'ref: refs/heads/'}" ;;
    *) return 1 ;;
    esac
}

# Whether OpenCode is set up in this repository, and nothing of that is in this work tree yet.
opencode_is_missing() {
    find_known || return 1
    [ -e "$common/opencode-tasks/bin" ] && [ ! -e "$dir/opencode-tasks.json" ]
}

# Whether one of the references in $said is the branch of a task.
some_branch_is_a_tasks() {
    find_known || return 1
    for word in $said; do
        case $word in refs/heads/*) if is_a_tasks "${word#refs/heads/}"; then return 0; fi ;; esac
    done
    return 1
}

# Whether the settings say what branches may be committed on, or whoever commits holds a lease.
has_a_rule() {
    find_known || return 1
    if [ -n "$OPENCODE_TASKS_LEASE" ]; then return 0; fi
    while read -r kind name; do
        if [ "$kind" = rule ]; then return 0; fi
    done <"$known"
    return 1
}

# Whether what is to be committed has a link, a repository, or a path that programs on the host obey.
is_delicate() {
    git -c core.fsmonitor=false -c core.quotePath=false diff --cached --raw --no-renames --no-ext-diff \
        --ignore-submodules=none --diff-filter=d | (
        while IFS='	' read -r modes path; do
            case $modes in :??????\ 1[26]0000\ *) exit 0 ;; esac
            case $path in '"'*) exit 0 ;; esac # a name that cannot be shown as it is
            while read -r kind name; do
                if [ "$kind" = protected ]; then case $path in "$name" | "$name"/*) exit 0 ;; esac; fi
            done <"$known"
        done
        exit 1
    )
}

# Whether the merge that just happened brought in all of a task's branch.
a_task_came_home() {
    find_known || return 1
    said=$(git for-each-ref --merged=HEAD --no-merged=ORIG_HEAD --format='%(refname)' refs/heads/ 2>/dev/null)
    some_branch_is_a_tasks
}

# Whatever happens in there, git goes on: only $status, the other hook's answer, can stop it.
start_python() {
    if [ -x "$python" ]; then
        "$python" -I -m opencode_tasks.git_hooks "$@" || :
    else
        echo "opencode-tasks: $python is gone, so $1 did nothing; run: opencode-tasks init" >&2
    fi
}

# Here a refusal is what the hook is for. That Python did not start, or broke, is none.
ask_python() {
    answer=0
    if [ -x "$python" ]; then
        "$python" -I -m opencode_tasks.git_hooks "$@" || answer=$?
    else
        echo "opencode-tasks: $python is gone, so $1 did nothing; run: opencode-tasks init" >&2
    fi
    [ "$answer" != 10 ]
}
