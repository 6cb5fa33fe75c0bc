package server_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestLogSecrets: neither tokens nor what jobs bring and leave are in the log, at its most talkative, whatever goes
// right or wrong.
func TestLogSecrets(t *testing.T) {
	const payload, result, fault = "pay-load-secret", "re-sult-secret", "fail-ure-secret"
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		instance := newInstance()
		w := r.work()
		w.say(hello(instance))
		w.say(demand(1, "q", 4))
		for _, name := range []string{"a", "b", "c", "d"} {
			r.addSpec(name, &stintv1.JobSpec{Queue: "q", Payload: text(payload)})
		}
		r.submitOne(&stintv1.JobSpec{Id: r.id("a"), Queue: "q", Payload: text(payload + "2")})
		r.submitOne(&stintv1.JobSpec{Queue: "q", Payload: text(payload + "\xff")})
		w.say(seen(4))
		tokens := r.tokens("a/1", "b/1", "c/1", "d/1")
		w.say(finish(
			&stintv1.Finish{LeaseToken: tokens[0], Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{Result: text(result)}}},
			&stintv1.Finish{LeaseToken: tokens[1], Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: fault}}},
			&stintv1.Finish{LeaseToken: tokens[2], Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: fault, Class: 9}}},
			&stintv1.Finish{LeaseToken: tokens[2]}, success("no token"),
		))
		w.say(report(tokens...))
		second := r.work()
		second.say(hello(instance))
		takeover := hello(instance, tokens...)
		takeover.Hello.ResumeToken = w.resume
		third := r.work()
		third.say(takeover)
		r.beat("d/1", "c/1")
		r.end(success(tokens[2]))
		faults.inject(func() error { panic(cause) })
		third.say(report(tokens[3]))
		time.Sleep(time.Minute) // d is lost
		r.succeed(r.claimAll(&stintv1.ClaimJobsRequest{Queues: []string{"q"}})[0])

		log := r.log.String()
		if !strings.Contains(log, "finished call") || !strings.Contains(log, cause) {
			t.Errorf("the log is not talkative:\n%s", log)
		}
		secrets := slices.AppendSeq([]string{payload, result, fault, w.resume, third.resume}, maps.Keys(r.cast.runs))
		if len(secrets) != 5+5 {
			t.Errorf("%d secrets, want those of 5 runs and 5 more", len(secrets))
		}
		for _, secret := range secrets {
			if i := strings.Index(log, secret); i >= 0 {
				t.Errorf("the log holds %q: %s", secret, log[max(0, i-200):min(len(log), i+200)])
			}
		}
	})
}
