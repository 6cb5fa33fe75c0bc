package server

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// helloFrom is who a worker says it is.
func helloFrom(m *stintv1.Hello) (dispatch.Hello, error) {
	if err := checkHello(m); err != nil {
		return dispatch.Hello{}, err
	}
	instance, err := parseID("hello.instance_id", m.GetInstanceId())
	if err != nil {
		return dispatch.Hello{}, err
	}
	return dispatch.Hello{
		Worker:      m.GetWorker(),
		Instance:    instance,
		ResumeToken: m.GetResumeToken(),
		Host:        m.GetHost(),
		PID:         m.GetPid(),
		Labels:      m.GetLabels(),
		Build:       m.GetBuildId(),
		SDK:         m.GetSdk(),
		Held:        m.GetHeld(),
		MaxSilence:  m.GetMaxSilence().AsDuration(),
	}, nil
}

// demandFrom is a demand that has been checked.
func demandFrom(m *stintv1.Demand) *dispatch.Demand {
	d := &dispatch.Demand{Version: m.GetVersion()}
	for _, p := range m.GetPools() {
		d.Pools = append(d.Pools, dispatch.Pool{
			Queues: p.GetQueues(), MaxRuns: int(p.GetMaxRuns()), MaxBytes: p.GetMaxPayloadBytes(),
		})
	}
	return d
}

// claimFrom is what a ClaimJobs asks for, without an instance if it names none.
func claimFrom(m *stintv1.ClaimJobsRequest) (dispatch.ClaimRequest, error) {
	if err := checkClaim(m); err != nil {
		return dispatch.ClaimRequest{}, err
	}
	r := dispatch.ClaimRequest{
		Worker:  m.GetWorker(),
		Queues:  m.GetQueues(),
		Max:     max(1, int(m.GetMaxRuns())),
		Wait:    m.GetWait().AsDuration(),
		Request: m.GetRequestId(),
	}
	if m.GetInstanceId() == "" {
		return r, nil
	}
	var err error
	r.Instance, err = parseID("instance_id", m.GetInstanceId())
	return r, err
}

func drainFrom(m *stintv1.DrainWorkersRequest) (dispatch.DrainNotice, error) {
	notice := dispatch.DrainNotice{Reason: m.GetReason(), Requester: m.GetRequester(), Grace: delayFrom(m.GetGrace())}
	return notice, checkDrain(m)
}

// finishesFrom are finishes with what is wrong with them.
func (s *Server) finishesFrom(ms []*stintv1.Finish) []dispatch.Finish {
	out := make([]dispatch.Finish, len(ms))
	for i, m := range ms {
		out[i].Token = m.GetLeaseToken()
		out[i].Outcome, out[i].Invalid = outcomeFrom(m, s.cfg.MaxPayload)
	}
	return out
}

// outcomeFrom is how a run ended. resultMax bounds a result, in bytes.
func outcomeFrom(m *stintv1.Finish, resultMax int) (job.Outcome, error) {
	switch o := m.GetOutcome().(type) {
	case *stintv1.Finish_Success:
		result, err := resultFrom(o.Success.GetResult(), resultMax)
		return job.Outcome{Success: &job.Success{Result: result}}, err
	case *stintv1.Finish_Failure:
		if err := checkFailure(o.Failure); err != nil {
			return job.Outcome{}, err
		}
		return job.Outcome{Failure: failureFrom(o.Failure)}, nil
	case *stintv1.Finish_Interrupted:
		err := checkStopped("interrupted", o.Interrupted.GetReason(), o.Interrupted.GetDelay())
		return job.Outcome{Stopped: &job.Stopped{
			Reason: o.Interrupted.GetReason(), Delay: delayFrom(o.Interrupted.GetDelay()),
		}}, err
	case *stintv1.Finish_Released:
		err := checkStopped("released", o.Released.GetReason(), o.Released.GetDelay())
		if err == nil {
			err = checkThrottled(o.Released.GetThrottled())
		}
		return job.Outcome{Released: &job.Released{
			Reason: o.Released.GetReason(), Delay: delayFrom(o.Released.GetDelay()), NotMe: o.Released.GetNotMe() != nil,
			Throttle: throttleFrom(o.Released.GetThrottled()),
		}}, err
	default:
		return job.Outcome{}, errOutcomeMissing
	}
}

func checkStopped(arm, reason string, delay *durationpb.Duration) error {
	if err := checkText(arm+".reason", reason, reasonMax); err != nil {
		return err
	}
	return checkDuration(arm+".delay", delay, 0, delayMax)
}

// resultFrom is a success's result; nil if it brings none.
func resultFrom(m *stintv1.Payload, limit int) (*job.Result, error) {
	if m == nil {
		return nil, nil
	}
	if err := checkText("success.result.content_type", m.GetContentType(), contentTypeMax); err != nil {
		return nil, err
	}
	data, contentType, err := payloadContent(m)
	if err != nil {
		if r := asRefusal(err); r != nil {
			moved := *r
			moved.field = "success.result" + strings.TrimPrefix(r.field, "payload")
			err = &moved
		}
		return nil, err
	}
	if len(data) > limit {
		return nil, tooLarge("success.result", "at most %d bytes; this has %d", limit, len(data))
	}
	return &job.Result{Data: data, Size: len(data), ContentType: contentType}, nil
}

// failureFrom is a failure that has been checked, cut to its bound.
func failureFrom(m *stintv1.Failure) *job.Failure {
	f := &job.Failure{
		Class:      job.Class(m.GetClass()),
		Type:       m.GetType(),
		Message:    m.GetMessage(),
		Final:      m.GetFinal(),
		Park:       m.GetPark(),
		RetryDelay: delayFrom(m.GetRetryDelay()),
	}
	if f.Class == 0 {
		f.Class = job.Application
	}
	for _, frame := range m.GetStack() {
		f.Stack = append(f.Stack, job.Frame{Function: frame.GetFunction(), File: frame.GetFile(), Line: frame.GetLine()})
	}
	for _, cause := range m.GetCauses() {
		f.Causes = append(f.Causes, job.Cause{Type: cause.GetType(), Message: cause.GetMessage()})
	}
	if p := m.GetProcess(); p != nil {
		f.Process = &job.ProcessExit{Code: p.GetExitCode(), Signal: p.GetSignal(), StderrTail: p.GetStderrTail()}
	}
	cutFailure(f)
	return f
}

// delayFrom is a duration that may be absent.
func delayFrom(d *durationpb.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	delay := d.AsDuration()
	return &delay
}

// wireAssignment is a run for its worker.
func wireAssignment(a *dispatch.Assignment, payload []byte) *stintv1.Assignment {
	j, spec := a.Job, a.Job.Spec
	return &stintv1.Assignment{
		AssignmentSeq: a.Number,
		LeaseToken:    a.Token,
		JobId:         spec.ID.String(),
		Queue:         spec.Queue,
		Pool:          uint32(a.Pool),
		RunNumber:     j.Run.Number,
		Fence:         j.Run.Fence,
		Payload:       wirePayload(payload, spec.ContentType),
		Priority:      stintv1.Priority(spec.Priority),
		Labels:        spec.Labels,
		Subject:       spec.Subject,
		Lease:         durationpb.New(j.Run.Lease),
		Counters:      wireCounters(j.Counters),
		TraceContext:  wireTrace(spec),
		SubmitTime:    wireTime(j.SubmitTime),
		Timeout:       wireTimeout(j.RunTimeout()),
		LostContact:   stintv1.LostContact(j.Run.LostContact),
		Limits:        wireUses(spec.Limits),
		FairnessKey:   spec.FairnessKey,
	}
}

// The statuses, actions and reasons of the dispatcher on the wire.
var (
	wireStatuses = [...]stintv1.FinishStatus{
		dispatch.AckRecorded:   stintv1.FinishStatus_FINISH_STATUS_RECORDED,
		dispatch.AckDuplicate:  stintv1.FinishStatus_FINISH_STATUS_DUPLICATE,
		dispatch.AckConflict:   stintv1.FinishStatus_FINISH_STATUS_CONFLICT,
		dispatch.AckSuperseded: stintv1.FinishStatus_FINISH_STATUS_SUPERSEDED,
		dispatch.AckUnknown:    stintv1.FinishStatus_FINISH_STATUS_UNKNOWN,
		dispatch.AckRejected:   stintv1.FinishStatus_FINISH_STATUS_REJECTED,
	}
	wireActions = [...]stintv1.VerdictAction{
		dispatch.Continue: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE,
		dispatch.Finished: stintv1.VerdictAction_VERDICT_ACTION_FINISHED,
		dispatch.Stop:     stintv1.VerdictAction_VERDICT_ACTION_STOP,
	}
	wireStops = [...]stintv1.StopReason{
		0:                       stintv1.StopReason_STOP_REASON_UNSPECIFIED,
		dispatch.StopSuperseded: stintv1.StopReason_STOP_REASON_SUPERSEDED,
		dispatch.StopLost:       stintv1.StopReason_STOP_REASON_LOST,
		dispatch.StopAbandoned:  stintv1.StopReason_STOP_REASON_ABANDONED,
		dispatch.StopWithdrawn:  stintv1.StopReason_STOP_REASON_WITHDRAWN,
		dispatch.StopDeleted:    stintv1.StopReason_STOP_REASON_DELETED,
		dispatch.StopUnknown:    stintv1.StopReason_STOP_REASON_UNKNOWN,
	}
)

// wireAcks appends answers to finishes; the first is that of item first of its message.
func (s *Server) wireAcks(to []*stintv1.FinishAck, acks []dispatch.Ack, first int) []*stintv1.FinishAck {
	all := make([]stintv1.FinishAck, len(acks))
	for i := range acks {
		a, m := &acks[i], &all[i]
		m.LeaseToken, m.Status, m.JobState = a.Token, wireStatuses[a.Status], stintv1.JobState(a.State)
		if err := refusedAck(a); err != nil {
			m.Error = s.refuseItem(first+i, err)
		}
		to = append(to, m)
	}
	return to
}

// refusedAck is why a finish did not count; nil if it did, or if another outcome did.
func refusedAck(a *dispatch.Ack) error {
	switch a.Status {
	case dispatch.AckUnknown:
		return errTokenUnknown
	case dispatch.AckSuperseded:
		return errTokenStale
	default:
		return a.Err
	}
}

// interruptAcksFrom is which interrupts a worker acts on.
func interruptAcksFrom(acks []*stintv1.InterruptAck) []dispatch.InterruptAck {
	var out []dispatch.InterruptAck
	for _, a := range acks {
		out = append(out, dispatch.InterruptAck{Token: a.GetLeaseToken(), Generation: a.GetGeneration()})
	}
	return out
}

// wireNews are verdicts that are pushed, and renew nothing.
func wireNews(verdicts []dispatch.Verdict) []*stintv1.Verdict {
	if len(verdicts) == 0 {
		return nil
	}
	out := wireVerdicts(verdicts)
	for _, v := range out {
		v.Lease = nil
	}
	return out
}

func wireVerdicts(verdicts []dispatch.Verdict) []*stintv1.Verdict {
	out := make([]*stintv1.Verdict, len(verdicts))
	left := interruptTexts
	for i, v := range verdicts {
		if left -= len(v.Interrupt.Reason) + len(v.Interrupt.Requester); left < 0 {
			v.Interrupt.Reason, v.Interrupt.Requester = "", ""
		}
		out[i] = &stintv1.Verdict{
			LeaseToken: v.Token,
			Action:     wireActions[v.Action],
			StopReason: wireStops[v.Reason],
			Interrupt:  wireInterrupt(&v.Interrupt, v.Epoch, v.Run),
		}
		if m := out[i].Interrupt; m != nil {
			m.GraceLeft = durationpb.New(v.GraceLeft)
		}
		if v.Action == dispatch.Continue {
			out[i].Lease = durationpb.New(v.Lease)
		}
	}
	return out
}

func wireDrain(n *dispatch.DrainNotice) *stintv1.DrainNotice {
	if n == nil {
		return nil
	}
	m := &stintv1.DrainNotice{Reason: n.Reason}
	if n.Grace != nil {
		m.Grace = durationpb.New(*n.Grace)
	}
	return m
}

func wireWorker(w *dispatch.Worker) *stintv1.Worker {
	m := &stintv1.Worker{
		InstanceId: w.Hello.Instance.String(),
		Worker:     w.Hello.Worker,
		Host:       w.Hello.Host,
		Pid:        w.Hello.PID,
		Labels:     w.Hello.Labels,
		BuildId:    w.Hello.Build,
		Sdk:        w.Hello.SDK,
		Connected:  w.Connected,
		Since:      wireTime(w.Since),
		HeardTime:  wireTime(w.Heard),
		Runs:       uint32(w.Runs),
		Zombies:    uint32(w.Zombies),
		Draining:   w.Drain != nil,
	}
	for _, p := range w.Pools {
		m.Pools = append(m.Pools, &stintv1.Pool{Queues: p.Queues, MaxRuns: uint32(p.MaxRuns), MaxPayloadBytes: p.MaxBytes})
	}
	if w.Drain != nil {
		m.DrainReason = w.Drain.Reason
	}
	return m
}
