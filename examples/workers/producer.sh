#!/bin/sh
# A producer in the shell: sh producer.sh QUEUE NAME... Needs curl and jq.
queue=$1
shift
for name in "$@"; do
    job=$(jq -nc --arg name "$name" '{name: $name}')
    curl -fsS "${PRESQUE_URL:-http://127.0.0.1:5000}/q/$queue" -d "$job" | jq -r .id
done
