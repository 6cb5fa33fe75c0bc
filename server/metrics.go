package server

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// metricsContentType is that of the Prometheus text format.
const metricsContentType = "text/plain; version=0.0.4; charset=utf-8"

// queuesShown is how many queues have series of their own; the totals hold all.
const queuesShown = 1000

// metrics is what the server counts. What the store knows is read from it when it is asked for.
type metrics struct {
	taken    [len(submitCounts{})]atomic.Uint64 // by status
	refusals []atomic.Uint64                    // by reason
	mu       sync.Mutex
	calls    map[call]uint64
}

// submitCounts is how many jobs were answered with each status.
type submitCounts [int(stintv1.SubmitStatus_SUBMIT_STATUS_REPLACED) + 1]uint64

// call names a series: a full method and what it ended with.
type call struct {
	method string
	code   codes.Code
}

func newMetrics() *metrics {
	last := slices.Max(slices.Collect(maps.Keys(stintv1.Reason_name)))
	return &metrics{refusals: make([]atomic.Uint64, last+1), calls: map[call]uint64{}}
}

// submitted counts jobs that were not refused.
func (m *metrics) submitted(counts *submitCounts) {
	for status, n := range counts {
		if n > 0 {
			m.taken[status].Add(n)
		}
	}
}

// refused counts an item or a call that was refused.
func (m *metrics) refused(reason stintv1.Reason) {
	if int(reason) < len(m.refusals) {
		m.refusals[reason].Add(1)
	}
}

// called counts a call that ended. Only methods of registered services come here, so that the series are few.
func (m *metrics) called(method string, code codes.Code) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls[call{method, code}]++
}

// exposition is text in the Prometheus format.
type exposition struct{ bytes.Buffer }

// family begins a metric; kind is counter or gauge.
func (e *exposition) family(name, kind, help string) {
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample adds a value; labels are pairs of name and value.
func (e *exposition) sample(name string, value float64, labels ...string) {
	e.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		e.WriteByte("{,"[min(i, 1)])
		fmt.Fprintf(e, "%s=%s", labels[i], strconv.Quote(labels[i+1]))
	}
	if len(labels) > 0 {
		e.WriteByte('}')
	}
	e.WriteByte(' ')
	e.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	e.WriteByte('\n')
}

// exposeMetrics writes all there is.
func (s *Server) exposeMetrics(ctx context.Context) ([]byte, error) {
	e := &exposition{}
	e.family("stint_build_info", "gauge", "Always 1; the label is the server's version.")
	e.sample("stint_build_info", 1, "version", s.cfg.Version)
	e.family("stint_goroutines", "gauge", "Goroutines of the server's process.")
	e.sample("stint_goroutines", float64(runtime.NumGoroutine()))
	s.metrics.expose(e)
	s.exposeGates(e)
	e.family("stint_event_followers", "gauge", "Streams of events that are open.")
	e.sample("stint_event_followers", float64(s.watchers.Load()))
	full := 0.0
	if s.store.Full() {
		full = 1
	}
	e.family("stint_storage_full", "gauge", "1 while free space is under the reserve and new jobs are refused.")
	e.sample("stint_storage_full", full)
	err := s.exposeQueues(ctx, e)
	return e.Bytes(), err
}

func (m *metrics) expose(e *exposition) {
	e.family("stint_jobs_submitted_total", "counter", "Jobs answered: created, existing when the id was known with the same content, key_held or replaced when another job held the unique key.")
	for status := stintv1.SubmitStatus_SUBMIT_STATUS_CREATED; int(status) < len(m.taken); status++ {
		name := strings.ToLower(strings.TrimPrefix(status.String(), "SUBMIT_STATUS_"))
		e.sample("stint_jobs_submitted_total", float64(m.taken[status].Load()), "status", name)
	}
	e.family("stint_refusals_total", "counter", "Calls and items of calls that were refused, by reason.")
	for reason := range m.refusals {
		if n := m.refusals[reason].Load(); n > 0 {
			e.sample("stint_refusals_total", float64(n), "reason", strings.TrimPrefix(stintv1.Reason(reason).String(), "REASON_"))
		}
	}
	e.family("stint_calls_total", "counter", "Calls and streams that ended, by method and gRPC code.")
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]call, 0, len(m.calls))
	for key := range m.calls {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b call) int {
		return cmp.Or(strings.Compare(a.method, b.method), cmp.Compare(a.code, b.code))
	})
	for _, key := range keys {
		e.sample("stint_calls_total", float64(m.calls[key]), "method", strings.TrimPrefix(key.method, "/"), "code", key.code.String())
	}
}

// queueSample is what is shown of one queue.
type queueSample struct {
	name   string
	counts [job.NumberOfStates]uint64
	oldest float64 // seconds; negative: nothing is ready
	paused bool
}

// exposeQueues writes what the store counts. With more than queuesShown queues, the ones with most unfinished jobs are
// shown.
func (s *Server) exposeQueues(ctx context.Context, e *exposition) error {
	var queues []queueSample
	err := s.store.View(ctx, func(r store.Reader) error {
		queues = nil
		r.Queues("", func(q *store.Queue) bool {
			sample := queueSample{name: q.Name, counts: q.Counts, paused: q.Pause != nil, oldest: -1}
			if j := r.Oldest(q.Name); j != nil {
				sample.oldest = max(0, r.Now().Sub(j.ReadyTime).Seconds())
			}
			queues = append(queues, sample)
			return true
		})
		return nil
	})
	if err != nil {
		return err
	}
	var total [job.NumberOfStates]uint64
	for i := range queues {
		for state, n := range queues[i].counts {
			total[state] += n
		}
	}
	e.family("stint_queues", "gauge", "Queues that exist.")
	e.sample("stint_queues", float64(len(queues)))
	e.family("stint_jobs", "gauge", "Jobs of all queues, by state; finished ones while they are kept.")
	eachState(func(state job.State, name string) { e.sample("stint_jobs", float64(total[state]), "state", name) })
	exposeEach(e, mostBusy(queues))
	return nil
}

func exposeEach(e *exposition, queues []queueSample) {
	e.family("stint_queue_jobs", "gauge", "Jobs of a queue, by state; finished ones while they are kept.")
	for i := range queues {
		eachState(func(state job.State, name string) {
			e.sample("stint_queue_jobs", float64(queues[i].counts[state]), "queue", queues[i].name, "state", name)
		})
	}
	e.family("stint_queue_oldest_ready_age_seconds", "gauge", "How long the oldest ready job of a queue has been ready; absent without one.")
	for i := range queues {
		if queues[i].oldest >= 0 {
			e.sample("stint_queue_oldest_ready_age_seconds", queues[i].oldest, "queue", queues[i].name)
		}
	}
	e.family("stint_queue_paused", "gauge", "1 for each queue that is paused; absent for the others.")
	for i := range queues {
		if queues[i].paused {
			e.sample("stint_queue_paused", 1, "queue", queues[i].name)
		}
	}
}

// mostBusy leaves the queues that are shown, by name.
func mostBusy(queues []queueSample) []queueSample {
	if len(queues) <= queuesShown {
		return queues
	}
	unfinished := func(q *queueSample) (n uint64) {
		for state := range q.counts {
			if !job.State(state).Terminal() {
				n += q.counts[state]
			}
		}
		return n
	}
	slices.SortStableFunc(queues, func(a, b queueSample) int { return cmp.Compare(unfinished(&b), unfinished(&a)) })
	queues = queues[:queuesShown]
	slices.SortFunc(queues, func(a, b queueSample) int { return strings.Compare(a.name, b.name) })
	return queues
}

// eachState calls fn for the states that the wire knows, with their names in lower case.
func eachState(fn func(job.State, string)) {
	for state := job.Scheduled; int(state) < job.NumberOfStates; state++ {
		if name, known := stintv1.JobState_name[int32(state)]; known {
			fn(state, strings.ToLower(strings.TrimPrefix(name, "JOB_STATE_")))
		}
	}
}
