package server

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Bounds of unique keys.
const (
	uniqueKeyMax = 200 // bytes
	uniqueTTLMax = 30 * 24 * time.Hour
)

// checkUnique says what is wrong with a job's unique key.
func checkUnique(m *stintv1.Unique) error {
	if m == nil {
		return nil
	}
	if m.GetKey() == "" {
		return invalid("unique.key", "a key is needed")
	}
	if err := checkText("unique.key", m.GetKey(), uniqueKeyMax); err != nil {
		return err
	}
	if _, known := stintv1.UniqueUntil_name[int32(m.GetUntil())]; !known {
		return invalid("unique.until", "must be START or FINISH, or absent")
	}
	if m.GetTtl() != nil && m.GetUntil() == stintv1.UniqueUntil_UNIQUE_UNTIL_START {
		return invalid("unique.ttl", "goes with FINISH only: a key that is held until START is free from then on")
	}
	if err := checkDuration("unique.ttl", m.GetTtl(), 0, uniqueTTLMax); err != nil {
		return err
	}
	if _, known := stintv1.OnConflict_name[int32(m.GetOnConflict())]; !known {
		return invalid("unique.on_conflict", "must be RETURN_EXISTING, REJECT or REPLACE_PENDING, or absent")
	}
	return nil
}

// uniqueFrom is a unique key with its defaults; nil if there is none.
func uniqueFrom(m *stintv1.Unique) *job.Unique {
	if m == nil {
		return nil
	}
	u := &job.Unique{
		Key: m.GetKey(), Until: job.UniqueUntil(m.GetUntil()), TTL: m.GetTtl().AsDuration(), OnConflict: job.OnConflict(m.GetOnConflict()),
	}
	if u.Until == job.UntilNone {
		u.Until = job.UntilFinish
	}
	if u.OnConflict == job.OnConflictNone {
		u.OnConflict = job.OnConflictReturnExisting
	}
	return u
}

// wireUnique is the job's unique key, and whether it holds it at now.
func wireUnique(j *job.Job, now time.Time) *stintv1.UniqueKey {
	u := j.Spec.Unique
	if u == nil {
		return nil
	}
	m := &stintv1.UniqueKey{
		Key: u.Key, Until: stintv1.UniqueUntil(u.Until), Ttl: wireTimeout(u.TTL), OnConflict: stintv1.OnConflict(u.OnConflict),
		Held: j.HoldsKey(now),
	}
	if until, _ := j.KeyTerm(); m.GetHeld() {
		m.HeldUntil = wireTime(until)
	}
	return m
}

// meetHolder answers for a new job whose unique key another one holds; held is false if nobody does.
func (r *submitRun) meetHolder(item *submission) (answer result, held bool, err error) {
	unique := item.spec.Unique
	h, err := r.tx.Holder(item.spec.Queue, unique.Key)
	if err != nil || h.State == job.StateNone {
		return result{}, false, err
	}
	answer = result{status: stintv1.SubmitStatus_SUBMIT_STATUS_KEY_HELD, holder: h.ID, state: h.State}
	if h.Job != nil {
		answer.policy = job.Effective(h.Job.Spec, policyOf(r.tx, h.Job))
	}
	switch {
	case unique.OnConflict == job.OnConflictReject:
		answer.err = uniqueConflict("unique.key", h)
	case unique.OnConflict == job.OnConflictReplacePending && h.Job != nil:
		if next, err := h.Job.Replace(r.now, item.startingFrom(r.now)); err == nil {
			answer, err = r.replace(h.Job, next)
			return answer, true, err
		}
	}
	return answer, true, nil
}

// replace stores what a submit makes of the holder of its key, or says why not.
func (r *submitRun) replace(holder, next *job.Job) (result, error) {
	if r.full {
		return result{err: errStorageFull}, nil
	}
	if refused, is := refuseUses(r.tx, next.Spec.Limits); is {
		return refused, nil
	}
	r.replaced = true
	answer := result{
		status: stintv1.SubmitStatus_SUBMIT_STATUS_REPLACED, holder: next.Spec.ID, state: next.State,
		policy: job.Effective(next.Spec, policyOf(r.tx, next)),
	}
	return answer, r.tx.Put(store.Change{Old: holder, New: next})
}

// refuseKey says why j cannot become next: it would take its unique key again, and another job holds that.
func refuseKey(r store.Reader, j, next *job.Job) error {
	if j.Spec.Unique == nil || next == j || !next.HoldsKey(r.Now()) {
		return nil
	}
	h, err := r.Holder(j.Spec.Queue, j.Spec.Unique.Key)
	if err != nil || h.State == job.StateNone || h.ID == j.Spec.ID {
		return err
	}
	return uniqueConflict("", h)
}

// uniqueConflict refuses what would take a unique key from its holder.
func uniqueConflict(field string, h store.Holder) *refusal {
	return &refusal{
		code: codes.AlreadyExists, reason: stintv1.Reason_REASON_UNIQUE_CONFLICT, field: field,
		message: fmt.Sprintf("job %s, which is %s, holds the unique key", h.ID, h.State),
	}
}
