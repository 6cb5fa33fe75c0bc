package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/store/pebblestore"
)

// watch is a stream of events under test.
type watch struct {
	r      *rig
	stream stintv1.EventService_WatchEventsClient
	cursor string // behind all that was received
	stop   func()
}

// watch opens a stream; from now on, it receives its first message, so that it watches.
func (r *rig) watch(m *stintv1.WatchEventsRequest) *watch {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	r.t.Cleanup(cancel)
	stream, err := r.events.WatchEvents(ctx, m)
	if err != nil {
		r.t.Fatal(err)
	}
	w := &watch{r: r, stream: stream, stop: cancel}
	if m.GetCursor() == "" && !m.GetFromOldest() {
		if events := w.receive(); len(events) > 0 {
			r.t.Fatalf("the first message has %d events", len(events))
		}
	}
	return w
}

func (w *watch) receive() []*stintv1.Event {
	w.r.t.Helper()
	m, err := w.stream.Recv()
	if err != nil {
		w.r.t.Fatal(err)
	}
	w.cursor = m.GetCursor()
	return m.GetEvents()
}

// events receives until a message is empty.
func (w *watch) events() (all []*stintv1.Event) {
	w.r.t.Helper()
	for {
		events := w.receive()
		if len(events) == 0 {
			return all
		}
		all = append(all, events...)
	}
}

// kinds are what is received, in short.
func (w *watch) kinds() (lines []string) {
	w.r.t.Helper()
	for _, e := range w.events() {
		line := strings.ToLower(strings.TrimPrefix(e.GetKind().String(), "EVENT_KIND_"))
		if e.GetJobState() != 0 {
			line += " " + stateName(e.GetJobState())
		}
		if e.GetRunState() != 0 {
			line += fmt.Sprintf(" %d:%s", e.GetRun(), strings.ToLower(strings.TrimPrefix(e.GetRunState().String(), "RUN_STATE_")))
		}
		if e.GetReason() != "" {
			line += " (" + e.GetReason() + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

func (r *rig) watchError(m *stintv1.WatchEventsRequest) error {
	r.t.Helper()
	stream, err := r.events.WatchEvents(r.ctx, m)
	for err == nil {
		_, err = stream.Recv()
	}
	return err
}

// TestWatchEvents: all that happens is told, and 15 s without an event end with an empty message.
func TestWatchEvents(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.watch(nil)
		r.add("q", "a")
		a := r.claim("q")
		r.accept(a)
		r.interrupt("a", retry, "enough")
		r.succeed(a)
		r.pause("q", "lunch")
		r.resume("q")
		r.limit("l", 3)
		want := []string{
			"queue_created", "job_submitted ready", "run_dispatched running 1:dispatched", "run_accepted running 1:running",
			"interrupt_requested running (enough)", "run_ended succeeded 1:succeeded", "job_ended succeeded",
			"queue_paused (lunch)", "queue_resumed", "limit_created",
		}
		if diff := cmp.Diff(want, w.kinds()); diff != "" {
			t.Error(diff)
		}
		start := time.Now()
		if events := w.receive(); len(events) > 0 || time.Since(start) != 15*time.Second {
			t.Errorf("%d events after %v", len(events), time.Since(start))
		}
		all := r.watch(&stintv1.WatchEventsRequest{FromOldest: true})
		if diff := cmp.Diff(want, all.kinds()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestWatchEventsOfWorkers tells of sessions.
func TestWatchEventsOfWorkers(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.watch(&stintv1.WatchEventsRequest{Filter: &stintv1.EventFilter{Kinds: []stintv1.EventKind{
			stintv1.EventKind_EVENT_KIND_WORKER_CONNECTED, stintv1.EventKind_EVENT_KIND_WORKER_RESUMED,
			stintv1.EventKind_EVENT_KIND_WORKER_DRAINING, stintv1.EventKind_EVENT_KIND_WORKER_GONE,
		}}})
		id := newInstance()
		talk := r.work()
		talk.say(hello(id))
		synctest.Wait()
		if _, err := r.workers.DrainWorkers(r.ctx, &stintv1.DrainWorkersRequest{InstanceIds: []string{id}, Reason: "new build", Requester: "ops"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		talk.cancel()
		events := w.events()
		var got []string
		for _, e := range events {
			got = append(got, fmt.Sprintf("%s %t %s %s", e.GetKind(), e.GetInstanceId() == id, e.GetReason(), e.GetRequester()))
		}
		want := []string{"EVENT_KIND_WORKER_CONNECTED true  ", "EVENT_KIND_WORKER_DRAINING true new build ops", "EVENT_KIND_WORKER_GONE true  "}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestEventFilters: each part of a filter selects, and what is left out moves the cursor too.
func TestEventFilters(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		ids := map[string]string{"a": newID(), "b": newID(), "m": newID(), "later": newID()}
		add := func(name string, spec *stintv1.JobSpec) {
			spec.Id = ids[name]
			r.submit(spec)
			synctest.Wait()
		}
		filters := map[string]*stintv1.EventFilter{
			"queue":    {Queue: "media/a"},
			"pattern":  {Queue: "media/*"},
			"all":      {Queue: "*"},
			"nobody":   {Queue: "none"},
			"kind":     {Kinds: []stintv1.EventKind{stintv1.EventKind_EVENT_KIND_QUEUE_CREATED}},
			"label":    {Labels: map[string]string{"tier": "gold"}},
			"labels":   {Labels: map[string]string{"tier": "gold", "x": "y"}},
			"job":      {JobIds: []string{ids["b"], ids["later"]}},
			"both":     {Queue: "mail", JobIds: []string{ids["a"], ids["m"]}},
			"two jobs": {JobIds: []string{ids["m"], ids["a"], ids["m"]}},
		}
		live := map[string]*watch{}
		for name, f := range filters {
			live[name] = r.watch(&stintv1.WatchEventsRequest{Filter: f})
		}
		add("a", &stintv1.JobSpec{Queue: "media/a", Labels: map[string]string{"tier": "gold"}})
		add("b", &stintv1.JobSpec{Queue: "media/b", Labels: map[string]string{"tier": "tin", "x": "y"}})
		add("m", &stintv1.JobSpec{Queue: "mail", Labels: map[string]string{"tier": "gold", "x": "y"}})
		want := map[string]string{
			"queue": "q:media/a a", "pattern": "q:media/a a q:media/b b", "all": "q:media/a a q:media/b b q:mail m", "nobody": "",
			"kind": "q:media/a q:media/b q:mail", "label": "a m", "labels": "m", "job": "b", "both": "m", "two jobs": "a m",
		}
		synctest.Wait()
		for name, w := range live {
			for when, w := range map[string]*watch{"live": w, "log": r.watch(&stintv1.WatchEventsRequest{Filter: filters[name], FromOldest: true})} {
				var got []string
				for _, e := range w.events() {
					if e.GetJobId() == "" {
						got = append(got, "q:"+e.GetQueue())
					}
					for _, job := range []string{"a", "b", "m"} {
						if e.GetJobId() == ids[job] {
							got = append(got, job)
						}
					}
				}
				if s := strings.Join(got, " "); s != want[name] {
					t.Errorf("%s from the %s: %q, want %q", name, when, s, want[name])
				}
				if again := r.watch(&stintv1.WatchEventsRequest{Cursor: w.cursor}); len(again.events()) > 0 {
					t.Errorf("%s from the %s: its last cursor is not behind everything", name, when)
				}
				w.stop()
			}
		}
	})
}

// TestResumeEvents: from each cursor on come exactly the events behind it.
func TestResumeEvents(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for range 5 {
			r.submit(&stintv1.JobSpec{Queue: "q"}, &stintv1.JobSpec{Queue: "p"}, &stintv1.JobSpec{Queue: "q"})
			r.succeed(r.claim("q"))
		}
		all := r.watch(&stintv1.WatchEventsRequest{FromOldest: true}).events()
		for i, e := range all {
			w := r.watch(&stintv1.WatchEventsRequest{Cursor: e.GetCursor()})
			got := w.events()
			same := slices.EqualFunc(got, all[i+1:], func(a, b *stintv1.Event) bool { return a.GetCursor() == b.GetCursor() })
			if !same {
				t.Fatalf("behind event %d of %d come %d", i, len(all), len(got))
			}
			w.stop()
		}
	})
}

// TestResync: a cursor of another store, of a time to come, or of events that are not kept is refused with the oldest one.
func TestResync(t *testing.T) {
	var foreign string
	inBubble(t, rigConfig{}, func(r *rig) { foreign = r.watch(nil).cursor })
	inBubble(t, rigConfig{store: pebblestore.Config{EventBytes: 2000}}, func(r *rig) {
		first := r.watch(nil).cursor
		for range 200 {
			r.submit(&stintv1.JobSpec{Queue: "q", Labels: map[string]string{"a": "b"}})
		}
		for name, cursor := range map[string]string{"foreign": foreign, "old": first} {
			err := r.watchError(&stintv1.WatchEventsRequest{Cursor: cursor})
			if got := describeEnd(err); got != "RESYNC, OutOfRange, cursor" {
				t.Fatalf("%s: it ended %s", name, got)
			}
			oldest := ""
			for _, d := range status.Convert(err).Details() {
				if info, ok := d.(*errdetails.ErrorInfo); ok {
					oldest = info.GetMetadata()["oldest_cursor"]
				}
			}
			events := r.watch(&stintv1.WatchEventsRequest{Cursor: oldest}).events()
			if n := len(events); n < 10 || n > 150 {
				t.Errorf("%s: %d events behind the oldest cursor", name, n)
			}
		}
	})
}

// TestSlowConsumer: a follower that reads nothing is cut, and comes back without a gap.
func TestSlowConsumer(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.watch(nil)
		start := time.Now()
		for range 40 {
			var jobs []*stintv1.JobSpec
			for range 200 {
				jobs = append(jobs, &stintv1.JobSpec{Queue: "q"})
			}
			r.submit(jobs...)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(15 * time.Second)
		n := 0
		for {
			m, err := w.stream.Recv()
			if err != nil {
				if got := describeEnd(err); got != "SLOW_CONSUMER, ResourceExhausted" {
					t.Errorf("it ended %s after %v", got, time.Since(start))
				}
				break
			}
			w.cursor = m.GetCursor()
			n += len(m.GetEvents())
		}
		rest := len(r.watch(&stintv1.WatchEventsRequest{Cursor: w.cursor}).events())
		if n == 0 || rest == 0 || n+rest != 8001 {
			t.Errorf("%d events, and %d after coming back", n, rest)
		}
	})
}

// TestListThenWatch: who lists and then watches from the list's as_of misses nothing that happens meanwhile.
func TestListThenWatch(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.submit(&stintv1.JobSpec{Queue: "q"}, &stintv1.JobSpec{Queue: "q"})
		page, err := r.jobs.ListJobs(r.ctx, &stintv1.ListJobsRequest{PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		r.succeed(r.claim("q"))
		if diff := cmp.Diff([]string{"run_dispatched running 1:dispatched", "run_accepted running 1:running", "run_ended succeeded 1:succeeded", "job_ended succeeded"},
			r.watch(&stintv1.WatchEventsRequest{Cursor: page.GetAsOf()}).kinds()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestWatchEndsWithTheServer.
func TestWatchEndsWithTheServer(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.watch(nil)
		r.shutdown(time.Second)
		_, err := w.stream.Recv()
		if got := describeEnd(err); got != "SERVER_STOPPING, Unavailable" && !errors.Is(err, io.EOF) {
			t.Errorf("it ended %s", got)
		}
	})
}

// TestStopWithDeafFollower: one that reads nothing does not hold up a stop.
func TestStopWithDeafFollower(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.watch(nil)
		for range 40 {
			r.submit(slices.Repeat([]*stintv1.JobSpec{{Queue: "q"}}, 200)...)
			time.Sleep(50 * time.Millisecond)
		}
		if took := <-r.shutdown(20 * time.Second); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestEventsOfHardDeadline: a job whose run is left behind keeps its labels in all events.
func TestEventsOfHardDeadline(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.watch(&stintv1.WatchEventsRequest{Filter: &stintv1.EventFilter{Labels: map[string]string{"tier": "gold"}}})
		r.addSpec("a", &stintv1.JobSpec{Queue: "q", Labels: map[string]string{"tier": "gold"}})
		r.accept(r.claim("q"))
		r.interruptBy("a", cancel, 5*time.Second)
		time.Sleep(6 * time.Second)
		want := []string{
			"job_submitted ready", "run_dispatched running 1:dispatched", "run_accepted running 1:running", "interrupt_requested running",
			"run_ended cancelled 1:abandoned (hard deadline passed)", "job_ended cancelled",
		}
		got := w.kinds()
		for i := range got {
			if strings.HasPrefix(got[i], "interrupt_requested") {
				got[i] = "interrupt_requested running"
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestWatchEventsRefuses says what is wrong with a request, and with which field.
func TestWatchEventsRefuses(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.submit(&stintv1.JobSpec{Queue: "q"})
		good := r.watch(nil).cursor
		for name, try := range map[string]struct {
			m    *stintv1.WatchEventsRequest
			want string
			says string
		}{
			"kind": {
				&stintv1.WatchEventsRequest{Filter: &stintv1.EventFilter{Kinds: []stintv1.EventKind{1, 8}}},
				"INVALID_FIELD, InvalidArgument, filter.kinds[1]", "8 is no kind; there are JOB_SUBMITTED, JOB_READY",
			},
			"no kind": {
				&stintv1.WatchEventsRequest{Filter: &stintv1.EventFilter{Kinds: []stintv1.EventKind{0}}},
				"INVALID_FIELD, InvalidArgument, filter.kinds[0]", "is no kind",
			},
			"many jobs": {
				&stintv1.WatchEventsRequest{Filter: &stintv1.EventFilter{JobIds: slices.Repeat([]string{newID()}, 101)}},
				"INVALID_FIELD, InvalidArgument, filter.job_ids", "at most 100",
			},
			"job": {
				&stintv1.WatchEventsRequest{Filter: &stintv1.EventFilter{JobIds: []string{newID(), "x"}}},
				"INVALID_FIELD, InvalidArgument, filter.job_ids[1]", "UUID",
			},
			"zero job": {
				&stintv1.WatchEventsRequest{Filter: &stintv1.EventFilter{JobIds: []string{"00000000-0000-0000-0000-000000000000"}}},
				"INVALID_FIELD, InvalidArgument, filter.job_ids[0]", "",
			},
			"pattern": {
				&stintv1.WatchEventsRequest{Filter: &stintv1.EventFilter{Queue: "*a*"}},
				"INVALID_FIELD, InvalidArgument, filter.queue", "",
			},
			"label": {
				&stintv1.WatchEventsRequest{Filter: &stintv1.EventFilter{Labels: map[string]string{"": "x"}}},
				"INVALID_FIELD, InvalidArgument, filter.labels", "",
			},
			"cursor":       {&stintv1.WatchEventsRequest{Cursor: "what?"}, "INVALID_FIELD, InvalidArgument, cursor", "is not a cursor"},
			"short cursor": {&stintv1.WatchEventsRequest{Cursor: good[:len(good)-1]}, "INVALID_FIELD, InvalidArgument, cursor", "is not a cursor"},
			"both":         {&stintv1.WatchEventsRequest{Cursor: good, FromOldest: true}, "INVALID_FIELD, InvalidArgument, from_oldest", "does not go"},
		} {
			err := r.watchError(try.m)
			if got := describeEnd(err); !strings.HasPrefix(got, try.want) || !strings.Contains(err.Error(), try.says) {
				t.Errorf("%s: %s: %v", name, got, err)
			}
		}
	})
}
