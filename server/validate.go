package server

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
)

// Limits of what requests hold; lengths are in bytes.
const (
	nameMax        = 200
	eventJobsMax   = 100
	itemsMax       = 1000 // jobs or ids of one request
	labelsMax      = 64
	labelKeyMax    = 63
	labelValueMax  = 256
	subjectMax     = 256
	contentTypeMax = 255
	tracestateMax  = 512
	reasonMax      = 1024
	requesterMax   = 200
	requestIDMax   = 64
	fairnessKeyMax = 200
	weightsMax     = 1000 // fairness keys of a queue with a weight of their own
	delayMax       = 10 * 365 * 24 * time.Hour
	timeoutMin     = time.Millisecond
	interruptMax   = 24 * time.Hour // the longest grace and hard deadline of an interrupt
	retryFirstMax  = 24 * time.Hour
	retryDelayMax  = 30 * 24 * time.Hour
	multiplierMax  = 100
	pageSizeMax    = 1000
	pageSize       = 100 // when none is asked for
)

// timeMax is the latest time a request may name. It leaves room for every delay that is added to one.
var timeMax = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// reservedNames is the first segment of names that belong to Stint itself.
const reservedNames = "_stint"

// checkQueueName says what is wrong with the name of a queue.
func checkQueueName(field, name string) error { return checkName(field, "queue", name) }

// checkName says what is wrong with the name of a queue or a limit.
func checkName(field, what, name string) error {
	if name == "" {
		return invalid(field, "a %s's name is needed", what)
	}
	if len(name) > nameMax {
		return invalid(field, "a %s's name has at most %d bytes; this has %d", what, nameMax, len(name))
	}
	segment := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '/':
			if segment == 0 {
				return invalid(field, "a %s's name has no empty segments", what)
			}
			segment = 0
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
			segment++
		default:
			return invalid(field, "a %s's name is made of a-z, 0-9, '.', '_', '-' and '/'; byte %d is none of them", what, i)
		}
	}
	if segment == 0 {
		return invalid(field, "a %s's name has no empty segments", what)
	}
	if first, _, _ := strings.Cut(name, "/"); first == reservedNames {
		return invalid(field, "names under %s/ are reserved", reservedNames)
	}
	return nil
}

// checkQueuePattern says what is wrong with a queue's name or pattern; empty is any queue.
func checkQueuePattern(field, pattern string) error {
	if pattern == "" || pattern == "*" {
		return nil
	}
	if name, ok := strings.CutSuffix(pattern, "/*"); ok {
		return checkQueueName(field, name)
	}
	return checkQueueName(field, pattern)
}

// parseID reads an id, in canonical form only.
func parseID(field, s string) (job.ID, error) {
	id, err := job.ParseID(s)
	if err != nil {
		return job.ID{}, invalid(field, "an id is a UUID in canonical form: 36 characters, lower case")
	}
	return id, nil
}

// checkText says what is wrong with a free text of at most limit bytes.
func checkText(field, s string, limit int) error {
	if len(s) > limit {
		return invalid(field, "at most %d bytes; this has %d", limit, len(s))
	}
	if !utf8.ValidString(s) {
		return invalid(field, "not valid UTF-8")
	}
	return nil
}

func checkLabels(field string, labels map[string]string) error {
	if len(labels) > labelsMax {
		return tooLarge(field, "at most %d labels; these are %d", labelsMax, len(labels))
	}
	for key, value := range labels {
		if key == "" || len(key) > labelKeyMax || !utf8.ValidString(key) {
			return invalid(field, "a label's key is UTF-8 of 1 to %d bytes; %q is not", labelKeyMax, clip(key))
		}
		if len(value) > labelValueMax || !utf8.ValidString(value) {
			return invalid(field, "a label's value is UTF-8 of at most %d bytes; that of %q is not", labelValueMax, key)
		}
	}
	return nil
}

// clip shortens what a message quotes.
func clip(s string) string {
	const enough = 80
	if len(s) <= enough {
		return s
	}
	return s[:enough] + "…"
}

// checkDuration says what is wrong with a duration that may be absent.
func checkDuration(field string, d *durationpb.Duration, shortest, longest time.Duration) error {
	if d == nil {
		return nil
	}
	if !d.IsValid() {
		return invalid(field, "not a valid duration")
	}
	if got := d.AsDuration(); got < shortest || got > longest {
		return invalid(field, "must be %s to %s", shortest, longest)
	}
	return nil
}

// checkTime says what is wrong with a time that may be absent.
func checkTime(field string, t *timestamppb.Timestamp) error {
	if t == nil {
		return nil
	}
	if !t.IsValid() {
		return invalid(field, "not a valid time")
	}
	if at := t.AsTime(); at.Before(time.Unix(0, 0)) || at.After(timeMax) {
		return invalid(field, "must be from 1970 to %s", timeMax.Format(time.DateOnly))
	}
	return nil
}

func checkRetryPolicy(field string, p *stintv1.RetryPolicy) error {
	if p == nil { // as in most jobs, which need not pay for the names of its fields
		return nil
	}
	if n := p.GetMaxAttempts(); n > job.MaxAttempts {
		return invalid(field+".max_attempts", "must be 1 to %d, or 0 for the policy's", job.MaxAttempts)
	}
	e, l := p.GetExponential(), p.GetLinear()
	for _, d := range [...]struct {
		field   string
		value   *durationpb.Duration
		longest time.Duration
	}{
		{".exponential.initial", e.GetInitial(), retryFirstMax},
		{".exponential.max", e.GetMax(), retryDelayMax},
		{".linear.initial", l.GetInitial(), retryFirstMax},
		{".linear.increment", l.GetIncrement(), retryFirstMax},
		{".linear.max", l.GetMax(), retryDelayMax},
		{".constant.delay", p.GetConstant().GetDelay(), retryDelayMax},
		{".deadline", p.GetDeadline(), delayMax},
		{".interrupt_delay", p.GetInterruptDelay(), retryDelayMax},
	} {
		if err := checkDuration(field+d.field, d.value, 0, d.longest); err != nil {
			return err
		}
	}
	if m := e.GetMultiplier(); m != 0 && !(m >= 1 && m <= multiplierMax) {
		return invalid(field+".exponential.multiplier", "must be 1 to %d, or 0 for the policy's", multiplierMax)
	}
	if _, known := stintv1.OnFailure_name[int32(p.GetOnFailure())]; !known {
		return invalid(field+".on_failure", "%d is nothing to do on a failure", p.GetOnFailure())
	}
	return nil
}

func checkPriority(field string, p stintv1.Priority) error {
	if _, known := stintv1.Priority_name[int32(p)]; !known {
		return invalid(field, "%d is no priority", p)
	}
	return nil
}

func checkView(v stintv1.JobView) error {
	if _, known := stintv1.JobView_name[int32(v)]; !known {
		return invalid("view", "%d is no view", v)
	}
	return nil
}

// checkJobSpec says what is wrong with a job but for its id and its payload, which are checked where they are read.
func checkJobSpec(m *stintv1.JobSpec) error {
	if err := checkQueueName("queue", m.GetQueue()); err != nil {
		return err
	}
	if err := checkText("payload.content_type", m.GetPayload().GetContentType(), contentTypeMax); err != nil {
		return err
	}
	if err := checkChangeable(m); err != nil {
		return err
	}
	if err := checkUnique(m.GetUnique()); err != nil {
		return err
	}
	return checkText("trace_context.tracestate", m.GetTraceContext().GetTracestate(), tracestateMax)
}

// checkChangeable says what is wrong with the fields of a job that UpdateJob can change.
func checkChangeable(m *stintv1.JobSpec) error {
	if err := checkPriority("priority", m.GetPriority()); err != nil {
		return err
	}
	if err := checkTime("run_at", m.GetRunAt()); err != nil {
		return err
	}
	if err := checkDuration("delay", m.GetDelay(), 0, delayMax); err != nil {
		return err
	}
	if err := checkTime("start_by", m.GetStartBy()); err != nil {
		return err
	}
	if err := checkDuration("timeout", m.GetTimeout(), timeoutMin, delayMax); err != nil {
		return err
	}
	if err := checkDuration("lease", m.GetLease(), job.LeaseMin, job.LeaseMax); err != nil {
		return err
	}
	if err := checkRetryPolicy("retry", m.GetRetry()); err != nil {
		return err
	}
	if err := checkLabels("labels", m.GetLabels()); err != nil {
		return err
	}
	if err := checkText("subject", m.GetSubject(), subjectMax); err != nil {
		return err
	}
	if err := checkText("fairness_key", m.GetFairnessKey(), fairnessKeyMax); err != nil {
		return err
	}
	return checkUses(m.GetLimits())
}

// checkCount says what is wrong with the number of items of a request.
func checkCount(field string, n int) error {
	if n < 1 || n > itemsMax {
		return invalid(field, "must be 1 to %d; these are %d", itemsMax, n)
	}
	return nil
}

func checkJobFilter(f *stintv1.JobFilter) error {
	if err := checkQueuePattern("filter.queue", f.GetQueue()); err != nil {
		return err
	}
	for i, state := range f.GetStates() {
		if _, known := stintv1.JobState_name[int32(state)]; !known || state == stintv1.JobState_JOB_STATE_UNSPECIFIED {
			return invalid(fmt.Sprintf("filter.states[%d]", i), "%d is no state", state)
		}
	}
	if err := checkLabels("filter.labels", f.GetLabels()); err != nil {
		return err
	}
	if err := checkText("filter.subject", f.GetSubject(), subjectMax); err != nil {
		return err
	}
	if err := checkText("filter.unique_key", f.GetUniqueKey(), uniqueKeyMax); err != nil {
		return err
	}
	if err := checkTime("filter.submitted_from", f.GetSubmittedFrom()); err != nil {
		return err
	}
	return checkTime("filter.submitted_before", f.GetSubmittedBefore())
}

func checkListJobs(m *stintv1.ListJobsRequest) error {
	if err := checkView(m.GetView()); err != nil {
		return err
	}
	return checkJobFilter(m.GetFilter())
}

// checkEventFilter says what is wrong with a filter of events but for the ids, which are checked where they are read.
func checkEventFilter(m *stintv1.EventFilter) error {
	if err := checkQueuePattern("filter.queue", m.GetQueue()); err != nil {
		return err
	}
	if n := len(m.GetJobIds()); n > eventJobsMax {
		return invalid("filter.job_ids", "%d jobs; at most %d", n, eventJobsMax)
	}
	for i, k := range m.GetKinds() {
		if _, known := stintv1.EventKind_name[int32(k)]; !known || k == 0 {
			return invalid(fmt.Sprintf("filter.kinds[%d]", i), "%d is no kind; there are %s", k, strings.Join(eventKinds(), ", "))
		}
	}
	return checkLabels("filter.labels", m.GetLabels())
}

// eventKinds are the names of all kinds of events, in the order of their numbers.
func eventKinds() []string {
	var names []string
	values := stintv1.EventKind(0).Descriptor().Values()
	for i := 1; i < values.Len(); i++ {
		names = append(names, strings.TrimPrefix(string(values.Get(i).Name()), "EVENT_KIND_"))
	}
	return names
}

func checkWaitJob(m *stintv1.WaitJobRequest) error {
	if _, known := stintv1.WaitUntil_name[int32(m.GetUntil())]; !known {
		return invalid("until", "%d is nothing to wait for", m.GetUntil())
	}
	return checkView(m.GetView())
}

// checkTargets says what is wrong with the jobs that a request names or selects.
func checkTargets(m jobsRequest) error {
	byFilter := m.GetFilter() != nil
	switch {
	case byFilter && len(m.GetIds()) > 0:
		return invalid("filter", "jobs are named by ids or selected by a filter, not both")
	case !byFilter && m.GetAll():
		return invalid("all", "goes with a filter")
	case !byFilter && m.GetContinueToken() != "":
		return invalid("continue_token", "goes with a filter")
	case !byFilter && len(m.GetIds()) == 0:
		return invalid("ids", "1 to %d ids are needed, or a filter", itemsMax)
	case !byFilter:
		return checkCount("ids", len(m.GetIds()))
	}
	if err := checkJobFilter(m.GetFilter()); err != nil {
		return err
	}
	if f := filterFrom(m.GetFilter()); f.everything() && !m.GetAll() {
		return invalid("filter", "it admits every job; set all if that is what you want")
	}
	return nil
}

func checkInterruptJobs(m *stintv1.InterruptJobsRequest) error {
	if err := checkTargets(m); err != nil {
		return err
	}
	switch m.GetLevel() {
	case stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY, stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL:
	default:
		return invalid("level", "must be RETRY or CANCEL")
	}
	if err := checkDuration("grace", m.GetGrace(), 0, interruptMax); err != nil {
		return err
	}
	if err := checkDuration("hard_deadline", m.GetHardDeadline(), max(1, m.GetGrace().AsDuration()), interruptMax); err != nil {
		return err
	}
	return checkNamed(m)
}

// namedRequest is a request that jobs remember.
type namedRequest interface {
	GetReason() string
	GetRequester() string
	GetRequestId() string
}

// checkNamed says what is wrong with who asks, why, and with the name of the request.
func checkNamed(m namedRequest) error {
	if err := checkWho(m.GetReason(), m.GetRequester()); err != nil {
		return err
	}
	return checkText("request_id", m.GetRequestId(), requestIDMax)
}

// checkWho says what is wrong with a reason and a requester.
func checkWho(reason, requester string) error {
	if err := checkText("reason", reason, reasonMax); err != nil {
		return err
	}
	return checkText("requester", requester, requesterMax)
}

func checkWeights(weights map[string]uint32) error {
	if n := len(weights); n > weightsMax {
		return invalid("policy.fairness_weights", "at most %d keys; these are %d", weightsMax, n)
	}
	for key, weight := range weights {
		if err := checkText("policy.fairness_weights", key, fairnessKeyMax); err != nil {
			return err
		}
		if weight < 1 || weight > job.WeightMax {
			return invalid("policy.fairness_weights", "of %q: must be 1 to %d", clip(key), job.WeightMax)
		}
	}
	return nil
}

func checkUpdateQueue(m *stintv1.UpdateQueueRequest) error {
	if err := checkQueueName("name", m.GetName()); err != nil {
		return err
	}
	if err := checkDuration("policy.lease", m.GetPolicy().GetLease(), job.LeaseMin, job.LeaseMax); err != nil {
		return err
	}
	if _, known := stintv1.LostContact_name[int32(m.GetPolicy().GetLostContact())]; !known {
		return invalid("policy.lost_contact", "must be STOP or CONTINUE, or absent")
	}
	if _, known := stintv1.OnZombie_name[int32(m.GetPolicy().GetOnZombie())]; !known {
		return invalid("policy.on_zombie", "must be HOLD or RELEASE, or absent")
	}
	if err := checkWeights(m.GetPolicy().GetFairnessWeights()); err != nil {
		return err
	}
	if err := checkRate("policy.rate", m.GetPolicy().GetRate()); err != nil {
		return err
	}
	if err := checkBreaker("policy.circuit_breaker", m.GetPolicy().GetCircuitBreaker()); err != nil {
		return err
	}
	return checkRetryPolicy("policy.retry", m.GetPolicy().GetRetry())
}

func checkPauseQueue(m *stintv1.PauseQueueRequest) error {
	if err := checkQueueName("name", m.GetName()); err != nil {
		return err
	}
	return checkWho(m.GetReason(), m.GetRequester())
}

// clampPageSize is the size of a page for what was asked: too much is taken as the most.
func clampPageSize(asked uint32) int {
	if asked == 0 {
		return pageSize
	}
	return int(min(asked, pageSizeMax))
}
