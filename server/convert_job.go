package server

import (
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Bounds of a job's message, in bytes.
const (
	// jobMessageRest is all of a job's message but payload and result.
	jobMessageRest = 2 << 20
	// historyMax is how much the failures of a history may take in whole; those of older runs are shown in short.
	historyMax = 1 << 20
	// shortText is what is shown of a text in short.
	shortText = 256
)

// wireJob is a job as reads show it, with the queue's policy where the job has none. r brings the bytes of a full view.
func wireJob(r store.Reader, j *job.Job, view stintv1.JobView) (*stintv1.Job, error) {
	m := &stintv1.Job{
		Id:           j.Spec.ID.String(),
		Queue:        j.Spec.Queue,
		State:        stintv1.JobState(j.State),
		Priority:     stintv1.Priority(j.Spec.Priority),
		Sequence:     j.Seq,
		SubmitTime:   wireTime(j.SubmitTime),
		DueTime:      wireTime(j.DueTime),
		StartBy:      wireTime(j.StartBy),
		EndTime:      wireTime(j.EndTime),
		Epoch:        j.Epoch,
		Counters:     wireCounters(j.Counters),
		Interrupt:    wireInterrupt(j.Interrupt, j.Epoch, j.RunCount),
		ParkReason:   stintv1.ParkReason(j.ParkReason),
		RunCount:     j.RunCount,
		Failure:      wireFailure(j.Failure),
		Labels:       j.Spec.Labels,
		Subject:      j.Spec.Subject,
		Policy:       wirePolicy(job.Effective(j.Spec, policyOf(r, j))),
		TraceContext: wireTrace(j.Spec),
		Etag:         jobEtag(j),
		Timeout:      wireTimeout(j.Spec.Timeout),
		Limits:       wireUses(j.Spec.Limits),
		FairnessKey:  j.Spec.FairnessKey,
		Unique:       wireUnique(j, r.Now()),
	}
	if j.State == job.Running {
		m.Run = wireRun(&j.Run)
	}
	if view != stintv1.JobView_JOB_VIEW_FULL {
		return m, nil
	}
	payload, err := r.Payload(j)
	if err != nil {
		return nil, err
	}
	if len(payload) != j.Spec.PayloadSize { // it was replaced since it was read, or deleted
		newer, err := r.Load([]uint64{j.Seq})
		if err != nil {
			return nil, err
		}
		if newer[0] != nil && newer[0].Version > j.Version {
			return wireJob(r, newer[0], view)
		}
	}
	m.Payload = wirePayload(payload, j.Spec.ContentType)
	if j.Result != nil {
		result, err := r.Result(j)
		if err != nil {
			return nil, err
		}
		m.Result = wirePayload(result, j.Result.ContentType)
	}
	m.History = wireHistory(j.History)
	for _, a := range j.Actions {
		m.Actions = append(m.Actions, &stintv1.Action{
			Kind: stintv1.ActionKind(a.Kind), Reason: a.Reason, Requester: a.Requester, Time: wireTime(a.Time),
			RequestId: a.Request, Status: stintv1.InterruptStatus(a.Effect),
		})
	}
	return m, nil
}

// policyOf is the policy of the job's queue.
func policyOf(r store.Reader, j *job.Job) job.Policy {
	if q := r.Queue(j.Spec.Queue); q != nil {
		return q.Policy
	}
	return job.Policy{}
}

// wireHistory shows the newest runs in whole and, once their failures fill historyMax, older ones in short.
func wireHistory(history []job.Run) []*stintv1.Run {
	runs := make([]*stintv1.Run, len(history))
	left := historyMax
	for i := range slices.Backward(history) {
		run := wireRun(&history[i])
		if size := proto.Size(run.GetFailure()) + proto.Size(run.GetInterrupt()); size <= left {
			left -= size
		} else {
			shorten(run)
		}
		runs[i] = run
	}
	return runs
}

// shorten leaves of a run's failure and interrupt what tells them apart.
func shorten(run *stintv1.Run) {
	if i := run.GetInterrupt(); i != nil {
		i.Reason, i.Requester = cut(i.GetReason(), shortText), cut(i.GetRequester(), shortText)
	}
	f := run.GetFailure()
	if f == nil {
		return
	}
	f.Type, f.Message = cut(f.GetType(), shortText), cut(f.GetMessage(), shortText)
	f.Stack, f.Causes = nil, nil
	if f.GetProcess() != nil {
		f.Process.Signal, f.Process.StderrTail = cut(f.GetProcess().GetSignal(), shortText), ""
	}
}

// wireTimeout is a timeout; absent if there is none.
func wireTimeout(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// cut is the start of s, of at most limit bytes, that ends with a whole character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

func wireRun(r *job.Run) *stintv1.Run {
	return &stintv1.Run{
		Number:       r.Number,
		Fence:        r.Fence,
		State:        stintv1.RunState(r.State),
		Worker:       r.Worker,
		InstanceId:   r.Instance.String(),
		DispatchTime: wireTime(r.DispatchTime),
		AcceptTime:   wireTime(r.AcceptTime),
		EndTime:      wireTime(r.EndTime),
		Failure:      wireFailure(r.Failure),
		Note:         r.Note,
		Interrupt:    wireInterrupt(r.Interrupt, r.Epoch, r.Number),
		Throttled:    wireThrottle(r.Throttle),
	}
}

func wireFailure(f *job.Failure) *stintv1.Failure {
	if f == nil {
		return nil
	}
	m := &stintv1.Failure{
		Class:   stintv1.FailureClass(f.Class),
		Type:    f.Type,
		Message: f.Message,
		Final:   f.Final,
		Park:    f.Park,
	}
	for _, frame := range f.Stack {
		m.Stack = append(m.Stack, &stintv1.StackFrame{Function: frame.Function, File: frame.File, Line: frame.Line})
	}
	for _, cause := range f.Causes {
		m.Causes = append(m.Causes, &stintv1.FailureCause{Type: cause.Type, Message: cause.Message})
	}
	if f.RetryDelay != nil {
		m.RetryDelay = durationpb.New(*f.RetryDelay)
	}
	if p := f.Process; p != nil {
		m.Process = &stintv1.ProcessExit{ExitCode: p.Code, Signal: p.Signal, StderrTail: p.StderrTail}
	}
	return m
}
