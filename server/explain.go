package server

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// explainHolders is how many of those who have something are named.
const explainHolders = 10

// ExplainJob says why a job is not running. It looks in a transaction, so that all it tells is of one moment.
func (s *Server) ExplainJob(ctx context.Context, m *stintv1.ExplainJobRequest) (*stintv1.ExplainJobResponse, error) {
	id, err := parseID("id", m.GetId())
	if err != nil {
		return nil, err
	}
	var answer *stintv1.ExplainJobResponse
	err = s.store.Update(ctx, func(tx store.Tx) error {
		found, err := tx.Find([]job.ID{id})
		if err != nil {
			return err
		}
		j := found[0].Job
		if j == nil {
			return errJobNotFound
		}
		x := explainer{r: tx, j: j, queue: tx.Queue(j.Spec.Queue)}
		if x.known, err = s.dispatch.Explain(tx, j); err != nil {
			return err
		}
		answer = x.explain()
		return nil
	})
	return answer, err
}

// explainer explains one job.
type explainer struct {
	r        store.Reader
	j        *job.Job
	queue    *store.Queue // nil: it was deleted
	known    dispatch.Explanation
	blockers []*stintv1.Blocker
	brief    bool // it names no holders: to look for them takes time
}

func (x *explainer) explain() *stintv1.ExplainJobResponse {
	answer := &stintv1.ExplainJobResponse{
		Id: x.j.Spec.ID.String(), State: stintv1.JobState(x.j.State), StartedLastMinute: x.known.Started, AsOf: wireTime(x.r.Now()),
	}
	switch {
	case x.j.State == job.Running:
		answer.Summary = fmt.Sprintf("it is running on %q since %s", x.j.Run.Worker, clock(x.j.Run.DispatchTime))
		return answer
	case x.j.State.Terminal():
		x.terminal()
	case x.j.State == job.Parked:
		x.add(stintv1.BlockerKind_BLOCKER_KIND_PARKED, x.retry(), "it is parked: %s", parkText(x.j))
	case x.j.State == job.Ready:
		answer.Ahead, answer.AheadIsEstimate = x.known.Ahead, !x.known.Counted
		if x.known.Started > 0 {
			answer.EstimatedWait = durationpb.New(time.Duration(x.known.Ahead) * time.Minute / time.Duration(x.known.Started)) //nolint:gosec // jobs
		}
		x.queued()
		x.limits()
		x.gates()
		x.workers()
	default:
		b := x.add(stintv1.BlockerKind_BLOCKER_KIND_TIME, x.retry(), "it waits until %s", clock(x.j.DueTime))
		b.Until = wireTime(x.j.DueTime)
		if x.j.State == job.Scheduled {
			b.Commands = append(b.Commands, x.update()+" --now")
		}
		x.queued()
		x.limits()
		x.gates()
		x.workers()
	}
	answer.Blockers = x.blockers
	if answer.Summary = "it has come to its turn"; len(x.blockers) > 0 {
		answer.Summary = x.blockers[0].GetText()
	} else if x.known.Ahead > 0 {
		answer.Summary = many(x.known.Ahead, "job") + " before it"
	}
	return answer
}

func (x *explainer) add(kind stintv1.BlockerKind, command, text string, args ...any) *stintv1.Blocker {
	b := &stintv1.Blocker{Kind: kind, Text: fmt.Sprintf(text, args...)}
	if command != "" {
		b.Commands = []string{command}
	}
	x.blockers = append(x.blockers, b)
	return b
}

func (x *explainer) retry() string { return "stint job retry " + x.j.Spec.ID.String() }

func (x *explainer) update() string { return "stint job update " + x.j.Spec.ID.String() }

func (x *explainer) terminal() {
	command := x.retry()
	if x.j.State == job.Succeeded {
		command = ""
	}
	x.add(stintv1.BlockerKind_BLOCKER_KIND_TERMINAL, command, "it ended %s at %s",
		short(stintv1.JobState(x.j.State).String(), "JOB_STATE_"), clock(x.j.EndTime))
}

// queued adds what the job's queue has against it.
func (x *explainer) queued() {
	q, name := x.queue, x.j.Spec.Queue
	if q == nil {
		return
	}
	if p := q.Pause; p != nil {
		text := fmt.Sprintf("queue %q is paused since %s", name, clock(p.Time))
		if p.Requester != "" {
			text += " by " + p.Requester
		}
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		x.add(stintv1.BlockerKind_BLOCKER_KIND_PAUSED, "stint queue resume "+name, "%s", text)
	}
	running := q.Counts[job.Running]
	if q.Policy.Room(running, q.Zombies) > 0 {
		return
	}
	zombies := ""
	if q.Policy.OnZombie != job.OnZombieRelease && q.Zombies > 0 {
		zombies = fmt.Sprintf(", and %d left behind that may still be at work", q.Zombies)
		running += q.Zombies
	}
	b := x.add(stintv1.BlockerKind_BLOCKER_KIND_MAX_RUNNING, fmt.Sprintf("stint queue set %s --max-running %d", name, running+1),
		"queue %q has %s%s, of at most %d", name, many(q.Counts[job.Running], "run"), zombies, q.Policy.MaxRunning)
	b.JobIds = x.holders(func(o *job.Job) bool { return o.Spec.Queue == name })
}

// holders are some of the running jobs that has is true of.
func (x *explainer) holders(has func(*job.Job) bool) (ids []string) {
	if x.brief {
		return nil
	}
	x.r.Running(func(o *job.Job) bool {
		if has(o) {
			ids = append(ids, o.Spec.ID.String())
		}
		return len(ids) < explainHolders
	})
	return ids
}

// limits adds the keys that have no room for the job.
func (x *explainer) limits() {
	for _, k := range x.known.Keys {
		units, taken := uint64(k.Use.Units), k.Live+k.Zombies
		name := keyName(k.Use)
		var b *stintv1.Blocker
		switch {
		case k.Max == 0:
			continue
		case units > k.Max:
			b = x.add(stintv1.BlockerKind_BLOCKER_KIND_LIMIT_TOO_LOW, x.raise(k.Use, taken+units),
				"it takes %s of %s, whose maximum is %d now", many(units, "unit"), name, k.Max)
			b.Commands = append(b.Commands, x.takeLess())
		case k.Rate.Permits > 0 && k.Use.Units > k.Rate.Most():
			b = x.add(stintv1.BlockerKind_BLOCKER_KIND_LIMIT_TOO_LOW, x.gather(k),
				"it takes %s of %s, of which at most %s gather now", many(units, "unit"), name, many(uint64(k.Rate.Most()), "permit"))
		case taken+units > k.Max:
			b = x.add(stintv1.BlockerKind_BLOCKER_KIND_LIMIT, x.raise(k.Use, taken+units),
				"it takes %s of %s, of which %d of at most %d are taken", many(units, "unit"), name, taken, k.Max)
			b.JobIds = x.holders(func(o *job.Job) bool { return uses(o, k.Use) })
		case k.Kept > 0 && k.Max-taken < k.Kept+units:
			b = x.add(stintv1.BlockerKind_BLOCKER_KIND_RESERVED, x.raise(k.Use, taken+k.Kept+units),
				"what is free of %s is kept for job %s, which waits for more", name, k.For)
			b.JobIds = []string{k.For.String()}
		default:
			continue
		}
		b.Limit, b.Key = k.Use.Limit, k.Use.Key
	}
}

func keyName(u job.LimitUse) string {
	if u.Key == "" {
		return fmt.Sprintf("limit %q", u.Limit)
	}
	return fmt.Sprintf("key %q of limit %q", u.Key, u.Limit)
}

func uses(j *job.Job, use job.LimitUse) bool {
	for _, u := range j.Taken() {
		if u.Limit == use.Limit && u.Key == use.Key {
			return true
		}
	}
	return false
}

// takeLess is the command that has the job take no more of any key than there is. Limits that were deleted bind nobody and
// cannot be named any more.
func (x *explainer) takeLess() string {
	words := []string{x.update()}
	for _, k := range x.known.Keys {
		if k.Max == 0 {
			continue
		}
		use := fmt.Sprintf("%s*%d", k.Use.Limit, min(uint64(k.Use.Units), k.Max))
		if k.Use.Key != "" {
			use += "=" + k.Use.Key
		}
		words = append(words, "--limit", shellQuote(use))
	}
	return strings.Join(words, " ")
}

// raise is the command that lets a key have so many units.
func (x *explainer) raise(use job.LimitUse, most uint64) string {
	if most > math.MaxUint32 {
		return "" // there is no such maximum
	}
	l := x.r.Limit(use.Limit)
	own := l != nil && slices.ContainsFunc(l.Policy.Keys, func(k job.KeyMax) bool { return k.Key == "" })
	if use.Key == "" && !own {
		return fmt.Sprintf("stint limit put %s --max %d", use.Limit, most)
	}
	return fmt.Sprintf("stint limit put %s --key %s", use.Limit, shellQuote(fmt.Sprintf("%s=%d", use.Key, most)))
}

// gather is the command that lets as many permits gather as the job takes.
func (x *explainer) gather(k dispatch.KeyState) string {
	if k.Use.Units > job.RateBurstMax {
		return ""
	}
	rate := fmt.Sprintf("%d/%s,burst=%d", k.Rate.Permits, k.Rate.Period, k.Use.Units)
	if k.OwnRate {
		return fmt.Sprintf("stint limit put %s --key-rate %s", k.Use.Limit, shellQuote(k.Use.Key+"="+rate))
	}
	return fmt.Sprintf("stint limit put %s --rate %s", k.Use.Limit, shellQuote(rate))
}

// workers adds what there is to say of those who could run the job.
func (x *explainer) workers() {
	name, e := x.j.Spec.Queue, &x.known
	command := fmt.Sprintf("stint work %s -- CMD", name)
	switch {
	case e.Pools == 0:
		x.add(stintv1.BlockerKind_BLOCKER_KIND_NO_WORKER, command, "no worker is there for queue %q", name)
	case e.Room == 0:
		x.add(stintv1.BlockerKind_BLOCKER_KIND_WORKERS_BUSY, command, "no worker of queue %q has room", name)
	case e.Room == e.Avoided:
		x.add(stintv1.BlockerKind_BLOCKER_KIND_NOT_ME, command, "the worker that has room gave it back; it does not go there before %s",
			clock(x.j.AvoidUntil)).Until = wireTime(x.j.AvoidUntil)
	}
}

func parkText(j *job.Job) string {
	text := short(stintv1.ParkReason(j.ParkReason).String(), "PARK_REASON_")
	if i := j.Interrupted(); i.Park && i.Reason != "" {
		text += ", " + i.Reason
	}
	return text
}

func short(name, prefix string) string { return strings.TrimPrefix(name, prefix) }

// clock is a time as texts show it.
func clock(t time.Time) string { return t.Format(time.RFC3339) }

// shellQuote is a word as a shell takes it.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/=") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
