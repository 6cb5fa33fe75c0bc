#!/usr/bin/env bash
# Checks worker.sh against a running server, in about twenty seconds. Usage: test.sh; it reads STINT_ADDR and GRPCURL
# as worker.sh does, prints what it found wrong, and ends with 1 if there was anything.
set -euo pipefail

addr=${STINT_ADDR:-127.0.0.1:7707}
grpcurl=${GRPCURL:-grpcurl}
worker=$(dirname "${BASH_SOURCE[0]}")/worker.sh
queue=examples/shell-$$
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

call() { "$grpcurl" -plaintext -connect-timeout 5 -max-time 30 -d "$2" "$addr" "stint.v1.${service:-JobService}/$1"; }
field() { sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" | sed -n 1p; }
submit() { call SubmitJobs "{\"jobs\": [{\"queue\": \"$queue/$1\", \"payload\": {\"text\": \"$2\"}, $3}]}" | field id; }
job() { call GetJob "{\"id\": \"$1\", \"view\": \"JOB_VIEW_FULL\"}"; }

faults=0
# want CASE WHAT GOT WANTED
want() { [[ $3 == "$4" ]] || { echo "$1: $2 is '$3', want '$4'" >&2; faults=$((faults + 1)); }; }

# Nothing to do takes ten seconds, so it goes on beside the rest.
(status=0; "$worker" "$queue/empty" cat || status=$?; echo $status >"$dir/empty") &

id=$(submit upper hello '"lease": "30s"')
"$worker" "$queue/upper" tr a-z A-Z
got=$(job "$id")
want success state "$(field state <<<"$got")" JOB_STATE_SUCCEEDED
want success result "$(sed -n '/"result": *{/,/}/p' <<<"$got" | field data | base64 -d)" HELLO

id=$(submit fail x '"retry": {"maxAttempts": 1}')
"$worker" "$queue/fail" sh -c 'echo "it is \"broken\"" >&2; exit 3'
got=$(job "$id")
want failure state "$(field state <<<"$got")" JOB_STATE_FAILED
want failure exitCode "$(field exitCode <<<"$got")" 3
want failure stderr "$(grep -c 'it is \\"broken\\"' <<<"$got" | sed 's/[1-9][0-9]*/shown/')" shown

id=$(submit signal x '"retry": {"maxAttempts": 1}')
"$worker" "$queue/signal" sh -c 'kill -KILL $$'
want signal signal "$(job "$id" | field signal)" KILL

# Longer than its lease: it lives by its heartbeats, so that nobody else gets the job meanwhile.
id=$(submit long x '"lease": "5s"')
"$worker" "$queue/long" sleep 8 &
call WaitJob "{\"id\": \"$id\", \"until\": \"WAIT_UNTIL_ACCEPTED\"}" >/dev/null
other=$(service=WorkerService call ClaimJobs "{\"worker\": \"test.sh\", \"queues\": [\"$queue/long\"], \"wait\": \"6s\"}")
want heartbeat "another worker's claim" "$(field jobId <<<"$other")" ""
wait $!
got=$(job "$id")
want heartbeat state "$(field state <<<"$got")" JOB_STATE_SUCCEEDED
want heartbeat runCount "$(field runCount <<<"$got")" 1

# The command ignores SIGTERM, and has a child.
id=$(submit cancel x '"lease": "6s"')
"$worker" "$queue/cancel" bash -c 'trap "" TERM; sleep 60; sleep 60' &
call WaitJob "{\"id\": \"$id\", \"until\": \"WAIT_UNTIL_ACCEPTED\"}" >/dev/null
call InterruptJobs "{\"ids\": [\"$id\"], \"level\": \"INTERRUPT_LEVEL_CANCEL\", \"reason\": \"a test\"}" >/dev/null
wait $!
got=$(job "$id")
want cancel state "$(field state <<<"$got")" JOB_STATE_CANCELLED
want cancel runCount "$(field runCount <<<"$got")" 1

# A worker that is stopped gives its job back.
id=$(submit stop x '"lease": "30s"')
"$worker" "$queue/stop" sleep 60 &
call WaitJob "{\"id\": \"$id\", \"until\": \"WAIT_UNTIL_ACCEPTED\"}" >/dev/null
kill -TERM $!
wait $!
want stop state "$(job "$id" | field state)" JOB_STATE_SCHEDULED

wait
want empty status "$(<"$dir/empty")" 1
((faults == 0)) && echo "worker.sh: all as it should be"
