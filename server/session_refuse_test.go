package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestSessionBadItems: what is wrong with a part is said with its place in it and the field to blame; the other parts of
// the message count, and the stream goes on.
func TestSessionBadItems(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(0, "q", 1))
		w.say(demand(1, "q", 1, "q", 4096))
		w.say(demand(1, "p", 1, "o+Q", 1))
		w.say(demand(1, "q", 0))
		w.say(demand(1, "q", 1))
		w.say(demand(2))
		w.say(&stintv1.WorkRequest{
			Demand:   &stintv1.Demand{Version: 2},
			Seen:     1,
			Finishes: []*stintv1.Finish{{LeaseToken: "none"}, success("unknown")},
			Report:   &stintv1.Report{Held: many(4097, "x")},
		})
		w.say(demand(3, "q", 1))
		w.say(seen(1))
		w.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, demand 0 q×1
			< refused 2 demand[0]: INVALID_FIELD version
			> 3, demand 1 q×1 q×4096
			< refused 3 demand[1]: SESSION_LIMIT pools[1].max_runs
			> 4, demand 1 p×1 o+Q×1
			< refused 4 demand[1]: INVALID_FIELD pools[1].queues[1]
			> 5, demand 1 q×0
			< demand 1
			> 6, demand 1 q×1
			< refused 6 demand[0]: INVALID_FIELD version
			> 7, demand 2
			< demand 2
			> 8, demand 2, seen 1, finish none nothing, finish unknown success, report of 4097
			< refused 8 report[0]: SESSION_LIMIT held
			< refused 8 demand[0]: INVALID_FIELD version
			< refused 8 seen[0]: INVALID_FIELD seen
			< ack none REJECTED, [0] OUTCOME_MISSING outcome, recorded 8
			< ack unknown UNKNOWN, [1] TOKEN_UNKNOWN lease_token, recorded 8
			> 9, demand 3 q×1
			< report 0, next in ~3s
			< assignment 1: a/1 of q in pool 0
			< demand 3
			> 10, seen 1`)
	})
}

// TestSessionFinishRejected: a finish that cannot be taken names what is wrong, and the run stays live until it is
// finished validly.
func TestSessionFinishRejected(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 1))
		r.add("q", "a")
		token := r.token("a/1")
		bad := []*stintv1.Finish{
			{LeaseToken: token},
			{LeaseToken: token, Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{Result: text(strings.Repeat("x", 1<<20+1))}}},
			{LeaseToken: token, Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Class: 99}}},
			{LeaseToken: token, Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Delay: durationpb.New(-1)}}},
			{LeaseToken: token, Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{Reason: strings.Repeat("x", 1025)}}},
		}
		w.skip()
		w.say(finish(bad...))
		w.expect(`
			> 3, finish a/1 nothing, finish a/1 success, finish a/1 failure, finish a/1 interrupted, finish a/1 released
			< ack a/1 REJECTED, [0] OUTCOME_MISSING outcome, recorded 3
			< ack a/1 REJECTED, [1] TOO_LARGE success.result, recorded 3
			< ack a/1 REJECTED, [2] INVALID_FIELD failure.class, recorded 3
			< ack a/1 REJECTED, [3] INVALID_FIELD interrupted.delay, recorded 3
			< ack a/1 REJECTED, [4] INVALID_FIELD released.reason, recorded 3`)
		// A rejected finish names the run, which accepts it: its stream is not ended for want of a seen.
		w.pass(11 * time.Second)
		w.say(finish(success(token)))
		w.expect(`
			- 11s pass
			> 4, finish a/1 success
			< ack a/1 RECORDED, job SUCCEEDED, recorded 4`)
	})
}

// TestSessionInvalidText: a string that is not UTF-8 is the error of its item, also on this stream.
func TestSessionInvalidText(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		const bad = "a\xffb"
		w := r.work(grpc.ForceCodecV2(newRawCodec()))
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 1))
		r.add("q", "a")
		token := r.token("a/1")
		w.skip()
		m := finish(
			&stintv1.Finish{LeaseToken: token, Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: bad}}},
			&stintv1.Finish{LeaseToken: token, Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{Reason: bad}}},
			&stintv1.Finish{LeaseToken: token, Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{Result: text(bad)}}},
			success(bad),
		)
		if err := w.stream.SendMsg(rawMessage{t, m}); err != nil {
			t.Fatal(err)
		}
		w.expect(`
			< ack a/1 REJECTED, [0] INVALID_FIELD failure.message, recorded 2
			< ack a/1 REJECTED, [1] INVALID_FIELD released.reason, recorded 2
			< ack a/1 REJECTED, [2] INVALID_FIELD success.result.text, recorded 2
			< ack a�b UNKNOWN, [3] TOKEN_UNKNOWN lease_token, recorded 2`)
		w.say(finish(success(token)))
		w.expect(`
			> 3, finish a/1 success
			< ack a/1 RECORDED, job SUCCEEDED, recorded 3`)
	})
}

// TestSessionTooManyFinishes: a message may finish as many runs as a session may have. One that finishes more is refused
// whole, as its answer would be too large to send.
func TestSessionTooManyFinishes(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		finishes := func(n int) *stintv1.WorkRequest {
			m := &stintv1.WorkRequest{}
			for i := range n {
				m.Finishes = append(m.Finishes, &stintv1.Finish{LeaseToken: fmt.Sprintf("%022d", i)})
			}
			return m
		}
		w.say(finishes(4096))
		w.skip()
		rejected := 0
		for _, m := range w.all {
			for _, ack := range m.GetFinishAcks() {
				if ack.GetStatus() == stintv1.FinishStatus_FINISH_STATUS_REJECTED {
					rejected++
				}
			}
		}
		if rejected != 4096 {
			t.Errorf("%d finishes were answered, want 4096", rejected)
		}
		w.say(finishes(100_000))
		w.say(report())
		w.expect(`
			> 3, finishes of 100000
			< refused 3 finishes[0]: SESSION_LIMIT
			> 4, report
			< report 4, next in ~15s`)
	})
}

// TestHelloRefused: a hello that is not valid ends its stream, with the field to blame.
func TestHelloRefused(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		bad := hello("not a UUID")
		w := r.work()
		w.say(bad)
		w.expect(`
			> 1, hello
			< end INVALID_FIELD, InvalidArgument, hello.instance_id`)
	})
}

// many is n times the same.
func many(n int, s string) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}
