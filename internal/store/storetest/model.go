package storetest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// model is what a store must hold: the newest version of every job.
type model struct {
	*bench
	jobs   map[uint64]*job.Job
	limits map[string]*store.Limit
	last   uint64

	pictures []*picture
}

// testModel runs random operations, restarts among them, and compares the store with the model after each.
func testModel(t *testing.T, open Open) {
	rapid.Check(t, func(r *rapid.T) {
		m := &model{bench: newBench(t, open), jobs: map[uint64]*job.Job{}, limits: map[string]*store.Limit{}}
		for _, name := range []string{"l", "m"} {
			m.setLimit(name, 1)
		}
		defer func() { _ = m.Store().Close() }()
		r.Repeat(map[string]func(*rapid.T){
			"submit":   m.submitSome,
			"dispatch": m.dispatchHead,
			"move":     m.moveOne,
			"delete":   m.deleteOne,
			"wake":     m.wakeDue,
			"restart":  func(*rapid.T) { m.Reopen() },
			"limit":    m.putLimit,
			"replace":  m.replaceOne,
			"join":     m.join,
			"time": func(r *rapid.T) {
				m.advance(time.Duration(rapid.Int64Range(1, 40).Draw(r, "seconds")) * time.Second)
			},
			"":          m.compare,
			"drainLane": m.drainLane,
		})
	})
}

var modelQueues = []string{"a", "b"}

// modelTenants are fairness keys.
var modelTenants = []string{"", "", "t"}

// modelUses are what jobs take: nothing, a key of their own, several, other units of the same.
var modelUses = [][]job.LimitUse{
	nil,
	{{Limit: "l", Units: 1}},
	{{Limit: "l", Key: "k", Units: 2}, {Limit: "m", Units: 1}},
	{{Limit: "l", Key: "k", Units: 3}, {Limit: "m", Units: 1}},
	{{Limit: "l", Key: "j", Units: 1}, {Limit: "l", Key: "k", Units: 1}},
}

func (m *model) submitSome(r *rapid.T) {
	var specs []*job.Spec
	for range rapid.IntRange(1, 9).Draw(r, "jobs") {
		s := m.spec(rapid.SampledFrom(modelQueues).Draw(r, "queue"))
		s.Priority = rapid.SampledFrom([]job.Priority{job.Low, job.Normal}).Draw(r, "priority")
		s.Limits = rapid.SampledFrom(modelUses).Draw(r, "limits")
		s.FairnessKey = rapid.SampledFrom(modelTenants).Draw(r, "fairness key")
		if rapid.IntRange(0, 4).Draw(r, "later") == 0 {
			s.RunAt = m.clock.Add(20 * time.Second)
		}
		if rapid.IntRange(0, 4).Draw(r, "expires") == 0 {
			s.StartBy = m.clock.Add(30 * time.Second)
		}
		if u := rapid.SampledFrom(modelUniques).Draw(r, "unique"); u != nil && m.free(s.Queue, u.Key, specs) {
			s.Unique = u
		}
		specs = append(specs, s)
	}
	for _, j := range m.submit(specs...) {
		if j.Seq <= m.last {
			r.Fatalf("new job has seq %d after %d", j.Seq, m.last)
		}
		m.jobs[j.Seq], m.last = j, j.Seq
	}
}

// modelUniques are the claims of jobs to be the only ones.
var modelUniques = []*job.Unique{
	nil, nil,
	{Key: "k", Until: job.UntilFinish},
	{Key: "k", Until: job.UntilStart},
	{Key: "l", Until: job.UntilFinish, TTL: 25 * time.Second},
}

// free reports whether nobody holds a key, and none of the specs is about to.
func (m *model) free(queue, key string, specs []*job.Spec) bool {
	return m.holderOf(queue, key) == nil && !slices.ContainsFunc(specs, func(s *job.Spec) bool {
		return s.Queue == queue && s.Unique != nil && s.Unique.Key == key
	})
}

// holderOf is who must hold a key; nil for nobody.
func (m *model) holderOf(queue, key string) *job.Job {
	for _, j := range m.jobs {
		if u := j.Spec.Unique; u != nil && u.Key == key && j.Spec.Queue == queue && j.HoldsKey(m.clock) {
			return j
		}
	}
	return nil
}

// takesKey reports whether next would take a key that another job holds.
func (m *model) takesKey(j, next *job.Job) bool {
	if j.Spec.Unique == nil || !next.HoldsKey(m.clock) {
		return false
	}
	h := m.holderOf(j.Spec.Queue, j.Spec.Unique.Key)
	return h != nil && h.Seq != j.Seq
}

// compareHolders checks who holds the keys.
func (m *model) compareHolders(r *rapid.T, v store.Reader) {
	for _, queue := range modelQueues {
		for _, key := range []string{"k", "l"} {
			h, err := v.Holder(queue, key)
			if err != nil {
				r.Fatal(err)
			}
			want := store.Holder{}
			if j := m.holderOf(queue, key); j != nil {
				want = store.Holder{Job: j, ID: j.Spec.ID, State: j.State}
			}
			if d := cmp.Diff(want, h); d != "" {
				r.Fatalf("holder of %s in %s (-want +got):\n%s", key, queue, d)
			}
		}
	}
}

// ready lists a lane as it must be.
func (m *model) ready(in modelLane) (jobs []*job.Job) {
	for _, j := range m.jobs {
		if j.State == job.Ready && j.Spec.Queue == in.queue && j.Spec.Priority == in.priority && j.Spec.FairnessKey == in.tenant && slices.Equal(j.Spec.Limits, in.uses) {
			jobs = append(jobs, j)
		}
	}
	slices.SortFunc(jobs, func(a, b *job.Job) int { return int(int64(a.ReadySeq) - int64(b.ReadySeq)) })
	return jobs
}

type modelLane struct {
	queue    string
	priority job.Priority
	tenant   string
	uses     []job.LimitUse
}

func lanes() (all []modelLane) {
	for _, q := range modelQueues {
		for _, uses := range modelUses {
			for _, tenant := range modelTenants[1:] {
				all = append(all, modelLane{q, job.Low, tenant, uses}, modelLane{q, job.Normal, tenant, uses})
			}
		}
	}
	return all
}

func (m *model) headsOf(in modelLane, n int) (heads []*job.Job) {
	m.update(func(tx store.Tx) (err error) {
		heads, err = tx.Heads(laneOf(tx, in.queue, in.priority, in.tenant, in.uses...), n)
		return err
	})
	return heads
}

func (m *model) dispatchHead(r *rapid.T) {
	heads := m.headsOf(rapid.SampledFrom(lanes()).Draw(r, "lane"), 3)
	if len(heads) == 0 {
		return
	}
	j := rapid.SampledFrom(heads).Draw(r, "head")
	if next, err := j.Wake(m.clock); err == nil && next != j {
		return // it must expire first
	}
	m.jobs[j.Seq] = m.dispatch(j.Seq)
}

func (m *model) drainLane(r *rapid.T) {
	lane := rapid.SampledFrom(lanes()).Draw(r, "lane")
	for range rapid.IntRange(1, 30).Draw(r, "jobs") {
		heads := m.headsOf(lane, 1)
		if len(heads) == 0 {
			return
		}
		m.jobs[heads[0].Seq] = m.step(heads[0].Seq, func(tx store.Tx, j *job.Job) (*job.Job, error) {
			if next, err := j.Wake(tx.Now()); err != nil || next != j {
				return next, err
			}
			return j.Dispatch(tx.Now(), job.Dispatch{Fence: tx.NextFence(), Lease: time.Minute})
		})
	}
}

// moveOne makes one legal step of a random job.
func (m *model) moveOne(r *rapid.T) {
	j := m.pick(r)
	if j == nil {
		return
	}
	result := &job.Result{Size: rapid.SampledFrom([]int{0, 3, 900}).Draw(r, "result")}
	if result.Size > 0 {
		result.Data = make([]byte, result.Size)
	}
	moves := moves()
	moves["success"] = finishing(job.Outcome{Success: &job.Success{Result: result}})
	moves["released"] = finishing(job.Outcome{Released: &job.Released{NotMe: rapid.Bool().Draw(r, "not me")}})
	// A new version of any job that waits, also of a READY one, which keeps its place.
	moves["remember"] = interrupting(job.LevelRetry, rapid.StringN(1, 3, 64).Draw(r, "request"))
	moves["update"] = updating(
		job.Fields(rapid.Uint16Range(1, 2*uint16(job.FieldFairness)-1).Draw(r, "fields")), m.someSpec(r),
	)
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(moves))).Draw(r, "move")
	if next, err := moves[name](at(m.clock), j); err != nil || m.takesKey(j, next) {
		return // not legal here
	}
	m.jobs[j.Seq] = m.step(j.Seq, func(tx store.Tx, j *job.Job) (*job.Job, error) { return moves[name](tx, j) })
}

// replaceOne gives a random job another priority, other limits and another start.
func (m *model) replaceOne(r *rapid.T) {
	j := m.pick(r)
	if j == nil {
		return
	}
	spec := *j.Spec
	spec.Priority = rapid.SampledFrom([]job.Priority{job.Low, job.Normal}).Draw(r, "priority")
	spec.Limits = rapid.SampledFrom(modelUses).Draw(r, "limits")
	spec.Payload = make([]byte, rapid.SampledFrom([]int{3, 900}).Draw(r, "payload"))
	spec.PayloadSize = len(spec.Payload)
	if spec.RunAt = (time.Time{}); rapid.IntRange(0, 2).Draw(r, "later") == 0 {
		spec.RunAt = m.clock.Add(20 * time.Second)
	}
	if _, err := j.Replace(m.clock, &spec); err != nil {
		return // not legal here
	}
	m.jobs[j.Seq] = m.step(j.Seq, func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Replace(tx.Now(), &spec) })
}

// someSpec is what an update may name.
func (m *model) someSpec(r *rapid.T) job.Spec {
	s := job.Spec{
		Priority: rapid.SampledFrom([]job.Priority{job.Low, job.Normal}).Draw(r, "priority"),
		Limits:   rapid.SampledFrom(modelUses).Draw(r, "limits"),
		Timeout:  rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(r, "timeout"),

		FairnessKey: rapid.SampledFrom(modelTenants).Draw(r, "fairness key"),
		Labels:      map[string]string{"a": rapid.SampledFrom([]string{"b", "c"}).Draw(r, "label")},
	}
	if rapid.Bool().Draw(r, "later") {
		s.RunAt = m.clock.Add(20 * time.Second)
	}
	if rapid.Bool().Draw(r, "expires") {
		s.StartBy = m.clock.Add(30 * time.Second)
	}
	return s
}

// at is a clock that stands still: enough to try a step.
type at time.Time

func (a at) Now() time.Time { return time.Time(a) }

func (m *model) pick(r *rapid.T) *job.Job {
	if m.last == 0 {
		return nil
	}
	return m.jobs[rapid.Uint64Range(1, m.last).Draw(r, "job")]
}

func (m *model) deleteOne(r *rapid.T) {
	j := m.pick(r)
	if j == nil || j.CanDelete() != nil {
		return
	}
	m.update(func(tx store.Tx) error {
		jobs, err := tx.Load([]uint64{j.Seq})
		if err != nil {
			return err
		}
		return tx.Put(store.Change{Old: jobs[0]})
	})
	delete(m.jobs, j.Seq)
}

func (m *model) wakeDue(r *rapid.T) {
	want := map[uint64]bool{}
	for _, j := range m.jobs {
		if j.State.Waiting() {
			if next, err := j.Wake(m.clock); err == nil && next != j {
				want[j.Seq] = true
			}
		}
	}
	m.update(func(tx store.Tx) error {
		due, _, err := tx.Due(1000)
		if err != nil {
			return err
		}
		for _, j := range due {
			next, err := j.Wake(tx.Now())
			if err != nil {
				return err
			}
			if !want[j.Seq] {
				r.Fatalf("job %d is due but need not wake", j.Seq)
			}
			delete(want, j.Seq)
			m.jobs[j.Seq] = next
			if err := tx.Put(store.Change{Old: j, New: next}); err != nil {
				return err
			}
		}
		return nil
	})
	if len(want) > 0 {
		r.Fatalf("jobs %v must wake but are not due", want)
	}
}

func (m *model) setLimit(name string, most uint32) {
	m.update(func(tx store.Tx) error {
		l := &store.Limit{Name: name, Policy: job.LimitPolicy{Max: most}, CreateTime: tx.Now()}
		if old := m.limits[name]; old != nil {
			l.Version = old.Version
		}
		if err := tx.PutLimit(l); err != nil {
			return err
		}
		m.limits[name] = tx.Limit(name)
		return nil
	})
}

func (m *model) putLimit(r *rapid.T) {
	m.setLimit(rapid.SampledFrom([]string{"l", "m"}).Draw(r, "limit"), rapid.Uint32Range(1, 9).Draw(r, "max"))
}

// compareLimits checks the settings, the jobs that name them and what is taken.
func (m *model) compareLimits(r *rapid.T, v store.Reader) {
	want := map[job.LimitUse]store.KeyUsage{}
	for _, l := range m.limits {
		l.Jobs = 0
	}
	for _, j := range m.jobs {
		for i, u := range j.Spec.Limits {
			if !j.State.Terminal() && (i == 0 || j.Spec.Limits[i-1].Limit != u.Limit) {
				m.limits[u.Limit].Jobs++
			}
		}
		for _, u := range j.Taken() {
			key := job.LimitUse{Limit: u.Limit, Key: u.Key}
			usage := want[key]
			usage.Name = u.Key
			switch j.State {
			case job.Running:
				usage.Live += uint64(u.Units)
			case job.Ready:
				usage.Waiting++
			default:
				continue
			}
			want[key] = usage
		}
	}
	got := map[job.LimitUse]store.KeyUsage{}
	for name, want := range m.limits {
		if d := cmp.Diff(want, v.Limit(name)); d != "" {
			r.Fatalf("limit %s (-want +got):\n%s", name, d)
		}
		for _, k := range v.Keys(name, "", 100) {
			got[job.LimitUse{Limit: name, Key: k.Name}] = k
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		r.Fatalf("taken (-want +got):\n%s", d)
	}
}

// compare checks that the store says what the model says.
func (m *model) compare(r *rapid.T) {
	var all []uint64
	counts := map[string]*[job.NumberOfStates]uint64{}
	for seq, j := range m.jobs {
		all = append(all, seq)
		if counts[j.Spec.Queue] == nil {
			counts[j.Spec.Queue] = &[job.NumberOfStates]uint64{}
		}
		counts[j.Spec.Queue][j.State]++
	}
	slices.Sort(all)
	m.view(func(v store.Reader) error {
		jobs, err := v.Load(all)
		if err != nil {
			return err
		}
		for i, got := range jobs {
			if d := cmp.Diff(m.jobs[all[i]], got); d != "" {
				r.Fatalf("job %d (-want +got):\n%s", all[i], d)
			}
		}
		var scanned []uint64
		if _, err := v.Scan(0, false, 1<<30, func(j *job.Job) bool { scanned = append(scanned, j.Seq); return true }); err != nil {
			return err
		}
		m.comparePictures(r)
		if !slices.Equal(scanned, all) {
			r.Fatalf("scan shows %v, want %v", scanned, all)
		}
		m.compareLimits(r, v)
		m.compareHolders(r, v)
		for name, want := range counts {
			if got := v.Queue(name).Counts; got != *want {
				r.Fatalf("counts of %s are %v, want %v", name, got, *want)
			}
		}
		return nil
	})
	for _, lane := range lanes() {
		want := seqs(m.ready(lane))
		for _, n := range []int{1, 4} {
			if got := seqs(m.headsOf(lane, n)); !slices.Equal(got, want[:min(n, len(want))]) {
				r.Fatalf("heads of %v are %v, want the first %d of %v", fmt.Sprint(lane), got, n, want)
			}
		}
	}
}
