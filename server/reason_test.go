package server_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/store"
)

// said is what a caller is told when something is refused; zero if nothing was.
type said struct {
	reason stintv1.Reason
	code   codes.Code
	field  string
	wait   bool // and how long to wait
}

func (s said) String() string {
	if s == (said{}) {
		return "taken"
	}
	text := fmt.Sprintf("%s %s", short(s.reason.String(), "REASON_"), s.code)
	if s.field != "" {
		text += " " + s.field
	}
	if s.wait {
		text += ", wait"
	}
	return text
}

// ofCall is what the end of a call says.
func ofCall(err error) said {
	if err == nil {
		return said{}
	}
	reason, field, wait := refusalOf(err)
	return said{reason, status.Code(err), field, wait > 0}
}

// ofItem is what an item's error says.
func ofItem(e *stintv1.ItemError) said {
	if e == nil {
		return said{}
	}
	return said{e.GetReason(), codes.Code(e.GetCode()), e.GetField(), e.GetRetryAfter().AsDuration() > 0}
}

// submitOne submits one job.
func (r *rig) submitOne(spec *stintv1.JobSpec) said {
	r.t.Helper()
	answer, err := r.jobs.SubmitJobs(r.ctx, &stintv1.SubmitJobsRequest{Jobs: []*stintv1.JobSpec{spec}})
	if err != nil {
		return ofCall(err)
	}
	return ofItem(answer.GetResults()[0].GetError())
}

// running makes a job that runs.
func (r *rig) running(name string) {
	r.add("q", name)
	r.accept(r.claim("q"))
}

// smallDisk is a file system that says how much of it is free.
type smallDisk struct {
	vfs.FS
	free atomic.Uint64
}

func newSmallDisk(free uint64) *smallDisk {
	d := &smallDisk{FS: vfs.NewMem()}
	d.free.Store(free)
	return d
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free.Load(), TotalBytes: 1 << 40}, nil
}

// forgetful is a rig whose store reduces finished jobs to their end within minutes, and forgets them within hours.
func forgetful() rigConfig {
	c := rigConfig{}
	c.store.Retain, c.store.Remember = time.Minute, time.Hour
	return c
}

// forget runs a job, and lets time pass until its id is forgotten.
func (r *rig) forget(id string) {
	r.t.Helper()
	r.submit(&stintv1.JobSpec{Id: id, Queue: "q"})
	r.succeed(r.claim("q"))
	time.Sleep(3 * time.Hour)
}

// oldID is a UUIDv7 of 1970.
const oldID = "00000000-0001-7000-8000-000000000000"

// finishOne is what a finish is answered with.
func (r *rig) finishOne(f *stintv1.Finish) said {
	answer, err := r.workers.FinishRuns(r.ctx, &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{f}})
	if err != nil {
		return ofCall(err)
	}
	return ofItem(answer.GetAcks()[0].GetError())
}

// reasons says how each reason comes about and what a caller is told. Those without a way are never sent.
var reasons = map[stintv1.Reason]struct {
	want    said // but for the reason
	config  func() rigConfig
	provoke func(*rig) said
}{
	stintv1.Reason_REASON_UNSPECIFIED: {}, // by its meaning
	stintv1.Reason_REASON_TOKEN_UNKNOWN: {
		want: said{code: codes.NotFound, field: "lease_token"},
		provoke: func(r *rig) said {
			return r.finishOne(success("nobody's"))
		},
	},
	stintv1.Reason_REASON_TOKEN_STALE: {
		want: said{code: codes.FailedPrecondition, field: "lease_token"},
		provoke: func(r *rig) said {
			r.add("q", "a")
			a := r.claim("q")
			r.interrupt("a", cancel, "") // withdraws the run
			return r.finishOne(success(a.GetLeaseToken()))
		},
	},
	stintv1.Reason_REASON_INVALID_FIELD: {
		want:    said{code: codes.InvalidArgument, field: "queue"},
		provoke: func(r *rig) said { return r.submitOne(&stintv1.JobSpec{Queue: "Q"}) },
	},
	stintv1.Reason_REASON_TOO_LARGE: {
		want:    said{code: codes.InvalidArgument, field: "payload"},
		provoke: func(r *rig) said { return r.submitOne(&stintv1.JobSpec{Queue: "q", Payload: blob("x", 1<<20+1)}) },
	},
	stintv1.Reason_REASON_ID_CONFLICT: {
		want: said{code: codes.AlreadyExists, field: "id"},
		provoke: func(r *rig) said {
			r.add("q", "a")
			return r.submitOne(&stintv1.JobSpec{Id: r.id("a"), Queue: "p"})
		},
	},
	stintv1.Reason_REASON_ID_TOO_OLD: {
		want:   said{code: codes.FailedPrecondition, field: "id"},
		config: forgetful,
		provoke: func(r *rig) said {
			r.forget(newID())
			return r.submitOne(&stintv1.JobSpec{Id: oldID, Queue: "q"})
		},
	},
	stintv1.Reason_REASON_STORAGE_FULL: {
		want:    said{code: codes.ResourceExhausted, wait: true},
		config:  func() rigConfig { c := rigConfig{}; c.store.FS = newSmallDisk(256<<20 - 1); return c },
		provoke: func(r *rig) said { return r.submitOne(&stintv1.JobSpec{Queue: "q"}) },
	},
	stintv1.Reason_REASON_TOO_MANY_QUEUES: {
		want: said{code: codes.ResourceExhausted, field: "queue"},
		provoke: func(r *rig) said {
			r.manyQueues(store.QueuesMax)
			return r.submitOne(&stintv1.JobSpec{Queue: "one-more"})
		},
	},
	stintv1.Reason_REASON_JOB_NOT_FOUND: {
		want: said{code: codes.NotFound},
		provoke: func(r *rig) said {
			_, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: newID()})
			return ofCall(err)
		},
	},
	stintv1.Reason_REASON_QUEUE_NOT_FOUND: {
		want: said{code: codes.NotFound},
		provoke: func(r *rig) said {
			_, err := r.queues.GetQueue(r.ctx, &stintv1.GetQueueRequest{Name: "q"})
			return ofCall(err)
		},
	},
	stintv1.Reason_REASON_WORKER_NOT_FOUND: {
		want: said{code: codes.NotFound},
		provoke: func(r *rig) said {
			answer, err := r.workers.DrainWorkers(r.ctx, &stintv1.DrainWorkersRequest{InstanceIds: []string{newInstance()}})
			if err != nil {
				return ofCall(err)
			}
			return ofItem(answer.GetResults()[0].GetError())
		},
	},
	stintv1.Reason_REASON_QUEUE_NOT_EMPTY: {
		want: said{code: codes.FailedPrecondition},
		provoke: func(r *rig) said {
			r.add("q", "a")
			_, err := r.queues.DeleteQueue(r.ctx, &stintv1.DeleteQueueRequest{Name: "q"})
			return ofCall(err)
		},
	},
	stintv1.Reason_REASON_LIMIT_NOT_FOUND: {
		want: said{code: codes.NotFound, field: "limits"},
		provoke: func(r *rig) said {
			r.limit("other", 1)
			return r.submitOne(limited("q", &stintv1.LimitUse{Name: "l"}))
		},
	},
	stintv1.Reason_REASON_UNITS_OVER_LIMIT: {
		want: said{code: codes.FailedPrecondition, field: "limits"},
		provoke: func(r *rig) said {
			r.limit("l", 3)
			return r.submitOne(limited("q", &stintv1.LimitUse{Name: "l", Units: 4}))
		},
	},
	stintv1.Reason_REASON_LIMIT_IN_USE: {
		want: said{code: codes.FailedPrecondition},
		provoke: func(r *rig) said {
			r.limit("l", 1)
			r.submit(limited("q", &stintv1.LimitUse{Name: "l"}))
			_, err := r.queues.DeleteLimit(r.ctx, &stintv1.DeleteLimitRequest{Name: "l"})
			return ofCall(err)
		},
	},
	stintv1.Reason_REASON_TOO_MANY_LIMITS: {
		want: said{code: codes.ResourceExhausted, field: "name"},
		provoke: func(r *rig) said {
			for i := range store.LimitsMax {
				r.limit(fmt.Sprint("l", i), 1)
			}
			return r.putLimit(&stintv1.PutLimitRequest{Name: "one-more", Policy: &stintv1.LimitPolicy{MaxUnits: 1}})
		},
	},
	stintv1.Reason_REASON_RESYNC: {
		want: said{code: codes.OutOfRange, field: "cursor"},
		provoke: func(r *rig) said {
			return ofCall(r.watchError(&stintv1.WatchEventsRequest{Cursor: strings.Repeat("A", 8)}))
		},
	},
	stintv1.Reason_REASON_SLOW_CONSUMER: {
		want: said{code: codes.ResourceExhausted},
		provoke: func(r *rig) said {
			stream, err := r.events.WatchEvents(r.ctx, nil)
			if err != nil {
				r.t.Fatal(err)
			}
			for range 20 {
				r.submit(slices.Repeat([]*stintv1.JobSpec{{Queue: "q"}}, 200)...)
				time.Sleep(2 * time.Second)
			}
			for err == nil {
				_, err = stream.Recv()
			}
			return ofCall(err)
		},
	},
	stintv1.Reason_REASON_UNIQUE_CONFLICT: {
		want: said{code: codes.AlreadyExists, field: "unique.key"},
		provoke: func(r *rig) said {
			spec := &stintv1.JobSpec{Queue: "q", Unique: &stintv1.Unique{Key: "k", OnConflict: stintv1.OnConflict_ON_CONFLICT_REJECT}}
			r.submit(spec)
			return r.submitOne(spec)
		},
	},
	stintv1.Reason_REASON_INTERRUPT_TOO_LATE: {
		want: said{code: codes.FailedPrecondition},
		provoke: func(r *rig) said {
			r.add("q", "a")
			r.interrupt("a", cancel, "")
			return ofItem(r.interrupt("a", cancel, "").GetError())
		},
	},
	stintv1.Reason_REASON_LEVEL_DOWNGRADE: {
		want: said{code: codes.FailedPrecondition, field: "level"},
		provoke: func(r *rig) said {
			r.running("a")
			r.interrupt("a", cancel, "")
			return ofItem(r.interrupt("a", retry, "").GetError())
		},
	},
	stintv1.Reason_REASON_RUN_ACTIVE: {
		want: said{code: codes.FailedPrecondition},
		provoke: func(r *rig) said {
			r.running("a")
			return ofItem(r.retry(r.id("a"))[0].GetError())
		},
	},
	stintv1.Reason_REASON_INVALID_STATE: {
		want: said{code: codes.FailedPrecondition},
		provoke: func(r *rig) said {
			r.add("q", "a")
			return ofItem(r.retry(r.id("a"))[0].GetError())
		},
	},
	stintv1.Reason_REASON_OUTCOME_MISSING: {
		want: said{code: codes.InvalidArgument, field: "outcome"},
		provoke: func(r *rig) said {
			return r.finishOne(&stintv1.Finish{})
		},
	},
	stintv1.Reason_REASON_INSTANCE_IN_USE: {
		want: said{code: codes.AlreadyExists, field: "hello.instance_id"},
		provoke: func(r *rig) said {
			instance, first, second := newInstance(), r.work(), r.work()
			first.say(hello(instance))
			first.say(report())
			second.say(hello(instance))
			return ofCall(second.err)
		},
	},
	stintv1.Reason_REASON_SESSION_REPLACED: {
		want: said{code: codes.Aborted},
		provoke: func(r *rig) said {
			instance, first, second := newInstance(), r.work(), r.work()
			first.say(hello(instance))
			second.say(hello(instance))
			return ofCall(first.err)
		},
	},
	stintv1.Reason_REASON_SESSION_ORDER: {
		want: said{code: codes.FailedPrecondition},
		provoke: func(r *rig) said {
			w := r.work()
			w.say(report())
			return ofCall(w.err)
		},
	},
	stintv1.Reason_REASON_DELIVERY_TIMEOUT: {
		want: said{code: codes.Aborted},
		provoke: func(r *rig) said {
			w := r.work()
			w.say(hello(newInstance()))
			w.say(demand(1, "q", 1))
			r.add("q", "a")
			w.pass(10 * time.Second)
			return ofCall(w.err)
		},
	},
	stintv1.Reason_REASON_SESSION_SILENT: {
		want: said{code: codes.Aborted},
		provoke: func(r *rig) said {
			w := r.work()
			w.say(hello(newInstance()))
			w.pass(32 * time.Second)
			return ofCall(w.err)
		},
	},
	stintv1.Reason_REASON_SESSION_LIMIT: {
		want: said{code: codes.InvalidArgument, field: "pools[0].max_runs"},
		provoke: func(r *rig) said {
			w := r.work()
			w.say(hello(newInstance()))
			w.say(demand(1, "q", 4097))
			for _, m := range w.all {
				for _, e := range m.GetItemErrors() {
					return ofItem(e.GetError())
				}
			}
			return said{}
		},
	},
	stintv1.Reason_REASON_DRAINING: {
		want: said{code: codes.FailedPrecondition},
		provoke: func(r *rig) said {
			claim := &stintv1.ClaimJobsRequest{Worker: "w", InstanceId: newInstance(), Queues: []string{"q"}}
			r.claimAll(claim)
			if _, err := r.workers.DrainWorkers(r.ctx, &stintv1.DrainWorkersRequest{InstanceIds: []string{claim.GetInstanceId()}}); err != nil {
				return ofCall(err)
			}
			_, err := r.workers.ClaimJobs(r.ctx, claim)
			return ofCall(err)
		},
	},
	stintv1.Reason_REASON_JOB_BLOCKED: {
		want: said{code: codes.FailedPrecondition},
		provoke: func(r *rig) said {
			id := r.submit(&stintv1.JobSpec{Queue: "q"})[0].GetId()
			if _, err := r.queues.PauseQueue(r.ctx, &stintv1.PauseQueueRequest{Name: "q"}); err != nil {
				return ofCall(err)
			}
			return ofItem(r.choose(id).GetResults()[0].GetError())
		},
	},
	stintv1.Reason_REASON_SERVER_STOPPING: {
		want: said{code: codes.Unavailable, wait: true},
		provoke: func(r *rig) said {
			w := r.work()
			w.settle()
			<-r.shutdown(time.Minute)
			w.settle()
			return ofCall(w.err)
		},
	},
	stintv1.Reason_REASON_PAGE_TOKEN_INVALID: {
		want: said{code: codes.InvalidArgument, field: "page_token"},
		provoke: func(r *rig) said {
			_, err := r.jobs.ListJobs(r.ctx, &stintv1.ListJobsRequest{PageToken: "x"})
			return ofCall(err)
		},
	},
	stintv1.Reason_REASON_ETAG_MISMATCH: {
		want: said{code: codes.Aborted, field: "etag"},
		provoke: func(r *rig) said {
			_, err := r.queues.UpdateQueue(r.ctx, &stintv1.UpdateQueueRequest{Name: "q", Etag: "x"})
			return ofCall(err)
		},
	},
	stintv1.Reason_REASON_INTERNAL: {
		want:   said{code: codes.Internal},
		config: func() rigConfig { return withFaults(&faulty{}) },
		provoke: func(r *rig) said {
			r.store.(*faulty).inject(func() error { return errors.New(cause) })
			_, err := r.jobs.CountJobs(r.ctx, &stintv1.CountJobsRequest{})
			return ofCall(err)
		},
	},
}

// TestReasons provokes every reason over the wire. A reason that comes to the enum has to come to the table above.
func TestReasons(t *testing.T) {
	for number, name := range stintv1.Reason_name {
		reason := stintv1.Reason(number)
		t.Run(strings.TrimPrefix(name, "REASON_"), func(t *testing.T) {
			row, listed := reasons[reason]
			if !listed {
				t.Fatal("nothing provokes it")
			}
			if row.provoke == nil {
				return
			}
			config := rigConfig{}
			if row.config != nil {
				config = row.config()
			}
			inBubble(t, config, func(r *rig) {
				row.want.reason = reason
				if got := row.provoke(r); got != row.want {
					r.t.Errorf("the caller is told %s, want %s", got, row.want)
				}
			})
		})
	}
}

// retry retries jobs.
func (r *rig) retry(ids ...string) []*stintv1.JobResult {
	r.t.Helper()
	answer, err := r.jobs.RetryJobs(r.ctx, &stintv1.RetryJobsRequest{Ids: ids})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetResults()
}

// manyQueues makes n queues, with a job in each.
func (r *rig) manyQueues(n int) {
	r.t.Helper()
	for i := 0; i < n; i += 1000 {
		var specs []*stintv1.JobSpec
		for k := i; k < min(i+1000, n); k++ {
			specs = append(specs, &stintv1.JobSpec{Queue: fmt.Sprintf("many/%05d", k)})
		}
		r.submit(specs...)
	}
}

// TestTooManyQueues: everything that would make one queue too many says so, and blames its own field; what exists serves
// on.
func TestTooManyQueues(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("gone", "g")
		r.interrupt("g", cancel, "")
		if _, err := r.queues.DeleteQueue(r.ctx, &stintv1.DeleteQueueRequest{Name: "gone"}); err != nil {
			t.Fatal(err)
		}
		r.manyQueues(store.QueuesMax - 1)
		r.add("last", "a")
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "last+more", 1))
		w.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, demand 1 last+more×1
			< refused 2 demand[0]: TOO_MANY_QUEUES queues
			< report 0, next in ~3s
			< assignment 1: a/1 of last in pool 0
			< demand 1`)
		_, claim := r.workers.ClaimJobs(r.ctx, &stintv1.ClaimJobsRequest{Worker: "w", Queues: []string{"last", "more"}})
		_, update := r.queues.UpdateQueue(r.ctx, &stintv1.UpdateQueueRequest{Name: "more"})
		for field, got := range map[string]said{
			"queue": r.submitOne(&stintv1.JobSpec{Queue: "more"}), "queues": ofCall(claim), "name": ofCall(update),
		} {
			if want := (said{stintv1.Reason_REASON_TOO_MANY_QUEUES, codes.ResourceExhausted, field, false}); got != want {
				t.Errorf("the caller is told %s, want %s", got, want)
			}
		}
		if got := r.submitOne(&stintv1.JobSpec{Queue: "last"}); got != (said{}) {
			t.Errorf("a job for a queue that exists: %s", got)
		}
		if got := r.resultLines(r.retry(r.id("g"))); got[0] != "gTOO_MANY_QUEUES cancelled" {
			t.Errorf("a job whose queue was deleted, retried: %s", got)
		}
	})
}

// TestStorageFull: while free space is under the reserve new jobs are refused; claims and finishes go on, repeats are
// answered, and new jobs are taken again within five seconds of space returning.
func TestStorageFull(t *testing.T) {
	disk := newSmallDisk(256 << 20)
	config := rigConfig{}
	config.store.FS = disk
	inBubble(t, config, func(r *rig) {
		r.add("q", "a")
		disk.free.Add(^uint64(0)) // one byte less
		time.Sleep(1100 * time.Millisecond)
		if got := r.submitOne(&stintv1.JobSpec{Queue: "q"}); got.reason != stintv1.Reason_REASON_STORAGE_FULL || !got.wait {
			t.Errorf("a new job: %s", got)
		}
		if got := r.submitOne(&stintv1.JobSpec{Id: r.id("a"), Queue: "q"}); got != (said{}) {
			t.Errorf("a repeat: %s", got)
		}
		r.succeed(r.claim("q"))
		disk.free.Add(1)
		time.Sleep(5 * time.Second)
		if got := r.submitOne(&stintv1.JobSpec{Queue: "q"}); got != (said{}) {
			t.Errorf("a new job with space: %s", got)
		}
	})
}

// TestPastRetention: of a job that is past retention its end is known: a repeat is answered with it and never run again,
// an interrupt comes too late, and everybody else is told that it is gone.
func TestPastRetention(t *testing.T) {
	inBubble(t, forgetful(), func(r *rig) {
		r.add("q", "a")
		r.succeed(r.claim("q"))
		time.Sleep(20 * time.Minute)
		for _, spec := range []*stintv1.JobSpec{{Id: r.id("a"), Queue: "q"}, {Id: r.id("a"), Queue: "other"}} {
			got := r.submit(spec)[0]
			if got.GetStatus() != stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING || got.GetState() != succeeded || got.GetPolicy() == nil {
				t.Errorf("a repeat is answered %v", got)
			}
		}
		if got := r.interrupt("a", cancel, ""); got.GetState() != succeeded || got.GetError().GetReason() != stintv1.Reason_REASON_INTERRUPT_TOO_LATE {
			t.Errorf("an interrupt is answered %v", got)
		}
		_, get := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: r.id("a")})
		_, check := r.workers.CheckLease(r.ctx, &stintv1.CheckLeaseRequest{JobId: r.id("a")})
		removed, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("a")}})
		if err != nil {
			t.Fatal(err)
		}
		for what, got := range map[string]said{
			"get": ofCall(get), "check": ofCall(check), "park": ofItem(r.park(r.id("a"))[0].GetError()), "retry": ofItem(r.retry(r.id("a"))[0].GetError()),
			"delete": ofItem(removed.GetResults()[0].GetError()),
			"wait":   r.waitFails(&stintv1.WaitJobRequest{Id: r.id("a")}),
		} {
			if got.reason != stintv1.Reason_REASON_JOB_NOT_FOUND {
				t.Errorf("%s: %s", what, got)
			}
		}
	})
}

// TestIDTooOld: only an unknown UUIDv7 from before the horizon is refused; a job that was forgotten is never run again.
func TestIDTooOld(t *testing.T) {
	inBubble(t, forgetful(), func(r *rig) {
		v7 := func(at time.Time) string {
			return fmt.Sprintf("%08x-%04x-7000-8000-000000000000", at.UnixMilli()>>16, at.UnixMilli()&0xffff)
		}
		known := v7(time.Now().Add(-time.Minute))
		r.addSpec("waits", &stintv1.JobSpec{Queue: "other"})
		r.submit(&stintv1.JobSpec{Id: known, Queue: "other"})
		time.Sleep(time.Second)
		forgotten := v7(time.Now())
		r.forget(forgotten)
		var horizon time.Time
		if err := r.store.View(r.ctx, func(s store.Reader) error { horizon = s.Horizon(); return nil }); err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]stintv1.Reason{
			v7(horizon.Add(time.Millisecond)): 0, v7(horizon): stintv1.Reason_REASON_ID_TOO_OLD, oldID: stintv1.Reason_REASON_ID_TOO_OLD,
			forgotten: stintv1.Reason_REASON_ID_TOO_OLD,
			newID():   0, newInstance(): 0, "00000000-0001-1000-8000-000000000000": 0,
		} {
			if got := r.submitOne(&stintv1.JobSpec{Id: id, Queue: "q"}); got.reason != want {
				t.Errorf("%s: %s, want %s", id, got, want)
			}
		}
		if got := r.submit(&stintv1.JobSpec{Id: known, Queue: "other"})[0].GetStatus(); got != stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING {
			t.Errorf("a known id that is old by now: %s", got)
		}
	})
}
