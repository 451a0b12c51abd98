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

# Whether a task's branch is checked out in this work tree, or was until now.
task_is_here() {
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
    [ -r "$known" ] || return 1
    if [ -e "$dir/opencode-task" ]; then return 0; fi
    head=
    read -r head <"$dir/HEAD"
    case $head in
    'ref: refs/heads/.invalid') return 0 ;; # reftable keeps HEAD elsewhere: Python asks git
    'ref: refs/heads/'*) branch=${head#'ref: refs/heads/'} ;;
    *) return 1 ;;
    esac
    while read -r kind name; do
        case $kind in
        prefix) case $branch in "$name"*) return 0 ;; esac ;;
        branch) if [ "$branch" = "$name" ]; then return 0; fi ;;
        esac
    done <"$known"
    return 1
}

# Whatever happens in there, git goes on: only $status, the other hook's answer, can stop it.
start_python() {
    if [ -x "$python" ]; then
        "$python" -I -m opencode_tasks.git_hooks "$@" || :
    else
        echo "opencode-tasks: $python is gone, so $1 did nothing; run: opencode-tasks init" >&2
    fi
}
