package dispatch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// TestRandomLives lets workers of all kinds, good and bad, do what they like for a while, over restarts and a disk that
// hangs. No worker ever gets more than it has room for, and no job has two live runs. Once all workers behave, every job
// ends, and none ends twice.
func TestRandomLives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 100).Draw(rt, "n")
		steps := rapid.SliceOfN(anyStep, n, n).Draw(rt, "steps")
		var failed error
		synctest.Test(t, func(t *testing.T) { failed = live(t, steps) })
		if failed != nil {
			rt.Fatal(failed)
		}
	})
}

// step is one thing that happens. Its numbers choose among what there is to choose from.
type step struct {
	What string
	A, B int
}

var anyStep = rapid.Custom(func(r *rapid.T) step {
	return step{
		What: rapid.SampledFrom([]string{
			"submit", "submit", "pass", "pass", "connect", "demand", "take", "take", "take", "report", "report",
			"finish", "finish", "finish", "take unseen", "lose", "cut", "crash", "forget", "finish unheard",
			"claim", "claim", "cancelled claim", "repeated claim", "choose", "choose", "choose", "beat", "end", "end", "interrupt", "drain", "stall", "restart", "limit",
			"update", "update", "gate", "gate", "open",
		}).Draw(r, "what"),
		A: rapid.IntRange(0, 9).Draw(r, "a"), B: rapid.IntRange(0, 9).Draw(r, "b"),
	}
})

// live plays the steps and then lets everything come to its end.
func live(t *testing.T, steps []step) (err error) {
	watch := &watch{TB: t}
	w := &world{rig: newRig(watch), successes: map[uint64]int{}, fences: map[uint64]bool{}, taken: map[job.LimitUse]uint64{}}
	for _, name := range randomLimits {
		w.bound(name, job.LimitPolicy{Max: 2})
	}
	defer w.close()
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failed)
			if !ok {
				panic(p)
			}
			err = f
		}
	}()
	for i := range w.processes {
		w.processes[i] = w.process()
	}
	for i := range w.callers {
		w.callers[i] = w.process()
	}
	for i, s := range steps {
		w.now = fmt.Sprintf("step %d, %+v", i, s)
		w.play(s)
		w.checkLimits()
		if err := w.d.CheckTurns(); err != nil {
			w.fatalf("%v", err)
		}
		watch.check()
	}
	w.now = "in the end"
	w.finishAll()
	watch.check()
	return nil
}

// watch turns the failures of a test into an error, so that a shorter way to it can be looked for.
type watch struct {
	testing.TB
	mu   sync.Mutex
	seen []string
}

type failed struct{ what string }

func (f failed) Error() string { return f.what }

func (w *watch) Helper()                       {}
func (w *watch) Fatal(args ...any)             { panic(failed{fmt.Sprintln(args...)}) }
func (w *watch) Fatalf(form string, a ...any)  { panic(failed{fmt.Sprintf(form, a...)}) }
func (w *watch) Error(args ...any)             { w.note(fmt.Sprintln(args...)) }
func (w *watch) Errorf(form string, as ...any) { w.note(fmt.Sprintf(form, as...)) }

func (w *watch) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, what)
}

func (w *watch) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seen) > 0 {
		panic(failed{fmt.Sprint(w.seen)})
	}
}

// world is a rig and everybody who uses it.
type world struct {
	*rig
	now       string
	processes [3]*process // they hold streams
	callers   [2]*process // they make calls
	instances byte
	successes map[uint64]int // recorded ones, by job
	fences    map[uint64]bool
	taken     map[job.LimitUse]uint64 // of each key, by the step before
}

// process is a worker as it sees itself.
type process struct {
	instance byte
	stream   *stream // nil: it is not connected
	resume   string
	held     []dispatch.Assignment
	demands  []dispatch.Demand // from the one echoed last on
	requests int
}

var (
	randomQueues = []string{"a", "b", "c"}
	randomLimits = []string{"l", "m"}
	// randomUses are what jobs take, never more than the smallest maximum.
	randomUses = [][]job.LimitUse{
		nil, nil, {use("l", "", 1)}, {use("l", "", 1), use("m", "", 1)}, {use("m", "", 1), use("m", "k", 1)}, {use("l", "", 2), use("m", "k", 1)},
	}
)

// checkLimits sees that no key is taken beyond its maximum; of one that was lowered, not more than before.
func (w *world) checkLimits() {
	synctest.Wait()
	for _, name := range randomLimits {
		w.update(func(tx store.Tx) error {
			tx.EachKey(name, func(k *store.Key) {
				key := use(name, k.Name, 0)
				now, most := k.Live+k.Zombies, uint64(k.Limit.Policy.MaxOf(k.Name))
				if now > most && now > w.taken[key] {
					w.t.Errorf("key %q of %s has %d units taken of %d, and had %d", k.Name, name, now, most, w.taken[key])
				}
				w.taken[key] = now
			})
			return nil
		})
	}
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Fatalf("%s: %s", w.now, fmt.Sprintf(format, args...))
}

func (w *world) process() *process {
	w.instances++
	return &process{instance: w.instances}
}

func (w *world) play(s step) {
	switch s.What {
	case "limit":
		w.bound(randomLimits[s.A%2], job.LimitPolicy{Max: uint32(2 + s.B%2)}) //nolint:gosec // 2 or 3
	case "submit":
		for range s.B + 1 {
			spec := w.spec(randomQueues[s.A%3])
			spec.Priority = job.Priority(10 * (1 + s.B%5))
			spec.Limits = randomUses[(s.A+s.B)%len(randomUses)]
			spec.FairnessKey = []string{"", "x", "y"}[s.A*s.B%3]
			spec.Lease = []time.Duration{5 * time.Second, 12 * time.Second, 30 * time.Second}[s.A/4]
			spec.Retry = &job.RetryPolicy{MaxAttempts: job.MaxAttempts}
			w.submit(spec)
		}
	case "pass":
		w.pass([]time.Duration{1, time.Millisecond, time.Second, 3 * time.Second, 7 * time.Second, 12 * time.Second, 35 * time.Second, 6 * time.Minute}[(s.A+s.B)%8])
	case "interrupt":
		w.interruptSome(s)
	case "update":
		w.updateSome(s)
	case "gate":
		w.gateSome(s)
	case "open":
		w.d.OpenGate([]store.GateName{{Name: "a"}, {Name: "b"}, {Limit: "l"}, {Limit: "m"}, {Limit: "m", Name: "k"}}[s.A%5])
	case "restart":
		for _, p := range w.processes {
			p.stream = nil
		}
		w.restart()
	case "choose":
		w.chooseSome(s, w.callers[s.A%2])
	case "claim", "cancelled claim", "repeated claim", "beat", "end":
		w.call(s, w.callers[s.A%2])
	case "crash":
		p := w.processes[s.A%3]
		w.cut(p)
		w.processes[s.A%3], w.callers[s.A%2] = w.process(), w.process()
	default:
		p := w.processes[s.A%3]
		if !p.connected() {
			w.connect(p)
			w.want(p, 6)
		}
		w.talk(s, p)
	}
}

// connected notices that the stream was ended by the server.
func (p *process) connected() bool {
	if p.stream != nil && p.stream.Err() != nil {
		p.stream = nil
	}
	return p.stream != nil
}

func (w *world) cut(p *process) {
	if p.stream != nil {
		p.stream.Close()
		p.stream = nil
	}
}

// connect opens a session, taking over from the one before.
func (w *world) connect(p *process) {
	h := hello(p.instance, p.held...)
	h.ResumeToken = p.resume
	p.stream, p.demands = w.open(h), nil
	p.resume = p.stream.welcome.ResumeToken
	w.obey(p, p.stream.welcome.Verdicts)
}

// obey drops what the verdicts say is over.
func (w *world) obey(p *process, verdicts []dispatch.Verdict) {
	for _, v := range verdicts {
		if v.Action != dispatch.Continue {
			p.drop(v.Token)
		}
	}
}

func (p *process) drop(token string) {
	p.held = slices.DeleteFunc(p.held, func(a dispatch.Assignment) bool { return a.Token == token })
}

// talk is what happens on a stream.
func (w *world) talk(s step, p *process) {
	switch s.What {
	case "connect":
		w.connect(p)
	case "demand":
		w.want(p, s.B)
	case "take":
		w.receive(p)
		p.stream.see()
	case "take unseen":
		w.receive(p)
	case "lose":
		p.stream.take()
		w.cut(p)
	case "cut":
		w.cut(p)
	case "forget":
		p.held = p.held[min(1, len(p.held)):]
	case "report":
		w.obey(p, p.stream.say(dispatch.Message{Seen: p.stream.last, Report: true, Held: tokensOf(p.held)}).Verdicts)
	case "finish":
		w.count(p, p.stream.finish(outcome(s.B), p.some(s.B)...))
	case "finish unheard":
		held := slices.Clone(p.held)
		w.count(p, p.stream.finish(outcome(s.B), p.some(s.B)...))
		p.held = held // the acknowledgement is lost
		w.cut(p)
	case "drain":
		w.d.Drain([]job.ID{{p.instance}}, dispatch.DrainNotice{Grace: new(time.Duration)})
	case "stall":
		resume := w.hang("a")
		answer := p.stream.post(dispatch.Message{Seen: p.stream.last, Report: true, Held: tokensOf(p.held)})
		w.pass(time.Duration(s.B*s.B) * time.Second)
		resume()
		w.obey(p, (<-answer).Verdicts)
	}
}

// some are up to n of the held runs.
func (p *process) some(n int) []dispatch.Assignment {
	return slices.Clone(p.held[:min(1+n, len(p.held))])
}

func outcome(n int) job.Outcome {
	switch n {
	case 0, 1, 9:
		return failure()
	case 2:
		return released(job.Released{NotMe: true})
	case 3:
		return released(job.Released{})
	case 4:
		return job.Outcome{Stopped: &job.Stopped{}}
	default:
		return success()
	}
}

// want makes a demand of one or two pools, sometimes of none.
func (w *world) want(p *process, n int) {
	pools := [][]dispatch.Pool{
		nil,
		{room(1, "a")},
		{room(3, "a", "b")},
		{room(2, "b"), room(2, "a", "c")},
		{room(2, "c", "a"), room(4, "b")},
		{room(0, "a"), room(1, "b")},
		{room(9, "a", "b", "c")},
		{room(3, "b", "a")},
		{room(1, "c")},
		{room(5, "a"), room(5, "c")},
	}[n]
	p.stream.demand(pools...)
	p.demands = append(p.demands, dispatch.Demand{Version: p.stream.version, Pools: pools})
}

// receive takes what the server sends, and looks whether there was room for it.
func (w *world) receive(p *process) {
	synctest.Wait()
	for more := true; more; {
		out := p.stream.Take(700)
		for _, a := range out.Assignments {
			if a.Number != p.stream.last+1 {
				w.fatalf("assignment %d follows %d", a.Number, p.stream.last)
			}
			p.stream.last = a.Number
			w.got(p, a)
			if !slices.ContainsFunc(p.demands, func(d dispatch.Demand) bool { return p.fits(d, a) }) {
				w.fatalf("worker %d holds %d runs with that of job %d, and asked for %+v", p.instance, len(p.held), a.Job.Seq, p.demands)
			}
		}
		p.demands = slices.DeleteFunc(p.demands, func(d dispatch.Demand) bool { return d.Version < out.Demand })
		more = out.More
	}
}

// got takes a run that nobody had before.
func (w *world) got(p *process, a dispatch.Assignment) {
	fence := a.Job.Run.Fence
	if w.fences[fence] {
		w.fatalf("the run with fence %d was handed out before", fence)
	}
	w.fences[fence] = true
	p.held = append(p.held, a)
}

// fits reports whether the demand had room for the run, counting it.
func (p *process) fits(d dispatch.Demand, a dispatch.Assignment) bool {
	i := slices.IndexFunc(d.Pools, func(pool dispatch.Pool) bool { return slices.Contains(pool.Queues, a.Job.Spec.Queue) })
	if i < 0 {
		return false
	}
	n := 0
	for _, h := range p.held {
		if slices.Contains(d.Pools[i].Queues, h.Job.Spec.Queue) {
			n++
		}
	}
	return n <= d.Pools[i].MaxRuns
}

// count counts what was recorded, and drops what was acknowledged.
func (w *world) count(p *process, acks []dispatch.Ack) {
	for _, ack := range acks {
		i := slices.IndexFunc(p.held, func(a dispatch.Assignment) bool { return a.Token == ack.Token })
		if ack.Status == dispatch.AckRecorded && ack.State == job.Succeeded {
			w.successes[p.held[i].Job.Seq]++
		}
		p.drop(ack.Token)
	}
}

// call is what happens by calls.
func (w *world) call(s step, p *process) {
	switch s.What {
	case "claim", "repeated claim":
		c := claim(p.instance, 1+s.B, randomQueues[s.B%3], randomQueues[s.A%3])
		p.requests++
		c.Request = fmt.Sprint(p.requests)
		runs, err := w.d.Claim(w.ctx, c)
		if err != nil || len(runs) > c.Max {
			w.fatalf("a claim of %d runs: %d, %v", c.Max, len(runs), err)
		}
		for _, a := range runs {
			w.got(p, a)
		}
		if s.What == "repeated claim" {
			again, err := w.d.Claim(w.ctx, c)
			if err != nil || len(runs) > 0 && !slices.Equal(tokensOf(again), tokensOf(runs)) {
				w.fatalf("a repeated claim of %v gave %v, %v", seqsOf(runs), seqsOf(again), err)
			}
		}
	case "cancelled claim":
		c := claim(p.instance, 1+s.B, randomQueues[s.B%3])
		c.Wait = time.Minute
		ctx, cancel := context.WithTimeout(w.ctx, time.Duration(s.B)*time.Second)
		for _, a := range (<-w.claiming(ctx, c)).runs {
			w.got(p, a)
		}
		cancel()
	case "beat":
		if len(p.held) > 0 {
			w.obey(p, w.heartbeat(p.held...))
		}
	case "end":
		if len(p.held) > 0 {
			acks, err := w.d.Finish(w.ctx, finishes(outcome(s.B), p.some(s.B)))
			if err != nil {
				w.fatalf("finish: %v", err)
			}
			w.count(p, acks)
		}
	}
}

// chooseSome claims chosen jobs, and asks again. A READY job that is not claimed says that it is blocked.
func (w *world) chooseSome(s step, p *process) {
	var ids []job.ID
	for i := range min(1+s.B, int(w.ids)) {
		ids = append(ids, idOf(1+(uint32(s.A*7+s.B*3)+uint32(i*(1+s.A)))%w.ids)) //nolint:gosec // small
	}
	slices.SortFunc(ids, func(a, b job.ID) int { return bytes.Compare(a[:], b[:]) })
	if ids = slices.Compact(ids); len(ids) == 0 {
		return
	}
	p.requests++
	c := dispatch.ClaimRequest{Worker: "w", Instance: job.ID{p.instance}, Request: fmt.Sprint(p.requests)}
	choices, err := w.d.Choose(w.ctx, c, ids, explained)
	if err != nil {
		w.fatalf("a claim of chosen jobs: %v", err)
	}
	again, err := w.d.Choose(w.ctx, c, ids, explained)
	if err != nil {
		w.fatalf("a repeated claim of chosen jobs: %v", err)
	}
	got := false
	for _, choice := range choices {
		got = got || choice.Run != nil
	}
	for i, choice := range choices {
		second := again[i]
		if got && (choice.Err != second.Err || choice.State != second.State || (choice.Run != nil) != (second.Run != nil)) { //nolint:errorlint // the same one
			w.fatalf("a choice is answered %+v and then %+v", choice, second)
		}
		if choice.Run != nil {
			w.got(p, *choice.Run)
		} else if !got && second.Run != nil { // nothing was claimed, so that was another request
			w.got(p, *second.Run)
		}
		if ready := choice.State == job.Ready; ready != errors.Is(choice.Err, dispatch.ErrBlocked) {
			w.fatalf("a choice is %s and %v", choice.State, choice.Err)
		}
	}
}

// idOf is the id of the n-th job of a rig.
func idOf(n uint32) (id job.ID) {
	binary.BigEndian.PutUint32(id[:], n)
	return id
}

// explained is what a caller of Choose that wants no explanations gives it.
func explained(store.Tx, *job.Job) (any, error) { return nil, nil }

// interruptSome interrupts a job with RETRY; what has ended is left alone.
func (w *world) interruptSome(s step) {
	if w.ids == 0 {
		return
	}
	seq := 1 + uint64(s.A*10+s.B)%uint64(w.ids)
	if !w.job(seq).State.Terminal() {
		w.interrupt(seq, job.LevelRetry)
	}
}

// gateSome gives a queue or a limit a rate, a breaker and weights, or takes them away.
func (w *world) gateSome(s step) {
	rate := []job.Rate{{}, {Permits: 1, Period: time.Second, Burst: 2}, {Permits: 10, Period: time.Second, Burst: 2}, {}}[s.B%4]
	breaker := []job.Breaker{{}, {Failures: 1, RetryIn: 5 * time.Second}, {Failures: 2, RetryIn: 3 * time.Second}}[s.B%3]
	if s.A%2 == 0 {
		w.bound(randomLimits[s.A/2%2], job.LimitPolicy{Max: 2, Rate: rate, Breaker: breaker})
		return
	}
	weights := job.NewWeights([]job.KeyWeight{{Key: "x", Weight: uint32(1 + s.B)}}) //nolint:gosec // small
	w.policed(randomQueues[s.A/2%3], job.Policy{Rate: rate, Breaker: breaker, Weights: weights})
}

// updateSome gives a job that has not ended another band, limits and timeout, or has one that waits start later.
func (w *world) updateSome(s step) {
	if w.ids == 0 {
		return
	}
	seq := 1 + uint64(s.A*10+s.B)%uint64(w.ids)
	state := w.job(seq).State
	if state.Terminal() {
		return
	}
	w.step(seq, func(j *job.Job, now time.Time) (*job.Job, error) {
		u := job.Update{Fields: job.FieldPriority | job.FieldLimits | job.FieldTimeout, Spec: job.Spec{
			Priority: job.Priority(10 * (1 + s.A%5)), Limits: randomUses[(s.A+2*s.B)%len(randomUses)], Timeout: time.Duration(s.B%2) * time.Hour,
		}}
		if s.A%3 == 0 && state != job.Running && state != job.Parked {
			u.Fields, u.Spec.RunAt = job.FieldStart, now.Add(time.Duration(s.B)*time.Second)
		}
		return j.Update(now, u, job.By{})
	})
}

// finishAll has one good worker do what is left, and looks back.
func (w *world) finishAll() {
	for _, p := range w.processes {
		w.cut(p)
	}
	p := w.process()
	w.connect(p)
	w.want(p, 6)
	begin := time.Now()
	for left := int(w.ids); left > 0; {
		if time.Since(begin) > 30*time.Minute {
			w.fatalf("%d jobs do not end", left)
		}
		if w.receive(p); len(p.held) > 0 {
			p.stream.see()
			w.count(p, p.stream.finish(success(), p.held...))
			continue
		}
		w.obey(p, p.stream.report().Verdicts)
		w.pass(5 * time.Second)
		left = 0
		for seq := range uint64(w.ids) {
			switch j := w.job(seq + 1); {
			case j.State == job.Parked:
				w.step(j.Seq, func(j *job.Job, now time.Time) (*job.Job, error) { return j.Retry(now) })
				left++
			case j.State != job.Succeeded:
				left++
			}
		}
	}
	for seq := range uint64(w.ids) {
		w.lookBack(w.job(seq + 1))
	}
	p.stream.Close()
	synctest.Wait()
	if s := w.d.Stats(); s.Runs+s.Waiting+s.Sessions > 0 {
		w.fatalf("something is left: %+v", s)
	}
	w.idle(randomLimits...)
}

// lookBack checks a job's whole life.
func (w *world) lookBack(j *job.Job) {
	if n := w.successes[j.Seq]; n != 1 {
		w.fatalf("job %d has succeeded %d times: %+v", j.Seq, n, j.History)
	}
	for i := range j.History[1:] {
		before, after := j.History[i], j.History[i+1]
		if before.Fence >= after.Fence || after.DispatchTime.Before(before.EndTime) {
			w.fatalf("job %d has two runs at once: %+v and %+v", j.Seq, before, after)
		}
	}
}
