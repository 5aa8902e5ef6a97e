#!/bin/sh
# A worker in the shell: sh worker.sh [QUEUE]. Needs curl and jq.
url=${PRESQUE_URL:-http://127.0.0.1:5000} queue=${1:-greetings}

work() { # the job is on standard input; what goes to standard error says why it failed
    name=$(jq -er .name 2>/dev/null) || { echo "a greeting needs a name" >&2; return 1; }
    echo "hello, $name"
}

settle() { # ack or fail the job, with this body
    curl -sS -o /dev/null --retry 5 --retry-connrefused "$url/j/$job/$1" -H "Presque-Lease: $lease" -d "$2"
}

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
trap exit INT TERM
while :; do
    answer=$(curl -fsS -X POST "$url/q/$queue/lease?wait=20") || { sleep 1; continue; }
    [ -n "$answer" ] || continue # nothing came
    job=$(printf %s "$answer" | jq -r '.jobs[0] | "\(.queue)/\(.id)"')
    lease=$(printf %s "$answer" | jq -r '.jobs[0].lease')
    if printf %s "$answer" | jq '.jobs[0].body' | work 2>"$errors"; then
        settle ack '{}'
    else
        settle fail "$(jq -Rs '{error: .[:-1]}' "$errors")"
    fi
done
