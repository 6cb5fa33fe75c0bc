package simtest

import (
	"context"
	"slices"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// acknowledged are the jobs whose submit was answered.
func (w *witness) acknowledged() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := map[string]bool{}
	for id, l := range w.lives {
		if len(l.acked) > 0 {
			ids[id] = true
		}
	}
	return ids
}

// compare compares what the server has at the end with what was seen.
func (s *sim) compare(jobs []*stintv1.Job) {
	missing := s.witness.acknowledged()
	for _, j := range jobs {
		delete(missing, j.GetId())
		s.witness.ended(j)
	}
	if len(missing) > 0 {
		s.witness.fault("%d acknowledged jobs do not exist: %v", len(missing), missing)
	}
	s.count(jobs)
	s.withinLimits(jobs)
}

// ended judges a job that has come to its end: its history is what its workers said, and its result is that of the one
// run that succeeded.
func (w *witness) ended(j *stintv1.Job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.life(j.GetId())
	if !terminal(j.GetState()) {
		w.blame("job %s has not ended: %v", l.id, j)
	}
	w.governed(l, j)
	var results []string
	for _, h := range j.GetHistory() {
		if p := w.pauses[j.GetQueue()]; p != nil && p.hold(h.GetDispatchTime().AsTime()) {
			w.blame("job %s: run %d was dispatched while queue %s was paused: %v", l.id, h.GetNumber(), j.GetQueue(), h)
		}
		r := w.fences[h.GetFence()]
		said := h.GetState() >= stintv1.RunState_RUN_STATE_SUCCEEDED && h.GetState() <= stintv1.RunState_RUN_STATE_RELEASED
		if said && (r == nil || r.life != l || r.finish == nil || ending(r.finish) != h.GetState()) {
			w.blame("job %s: its worker has not ended run %d like this: %v", l.id, h.GetNumber(), h)
			continue
		}
		if h.GetState() == stintv1.RunState_RUN_STATE_SUCCEEDED {
			results = append(results, string(r.finish.GetSuccess().GetResult().GetData()))
		}
	}
	for _, r := range l.leases {
		if len(r.passed) > 0 && slices.ContainsFunc(j.GetHistory(), func(h *stintv1.Run) bool {
			return h.GetFence() == r.fence && h.GetState() == ending(r.finish)
		}) {
			w.blame("job %s: the end of run %d was SUPERSEDED and is in its history: %v", l.id, r.number, j)
		}
	}
	var want []string
	if j.GetState() == stintv1.JobState_JOB_STATE_SUCCEEDED {
		want = []string{string(j.GetResult().GetData())}
	}
	if !slices.Equal(results, want) {
		w.blame("job %s is %s with the result %q; its workers succeeded with %q", l.id, j.GetState(), want, results)
	}
}

// count compares the counts of queues with the jobs that are listed.
func (s *sim) count(jobs []*stintv1.Job) {
	l := s.connect()
	defer l.close()
	for _, name := range queues {
		want := &stintv1.JobCounts{}
		for _, j := range jobs {
			if j.GetQueue() != name {
				continue
			}
			switch j.GetState() {
			case stintv1.JobState_JOB_STATE_SUCCEEDED:
				want.Succeeded++
			case stintv1.JobState_JOB_STATE_FAILED:
				want.Failed++
			case stintv1.JobState_JOB_STATE_CANCELLED:
				want.Cancelled++
			case stintv1.JobState_JOB_STATE_EXPIRED:
				want.Expired++
			}
		}
		queue, err := l.Queues().GetQueue(context.Background(), &stintv1.GetQueueRequest{Name: name})
		if err != nil {
			s.t.Fatal(err)
		}
		if diff := cmp.Diff(want, queue.GetQueue().GetCounts(), protocmp.Transform()); diff != "" {
			s.witness.fault("queue %s counts other jobs than it has (-listed +counted): %s", name, diff)
		}
	}
}
