#!/usr/bin/env bash
# A Stint worker with nothing but grpcurl: claims one job, keeps its lease while a command works on it, and reports how
# the command ended. The payload is the command's standard input; its standard output is the job's result.
#
# Usage: worker.sh QUEUE COMMAND [ARG...]
#
#   STINT_ADDR  the server (127.0.0.1:7707)
#   GRPCURL     the grpcurl to use (grpcurl)
#
# Exit status: 0 a job was worked on and its end is settled, 1 no work came within ten seconds, 2 usage, 3 the server
# refused the claim or the end could not be reported, 5 no server, 127 no such command.
set -euo pipefail

addr=${STINT_ADDR:-127.0.0.1:7707}
grpcurl=${GRPCURL:-grpcurl}

if (($# < 2)) || [[ $1 == *[!a-z0-9._/-]* ]]; then
  echo "usage: worker.sh QUEUE COMMAND [ARG...]; a queue's name is made of a-z 0-9 . _ - and /" >&2
  exit 2
fi
queue=$1
shift
for needed in "$grpcurl" "$1"; do
  # Looked up before anything is claimed: a job is not to blame for what this machine lacks.
  command -v "$needed" >/dev/null || { echo "worker.sh: $needed: command not found" >&2; exit 127; }
done

dir=$(mktemp -d)
heartbeats=""
cleanup() {
  [[ -z $heartbeats ]] || kill "$heartbeats" 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT

# call METHOD SECONDS sends the JSON on standard input and prints the JSON of the answer. The lease token in it is a
# secret: a pipe keeps it out of the list of processes.
call() {
  local connect=$(($2 < 5 ? $2 : 5))
  "$grpcurl" -plaintext -connect-timeout $connect -max-time "$2" -d @ "$addr" "stint.v1.WorkerService/$1"
}

# field NAME prints the first string of that name in the JSON on standard input, which grpcurl writes one field a line.
field() { sed -n "s/^ *\"$1\": *\"\(.*\)\",\{0,1\}\$/\1/p" | sed -n 1p; }

# text prints the last 4 KiB of standard input as the inside of a JSON string, without what is not ASCII.
text() {
  tail -c 4096 | LC_ALL=C tr -cd '\11\12\40-\176' |
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/\\t/g' | awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }'
}

# ---- claim

status=0
printf '{"worker": "worker.sh", "queues": ["%s"], "wait": "10s"}' "$queue" |
  call ClaimJobs 15 >"$dir/claim" 2>"$dir/error" || status=$?
if ((status != 0)); then
  cat "$dir/error" >&2
  # grpcurl ends with 64 + the gRPC code if there was an answer, and below if there was none. UNAVAILABLE is 14.
  ((status < 64 || status == 64 + 14)) || exit 3
  echo "no server at $addr; start one with: stint serve" >&2
  exit 5
fi
token=$(field leaseToken <"$dir/claim")
[[ -n $token ]] || exit 1

job=$(field jobId <"$dir/claim")
lease=$(field lease <"$dir/claim") # "30s", "7.500s"
lease=${lease%%[.s]*}
third=$((lease / 3))
sed -n '/"payload": *{/,/}/p' "$dir/claim" | field data | base64 -d >"$dir/payload"

# ---- work

# stop REASON asks the command to end, once. keep_alive kills it if it does not.
stop() {
  [[ ! -e $dir/stopped ]] && kill -0 -- "-$command" 2>/dev/null || return 0
  echo "$1" >"$dir/reason"
  echo $SECONDS >"$dir/stopped"
  kill -TERM -- "-$command" 2>/dev/null || true
}

# heartbeat renews the lease and obeys the verdict. It fails if no answer came.
heartbeat() {
  local answer level
  answer=$(printf '{"leaseTokens": ["%s"]}' "$token" | call HeartbeatRuns "$third") || return 1
  level=$(field level <<<"$answer")
  if [[ $(field action <<<"$answer") == VERDICT_ACTION_STOP ]]; then
    # The run no longer owns its job: whatever comes of the command is dropped.
    touch "$dir/dropped"
    stop "$(field stopReason <<<"$answer")"
  elif [[ -n $level ]]; then
    stop "$level"
  fi
}

# keep_alive sends a heartbeat each third of the lease, every second in trouble, until it is killed. A lease that was
# not renewed for nine tenths of its time may soon be somebody else's: then the command has to go. If this script is
# gone, nobody is left to report the command's end: then it goes too.
keep_alive() {
  local answered=$SECONDS pause sent
  while kill -0 $$; do
    pause=$third sent=$SECONDS
    if heartbeat; then
      answered=$sent
    else
      pause=1
      ((SECONDS - answered < lease * 9 / 10)) || stop "lost contact with the server"
    fi
    if [[ -e $dir/stopped ]]; then
      pause=1
      ((SECONDS - $(<"$dir/stopped") < third)) || kill -KILL -- "-$command" || true
    fi
    sleep "$pause"
  done
  kill -KILL -- "-$command"
}

# Job control gives the command a process group of its own, so that it can be stopped with all it has started.
set -m
"$@" <"$dir/payload" >"$dir/result" 2>"$dir/stderr" &
command=$!
set +m
trap 'stop "the worker was stopped"' TERM INT
keep_alive </dev/null >/dev/null 2>&1 &
heartbeats=$!

# A signal to this script ends `wait` before the command is gone.
while kill -0 "$command" 2>/dev/null; do wait "$command" 2>/dev/null || true; done
status=0
wait "$command" 2>/dev/null || status=$?

# ---- finish

# finish OUTCOME reports the end until it is acknowledged, for as long as a lease, and prints what the server made of it.
finish() {
  local until=$((SECONDS + lease))
  printf '{"finishes": [{"leaseToken": "%s", %s}]}' "$token" "$1" >"$dir/finish"
  until call FinishRuns "$third" <"$dir/finish" >"$dir/ack" 2>"$dir/error"; do
    ((SECONDS < until)) || { cat "$dir/error" >&2; echo "job $job: its end could not be reported" >&2; exit 3; }
    sleep 1
  done
  field status <"$dir/ack"
}

if [[ -e $dir/dropped ]]; then
  echo "job $job: dropped: $(<"$dir/reason")"
  exit 0
elif [[ -e $dir/stopped ]]; then
  end="interrupted: $(<"$dir/reason")"
  ack=$(finish "\"interrupted\": {\"reason\": \"$(text <"$dir/reason")\"}")
elif ((status == 0)); then
  end=success
  ack=$(finish "\"success\": {\"result\": {\"data\": \"$(base64 <"$dir/result" | tr -d '\n')\"}}")
else
  end="exit status $status" type=exit process="\"exitCode\": $status"
  if ((status > 128)) && signal=$(kill -l $((status - 128)) 2>/dev/null); then
    end="ended by SIG$signal" type=signal process="\"signal\": \"$signal\""
  fi
  ack=$(finish "\"failure\": {\"type\": \"$type\", \"message\": \"$end\",
    \"process\": {$process, \"stderrTail\": \"$(text <"$dir/stderr")\"}}")
fi

if [[ $ack == FINISH_STATUS_REJECTED ]]; then
  # The run is still live. What it brought is not acceptable, and would not be another time either.
  end="refused: $(field message <"$dir/ack")"
  ack=$(finish "\"failure\": {\"type\": \"result\", \"final\": true, \"message\": \"$(text <<<"$end")\"}")
fi
echo "job $job: $end: $ack"
