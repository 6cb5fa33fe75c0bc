package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// UpdateJob changes what was asked for of one job, in one transaction.
func (s *Server) UpdateJob(ctx context.Context, m *stintv1.UpdateJobRequest) (*stintv1.UpdateJobResponse, error) {
	id, err := parseID("id", m.GetId())
	if err != nil {
		return nil, err
	}
	if err := checkNamed(m); err != nil {
		return nil, err
	}
	asked, err := newJobUpdate(m)
	if err != nil {
		return nil, err
	}
	by := job.By{Reason: m.GetReason(), Requester: m.GetRequester(), Request: m.GetRequestId()}
	answer := &stintv1.UpdateJobResponse{}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		found, err := tx.Find([]job.ID{id})
		if err != nil {
			return err
		}
		j := found[0].Job
		if j == nil {
			return errJobNotFound
		}
		if _, did := j.Did(job.ActionUpdate, by.Request); !did && m.GetEtag() != "" && m.GetEtag() != jobEtag(j) {
			return errJobEtag
		}
		next, err := asked.apply(tx, j, by)
		if err != nil {
			return err
		}
		if next != j {
			if err := tx.Put(store.Change{Old: j, New: next}); err != nil {
				return err
			}
		}
		answer.Job, err = wireJob(tx, next, stintv1.JobView_JOB_VIEW_BASIC)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// jobUpdate is what a request changes, as far as that is to be seen without the job.
type jobUpdate struct {
	fields job.Fields
	spec   *stintv1.JobSpec // with the values of the fields
}

// jobUpdatePaths are the paths that an update mask may name.
var jobUpdatePaths = []struct {
	path  string
	field job.Fields
	set   func(*stintv1.JobSpec, *stintv1.JobUpdate)
}{
	{"priority", job.FieldPriority, func(s *stintv1.JobSpec, u *stintv1.JobUpdate) { s.Priority = u.GetPriority() }},
	{"run_at", job.FieldStart, setStart},
	{"delay", job.FieldStart, setStart},
	{"start_by", job.FieldStartBy, func(s *stintv1.JobSpec, u *stintv1.JobUpdate) { s.StartBy = u.GetStartBy() }},
	{"timeout", job.FieldTimeout, func(s *stintv1.JobSpec, u *stintv1.JobUpdate) { s.Timeout = u.GetTimeout() }},
	{"lease", job.FieldLease, func(s *stintv1.JobSpec, u *stintv1.JobUpdate) { s.Lease = u.GetLease() }},
	{"retry", job.FieldRetry, func(s *stintv1.JobSpec, u *stintv1.JobUpdate) { s.Retry = u.GetRetry() }},
	{"labels", job.FieldLabels, func(s *stintv1.JobSpec, u *stintv1.JobUpdate) { s.Labels = u.GetLabels() }},
	{"subject", job.FieldSubject, func(s *stintv1.JobSpec, u *stintv1.JobUpdate) { s.Subject = u.GetSubject() }},
	{"fairness_key", job.FieldFairness, func(s *stintv1.JobSpec, u *stintv1.JobUpdate) { s.FairnessKey = u.GetFairnessKey() }},
	{"limits", job.FieldLimits, func(s *stintv1.JobSpec, u *stintv1.JobUpdate) { s.Limits = u.GetLimits() }},
}

// setStart takes over the whole start: its alternatives are two names of the same.
func setStart(s *stintv1.JobSpec, u *stintv1.JobUpdate) {
	switch start := u.GetStart().(type) {
	case *stintv1.JobUpdate_RunAt:
		s.Start = &stintv1.JobSpec_RunAt{RunAt: start.RunAt}
	case *stintv1.JobUpdate_Delay:
		s.Start = &stintv1.JobSpec_Delay{Delay: start.Delay}
	default:
		s.Start = nil
	}
}

// newJobUpdate reads and checks what a request changes.
func newJobUpdate(m *stintv1.UpdateJobRequest) (*jobUpdate, error) {
	u := &jobUpdate{spec: &stintv1.JobSpec{}}
	for _, path := range m.GetUpdateMask().GetPaths() {
		known := false
		for _, p := range jobUpdatePaths {
			if path == p.path || path == "*" {
				p.set(u.spec, m.GetUpdate())
				u.fields |= p.field
				known = true
			}
		}
		if known {
			continue
		}
		if whole, _, part := strings.Cut(path, "."); part && slices.Contains(updatePathNames(), whole) {
			return nil, invalid("update_mask", "%q: %s is changed as a whole only", clip(path), whole)
		}
		return nil, invalid("update_mask", "%q is nothing that can be changed; that is %s, or *", clip(path), strings.Join(updatePathNames(), ", "))
	}
	if u.fields == 0 {
		return nil, invalid("update_mask", "must name what to change: some of %s, or *", strings.Join(updatePathNames(), ", "))
	}
	return u, underField("update.", checkChangeable(u.spec))
}

func updatePathNames() []string {
	names := make([]string, len(jobUpdatePaths))
	for i, p := range jobUpdatePaths {
		names[i] = p.path
	}
	return names
}

// apply is j's next version.
func (u *jobUpdate) apply(r store.Reader, j *job.Job, by job.By) (*job.Job, error) {
	spec := specFrom(u.spec)
	if u.spec.GetDelay() != nil {
		spec.RunAt = r.Now().Add(u.spec.GetDelay().AsDuration())
	}
	next, err := j.Update(r.Now(), job.Update{Fields: u.fields, Spec: spec}, by)
	if err != nil {
		return nil, err
	}
	// What it takes already was granted once, whatever became of the limits.
	if !slices.Equal(next.Spec.Limits, j.Spec.Limits) {
		if refused, is := refuseUses(r, next.Spec.Limits); is {
			return nil, underField("update.", refused.err)
		}
	}
	return next, nil
}

// underField is the refusal of a message that is part of another: prefix leads to it there.
func underField(prefix string, err error) error {
	r := asRefusal(err)
	if r == nil {
		return err
	}
	part := *r
	part.field = fmt.Sprint(prefix, r.field)
	return &part
}
