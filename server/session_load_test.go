package server_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// blob is a payload whose bytes tell it from others.
func blob(name string, size int) *stintv1.Payload {
	return &stintv1.Payload{Content: &stintv1.Payload_Data{Data: bytes.Repeat([]byte(name), size/len(name)+1)[:size]}}
}

// addBlobs submits jobs with payloads of a size.
func (r *rig) addBlobs(queue string, size int, names ...string) {
	for _, name := range names {
		r.addSpec(name, &stintv1.JobSpec{Queue: queue, Payload: blob(name, size)})
	}
}

// TestSessionPayloads: a payload comes whole, also one that is kept apart from its job. Messages carry many small ones,
// at most 256 KiB together, and a larger one alone.
func TestSessionPayloads(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		sizes := []int{0, 1, 512, 513, 100 << 10, 100 << 10, 100 << 10, 256 << 10, 1 << 20, 300 << 10, 1, 1}
		for i, size := range sizes {
			r.addBlobs("q", size, fmt.Sprint(i))
		}
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 100))
		var next int
		var packed []int
		for _, m := range w.all {
			if len(m.GetAssignments()) == 0 {
				continue
			}
			packed = append(packed, len(m.GetAssignments()))
			if size := proto.Size(m); size > 256<<10 && len(m.GetAssignments()) > 1 {
				t.Errorf("a message with %d assignments has %d bytes", len(m.GetAssignments()), size)
			}
			for _, a := range m.GetAssignments() {
				want := blob(fmt.Sprint(next), sizes[next])
				if !bytes.Equal(a.GetPayload().GetData(), want.GetData()) {
					t.Errorf("the payload of job %d came with %d bytes, want its %d", next, len(a.GetPayload().GetData()), sizes[next])
				}
				next++
			}
		}
		if next != len(sizes) {
			t.Errorf("%d assignments, want %d", next, len(sizes))
		}
		if want := []int{6, 1, 1, 1, 1, 2}; fmt.Sprint(packed) != fmt.Sprint(want) {
			t.Errorf("assignments in messages: %v, want %v", packed, want)
		}
	})
}

// deaf opens a session that gets more than fits on its way, and reads none of it.
func (r *rig) deaf(queue string) *talk {
	r.t.Helper()
	w := r.unread()
	w.say(hello(newInstance()))
	w.say(demand(1, queue, 8))
	for i := range 8 {
		r.addBlobs(queue, 200<<10, fmt.Sprint(queue, i))
	}
	return w
}

// TestSessionSlowReader: a worker that does not read its stream holds up nobody but itself, and loses its session and
// what it was given in ten seconds.
func TestSessionSlowReader(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		deaf := r.deaf("loud")
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 1))
		w.step("submit a", func() { r.add("q", "a") })
		w.say(finish(success(r.token("a/1"))))
		w.say(demand(2, "loud", 8))
		w.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, demand 1 q×1
			< demand 1
			- submit a
			< report 0, next in ~3s
			< assignment 1: a/1 of q in pool 0
			> 3, finish a/1 success
			< ack a/1 RECORDED, job SUCCEEDED, recorded 3
			> 4, demand 2 loud×8
			< demand 2`)
		w.pass(10 * time.Second)
		go deaf.listen()
		synctest.Wait()
		if reason, _, _ := refusalOf(deaf.err); reason != stintv1.Reason_REASON_DELIVERY_TIMEOUT {
			t.Errorf("the deaf session ended with %v", deaf.err)
		}
		given := 0
		for _, m := range w.all {
			given += len(m.GetAssignments())
		}
		if given != 1+8 {
			t.Errorf("the other worker was given %d runs, want 1 and the 8 of the deaf one", given)
		}
	})
}

// TestSessionPayloadGone: a job that is cancelled and deleted after it was handed out and before its payload was read is
// not sent, and its slot is not lost: the worker is asked to come again.
func TestSessionPayloadGone(t *testing.T) {
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 1))
		gone := func() error {
			r.interrupt("a", cancel, "")
			_, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("a")}})
			return err
		}
		faults.view.Store(&gone)
		r.addBlobs("q", 4096, "a")
		w.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, demand 1 q×1
			< demand 1
			< end INTERNAL, Internal`)
	})
}

// TestSessionManyVerdicts: a worker with as many runs as a session may have is answered, also when all are interrupted
// with the longest reason: what would not fit into a message is left out.
func TestSessionManyVerdicts(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		const runs = 4096
		instance := newInstance()
		w := r.work()
		w.say(hello(instance))
		w.say(demand(1, "q", runs))
		specs := make([]*stintv1.JobSpec, runs/8)
		for i := range specs {
			specs[i] = &stintv1.JobSpec{Queue: "q"}
		}
		for range 8 {
			r.submit(specs...)
		}
		synctest.Wait()
		var held []string
		for _, m := range w.all {
			for _, a := range m.GetAssignments() {
				held = append(held, a.GetLeaseToken())
			}
		}
		w.say(&stintv1.WorkRequest{Seen: runs, Report: &stintv1.Report{Held: held}})
		_, err := r.workers.DrainWorkers(r.ctx, &stintv1.DrainWorkersRequest{
			InstanceIds: []string{instance}, Grace: durationpb.New(0), Reason: strings.Repeat("x", 1024),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.skip()
		w.say(report(held...))
		if w.err != nil {
			t.Fatal(w.err)
		}
		beat, err := r.workers.HeartbeatRuns(r.ctx, &stintv1.HeartbeatRunsRequest{LeaseTokens: held})
		if err != nil {
			t.Fatal(err)
		}
		again := r.work()
		m := hello(instance, held...)
		m.Hello.ResumeToken = w.resume
		again.say(m)
		if again.err != nil {
			t.Fatal(again.err)
		}
		for name, verdicts := range map[string][]*stintv1.Verdict{
			"report":    w.all[len(w.all)-1].GetReportAnswer().GetVerdicts(),
			"heartbeat": beat.GetVerdicts(),
			"hello":     again.all[0].GetWelcome().GetVerdicts(),
		} {
			if len(verdicts) != runs {
				t.Errorf("%s: %d verdicts, want %d", name, len(verdicts), runs)
			}
			for i, v := range verdicts {
				if v.GetInterrupt().GetLevel() != retry || v.GetInterrupt().GetSource() != stintv1.InterruptSource_INTERRUPT_SOURCE_DRAIN {
					t.Fatalf("%s: verdict %d is %v", name, i, v)
				}
			}
			if got := len(verdicts[0].GetInterrupt().GetReason()); got != 1024 {
				t.Errorf("%s: the first reason has %d bytes, want 1024", name, got)
			}
		}
	})
}

// TestFlood: a client that sends without reading stalls itself: the server takes what its window admits, and no more.
func TestFlood(t *testing.T) {
	const messages = 50_000
	for name, send := range map[string]func(*rig) func() error{
		"Work": func(r *rig) func() error {
			w := r.unread()
			w.say(hello(newInstance()))
			return func() error { return w.stream.Send(report("0123456789012345678901")) }
		},
		"Submit": func(r *rig) func() error {
			stream, err := r.jobs.Submit(r.ctx)
			if err != nil {
				r.t.Fatal(err)
			}
			return func() error { return stream.Send(&stintv1.SubmitRequest{Jobs: []*stintv1.JobSpec{{Queue: "q"}}}) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			faults := &faulty{}
			inBubble(t, withFaults(faults), func(r *rig) {
				one := send(r)
				before := faults.posts.Load()
				go func() {
					for range messages {
						if one() != nil {
							return
						}
					}
				}()
				synctest.Wait()
				if took := faults.posts.Load() - before; took < 256 || took > 5000 {
					r.t.Errorf("the server took %d messages", took)
				}
				if got := r.submitOne(&stintv1.JobSpec{Queue: "other"}); got != (said{}) {
					r.t.Errorf("another client: %s", got)
				}
			})
		})
	}
}

// TestSessionManyReports: each report has its answer, in order, also when they come faster than answers are sent.
func TestSessionManyReports(t *testing.T) {
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 1))
		r.add("q", "a")
		w.say(seen(1))
		w.skip()
		faults.hold()
		w.say(report(r.token("a/1")))
		w.say(report("x", r.token("a/1")))
		w.say(report(r.token("a/1")))
		w.step("the disk goes on", faults.release)
		w.expect(`
			> 4, report a/1
			> 5, report x a/1
			> 6, report a/1
			- the disk goes on
			< report 4; a/1 CONTINUE 30s, next in ~3s
			< report 5; x STOP UNKNOWN; a/1 CONTINUE 30s, next in ~3s
			< report 6; a/1 CONTINUE 30s, next in ~3s`)
	})
}

// TestSessionAfterSync: nothing that a worker is told leaves before it is on disk, and what it said meanwhile counts from
// its receipt.
func TestSessionAfterSync(t *testing.T) {
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 1))
		r.addSpec("a", &stintv1.JobSpec{Queue: "q", Lease: durationpb.New(5 * time.Second)})
		w.say(seen(1))
		w.skip()
		faults.hold()
		w.say(report(r.token("a/1")))
		w.say(finish(success(r.token("a/1"))))
		w.pass(time.Second)
		w.step("the disk goes on", faults.release)
		w.expect(`
			> 4, report a/1
			> 5, finish a/1 success
			- 1s pass
			- the disk goes on
			< ack a/1 RECORDED, job SUCCEEDED, recorded 5
			< report 4; a/1 CONTINUE 5s, next in ~15s`)
	})
}
