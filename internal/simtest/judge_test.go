package simtest

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// noRoom is why the SDK gives a run back that it has no room for.
const noRoom = "the worker has no room for it"

// finishes notes what workers send.
func (w *witness) finishes(finishes []*stintv1.Finish) {
	for _, f := range finishes {
		r := w.leases[f.GetLeaseToken()]
		if r == nil {
			w.blame("a finish is sent of a run that was never assigned")
			continue
		}
		if f.GetReleased().GetReason() == noRoom {
			w.blame("run %d of job %s was assigned beyond the worker's demand", r.number, r.life.id)
		}
		r.over, r.finish = true, f
	}
}

// lists notes that a worker lists what it holds: of what it had by its stream, the rest is gone.
func (w *witness) lists(instance string, held []string) {
	for _, r := range w.leases {
		if r.instance == instance && !slices.Contains(held, r.token) {
			r.over = true
		}
	}
}

// assigns judges an assignment: of a job that was submitted, as it was submitted, with a fence that no other run has, to
// one worker at a time.
func (w *witness) assigns(instance string, a *stintv1.Assignment) {
	l := w.life(a.GetJobId())
	switch spec := l.spec; {
	case spec == nil:
		w.blame("job %s was assigned and never submitted", l.id)
	case !bytes.Equal(a.GetPayload().GetData(), spec.GetPayload().GetData()) || a.GetQueue() != spec.GetQueue() ||
		!maps.Equal(a.GetLabels(), spec.GetLabels()):
		w.blame("job %s was submitted as %v and assigned as %v", l.id, spec, a)
	}
	l.known.hear(w.clock, 1)
	if old := w.fences[a.GetFence()]; old != nil {
		if old.token != a.GetLeaseToken() || old.life != l {
			w.blame("fence %d was given to a run of job %s and to one of job %s", a.GetFence(), old.life.id, l.id)
		}
		return
	}
	r := &lease{
		life: l, token: a.GetLeaseToken(), fence: a.GetFence(), number: a.GetRunNumber(), instance: instance,
		received: w.now().time,
	}
	for _, other := range l.leases {
		if cmp.Compare(other.fence, r.fence) != cmp.Compare(other.number, r.number) {
			w.blame("run %d of job %s has fence %d, run %d has %d", r.number, l.id, r.fence, other.number, other.fence)
		}
	}
	w.leases[r.token], w.fences[r.fence] = r, r
	l.leases = append(l.leases, r)
	l.assigned.hear(w.clock, r.fence)
	w.alone(l)
}

// alone judges that no run was assigned while an older one of the same job had its lease.
func (w *witness) alone(l *life) {
	for _, old := range l.leases {
		for _, young := range l.leases {
			if until := l.leased(old); old.fence < young.fence && !old.over && young.received.Before(until) {
				w.blame("job %s: run %d was assigned although run %d had its lease for another %s",
					l.id, young.number, old.number, until.Sub(young.received))
			}
		}
	}
}

// judges judges verdicts on what was listed.
func (w *witness) judges(asked moment, listed []string, verdicts []*stintv1.Verdict) {
	if len(listed) != len(verdicts) {
		w.blame("%d runs were listed and %d judged", len(listed), len(verdicts))
		return
	}
	for i, v := range verdicts {
		r := w.leases[listed[i]]
		if r == nil || v.GetLeaseToken() != r.token {
			w.blame("verdict %v is not on what was listed", v)
			continue
		}
		w.verdict(asked, r, v)
	}
}

func (w *witness) verdict(asked moment, r *lease, v *stintv1.Verdict) {
	l := r.life
	who := fmt.Sprintf("run %d of job %s", r.number, l.id)
	switch v.GetAction() {
	case stintv1.VerdictAction_VERDICT_ACTION_CONTINUE:
		switch {
		case r.ended.by(asked) > 0:
			w.blame("%s was over and is told to CONTINUE", who)
		case r.recorded.by(asked) > 0 || l.succeeded.by(asked) > 0:
			w.blame("%s is told to CONTINUE although its end is recorded", who)
		case l.assigned.by(asked) > r.fence:
			w.blame("%s is told to CONTINUE although a newer run was assigned", who)
		}
		w.raised(asked, r, v.GetInterrupt())
		l.accepted.hear(w.clock, 1)
		if until := asked.time.Add(v.GetLease().AsDuration()); until.After(r.until) {
			r.until = until
		}
		w.alone(l)
	case stintv1.VerdictAction_VERDICT_ACTION_FINISHED:
		if r.finish == nil {
			w.blame("%s is FINISHED and its worker has not said so", who)
		}
		r.ended.hear(w.clock, 1)
	case stintv1.VerdictAction_VERDICT_ACTION_STOP:
		if r.recorded.by(asked) > 0 {
			w.blame("%s is told to STOP (%s) although its finish is recorded", who, v.GetStopReason())
		}
		r.over = true
		r.ended.hear(w.clock, 1)
	default:
		w.blame("%s is judged %v", who, v)
	}
}

// acts notes which interrupts workers say they act on.
func (w *witness) acts(acks []*stintv1.InterruptAck) {
	for _, a := range acks {
		if r := w.leases[a.GetLeaseToken()]; r != nil {
			r.acted = max(r.acted, uint64(a.GetGeneration()))
		}
	}
}

// pushed judges what comes without being asked for: it is about a run of the worker and as new as what it was told.
func (w *witness) pushed(verdicts []*stintv1.Verdict) {
	for _, v := range verdicts {
		r := w.leases[v.GetLeaseToken()]
		switch {
		case r == nil:
			w.blame("verdict %v is on a run that was never assigned", v)
		case v.GetLease() != nil:
			w.blame("verdict %v was pushed and renews a lease", v)
		case v.GetAction() == stintv1.VerdictAction_VERDICT_ACTION_CONTINUE && v.GetInterrupt() != nil:
			w.raised(w.now(), r, v.GetInterrupt())
		case v.GetAction() == stintv1.VerdictAction_VERDICT_ACTION_STOP:
			w.verdict(w.now(), r, v)
		default:
			w.blame("verdict %v was pushed", v)
		}
	}
}

// raised judges the level that a run is told: it never falls, and a CANCEL that anybody was told of holds for every run.
// Only what the worker has acknowledged need not be repeated: an answer may come behind a newer word than it was judged by.
func (w *witness) raised(asked moment, r *lease, in *stintv1.Interrupt) {
	if in == nil && r.acted > 0 && r.acted >= r.told.by(asked) {
		return
	}
	r.told.hear(w.clock, uint64(in.GetGeneration()))
	level := uint64(in.GetLevel())
	if told := r.level.by(asked); level < told {
		w.blame("run %d of job %s: its level fell from %d to %d", r.number, r.life.id, told, level)
	}
	w.keeps(asked, r.life, in.GetLevel())
	r.level.hear(w.clock, level)
}

// acknowledges judges the answer to a finish.
func (w *witness) acknowledges(asked moment, f *stintv1.Finish, ack *stintv1.FinishAck) {
	r := w.leases[f.GetLeaseToken()]
	if r == nil || ack.GetLeaseToken() != r.token {
		w.blame("finish %v was answered with %v", f, ack)
		return
	}
	l := r.life
	who := fmt.Sprintf("the %s of run %d of job %s", ending(f), r.number, l.id)
	switch ack.GetStatus() {
	case stintv1.FinishStatus_FINISH_STATUS_RECORDED:
		switch {
		case len(r.recorded) > 0 || l.recorded.by(asked) >= r.fence:
			w.blame("%s was RECORDED after it, or the end of a newer run, had been", who)
		case l.assigned.by(asked) > r.fence:
			w.blame("%s was RECORDED although a newer run was assigned", who)
		case l.succeeded.by(asked) > 0:
			w.blame("%s was RECORDED although the job had succeeded", who)
		case f.GetSuccess() != nil && ack.GetJobState() != stintv1.JobState_JOB_STATE_SUCCEEDED:
			w.blame("%s was RECORDED and the job is %s", who, ack.GetJobState())
		}
		l.recorded.hear(w.clock, r.fence)
		fallthrough
	case stintv1.FinishStatus_FINISH_STATUS_DUPLICATE:
		if r.passed.by(asked) > 0 {
			w.blame("%s was SUPERSEDED and is %s", who, ack.GetStatus())
		}
		r.recorded.hear(w.clock, 1)
		r.ended.hear(w.clock, 1)
	case stintv1.FinishStatus_FINISH_STATUS_SUPERSEDED:
		if r.recorded.by(asked) > 0 {
			w.blame("%s was recorded and is SUPERSEDED", who)
		}
		r.passed.hear(w.clock, 1)
		r.ended.hear(w.clock, 1)
	default:
		w.blame("%s was answered %v", who, ack)
	}
	w.stands(asked, l, ack.GetJobState())
}

// ending is how a finish ends its run.
func ending(f *stintv1.Finish) stintv1.RunState {
	switch f.GetOutcome().(type) {
	case *stintv1.Finish_Success:
		return stintv1.RunState_RUN_STATE_SUCCEEDED
	case *stintv1.Finish_Failure:
		return stintv1.RunState_RUN_STATE_FAILED
	case *stintv1.Finish_Interrupted:
		return stintv1.RunState_RUN_STATE_INTERRUPTED
	case *stintv1.Finish_Released:
		return stintv1.RunState_RUN_STATE_RELEASED
	default:
		return stintv1.RunState_RUN_STATE_UNSPECIFIED
	}
}

// shows judges a job as a read shows it, and keeps it.
func (w *witness) shows(asked moment, j *stintv1.Job, view stintv1.JobView) {
	l := w.life(j.GetId())
	version := versionOf(j)
	if told := l.versions.by(asked); version < told {
		w.blame("job %s went back from version %d to %d", l.id, told, version)
	}
	w.stands(asked, l, j.GetState())
	if j.GetState() == stintv1.JobState_JOB_STATE_EXPIRED && l.accepted.by(asked) > 0 {
		w.blame("job %s was accepted in time and is EXPIRED: %v", l.id, j)
	}
	if r := w.fences[j.GetRun().GetFence()]; r != nil {
		r.level.hear(w.clock, uint64(j.GetInterrupt().GetLevel()))
	}
	w.keeps(asked, l, j.GetInterrupt().GetLevel())
	if w.rule != nil {
		if err := w.rule(j); err != nil {
			w.blame("job %s: %v: %v", l.id, err, j)
		}
	}
	if view == stintv1.JobView_JOB_VIEW_FULL {
		w.remembers(asked, l, j)
	}
	w.follows(l, j)
	l.known.hear(w.clock, 1)
	l.versions.hear(w.clock, version)
}

// versionOf reads the etag, which clients must not.
func versionOf(j *stintv1.Job) uint64 {
	var seq, version uint64
	if n, err := fmt.Sscanf(j.GetEtag(), "%x-%x", &seq, &version); n != 2 || err != nil {
		return 0
	}
	return version
}

// historyMax is how many runs a history keeps; of more it drops those in the middle.
const historyMax = 200

// remembers judges that a job is shown as it was submitted, with every end of its runs that was acknowledged.
func (w *witness) remembers(asked moment, l *life, j *stintv1.Job) {
	if !bytes.Equal(j.GetPayload().GetData(), l.spec.GetPayload().GetData()) || j.GetQueue() != l.spec.GetQueue() {
		w.blame("job %s was submitted as %v and is shown as %v", l.id, l.spec, j)
	}
	for _, r := range l.leases {
		if r.recorded.by(asked) == 0 || j.GetRunCount() > historyMax {
			continue
		}
		i := slices.IndexFunc(j.GetHistory(), func(h *stintv1.Run) bool { return h.GetFence() == r.fence })
		if i < 0 || j.GetHistory()[i].GetState() != ending(r.finish) {
			w.blame("job %s: run %d was acknowledged as %s: %v", l.id, r.number, ending(r.finish), j)
		}
	}
}

// follows judges a sight of a job by its neighbours in the order of versions.
func (w *witness) follows(l *life, j *stintv1.Job) {
	j = sight(j)
	i, known := slices.BinarySearchFunc(l.sights, versionOf(j), func(s *stintv1.Job, v uint64) int { return cmp.Compare(versionOf(s), v) })
	if known {
		if !proto.Equal(l.sights[i], j) {
			w.blame("job %s: one version was shown as %v and as %v", l.id, l.sights[i], j)
		}
		return
	}
	l.sights = slices.Insert(l.sights, i, j)
	if i > 0 {
		w.succession(l.sights[i-1], j)
	}
	if i+1 < len(l.sights) {
		w.succession(j, l.sights[i+1])
	}
}

// succession judges two versions of a job, of which b is the newer.
func (w *witness) succession(a, b *stintv1.Job) {
	const cancel, retry = stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL, stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY
	sameEpoch := a.GetEpoch() == b.GetEpoch()
	sameRun := a.GetRun() != nil && a.GetRun().GetFence() == b.GetRun().GetFence()
	was, is := a.GetInterrupt().GetLevel(), b.GetInterrupt().GetLevel()
	wrong := ""
	switch {
	case a.GetSequence() != b.GetSequence() || !a.GetSubmitTime().AsTime().Equal(b.GetSubmitTime().AsTime()):
		wrong = "was made anew"
	case b.GetEpoch() < a.GetEpoch() || b.GetRunCount() < a.GetRunCount():
		wrong = "went back"
	case sameEpoch && terminal(a.GetState()) && a.GetState() != b.GetState():
		wrong = "came back from its end"
	case sameEpoch && operators(a) && !operators(b) && b.GetState() != stintv1.JobState_JOB_STATE_CANCELLED && !w.life(a.GetId()).reopened:
		wrong = "was parked by an operator and let go by nobody"
	case sameEpoch && was == cancel && is != cancel, sameRun && was >= retry && is < was:
		wrong = "was interrupted less"
	}
	if wrong != "" {
		w.blame("job %s %s: %v, then %v", a.GetId(), wrong, a, b)
	}
}

// operators reports whether an operator has parked the job.
func operators(j *stintv1.Job) bool {
	return j.GetParkReason() == stintv1.ParkReason_PARK_REASON_OPERATOR
}

func terminal(s stintv1.JobState) bool { return s >= stintv1.JobState_JOB_STATE_SUCCEEDED }
