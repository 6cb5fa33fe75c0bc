package simtest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// bounds is what the keys of a limit allow, as somebody changes it all the time, and who uses them.
type bounds struct {
	mu      sync.Mutex
	most    map[string]uint32
	changes map[string][]change // oldest first
	running map[string]uint32   // handlers at work, by key
	faults  []string
}

// change is a maximum that came into force between two moments.
type change struct {
	most        uint32
	asked, told time.Time
}

const limitName = "keys"

func newBounds(keys int, d *dice) *bounds {
	b := &bounds{most: map[string]uint32{}, changes: map[string][]change{}, running: map[string]uint32{}}
	for i := range keys {
		b.most[fmt.Sprint("key", i)] = uint32(1 + d.n(10)) //nolint:gosec // 1 to 10
	}
	return b
}

// put tells the server of all maxima; changed is the key that got another one, all keys if it is empty.
func (b *bounds) put(l *link, changed string) error {
	asked := time.Now()
	b.mu.Lock()
	of := map[string]uint32{}
	for key, most := range b.most {
		of[key] = most
		if changed == "" || key == changed {
			b.changes[key] = append(b.changes[key], change{most: most, asked: asked})
		}
	}
	b.mu.Unlock()
	for {
		_, err := l.Queues().PutLimit(context.Background(), &stintv1.PutLimitRequest{
			Name: limitName, Policy: &stintv1.LimitPolicy{MaxUnits: 1, MaxUnitsOf: of},
		})
		if err == nil {
			break
		}
		if client.ReasonOf(err) != 0 {
			return err
		}
		time.Sleep(50 * time.Millisecond) // the server is away
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range b.changes {
		if last := &b.changes[key][len(b.changes[key])-1]; last.told.IsZero() {
			last.told = time.Now()
		}
	}
	return nil
}

// within are the least and the most that may have been in force at some time from one moment to another.
func (b *bounds) within(key string, from, to time.Time) (least, most uint32) {
	all := b.changes[key]
	for i, c := range all {
		over := i+1 < len(all) && !all[i+1].told.IsZero() && all[i+1].told.Before(from)
		if !over && !c.asked.After(to) {
			if most == 0 {
				least = c.most
			}
			least, most = min(least, c.most), max(most, c.most)
		}
	}
	return least, most
}

// handle does the work of a run, and sees how many others are at it.
func (b *bounds) handle(d *dice) client.Handler {
	return func(_ context.Context, run *client.Run) error {
		key := string(run.Payload)
		b.mu.Lock()
		b.running[key]++
		if _, most := b.within(key, time.Now().Add(-time.Second), time.Now()); b.running[key] > most {
			b.faults = append(b.faults, fmt.Sprintf("%d handlers of %s at %s, of at most %d", b.running[key], key, time.Now(), most))
		}
		b.mu.Unlock()
		time.Sleep(d.between(5*time.Millisecond, 50*time.Millisecond))
		b.mu.Lock()
		b.running[key]--
		b.mu.Unlock()
		return nil
	}
}

// event is something that happened to a key by the server's own record.
type keyEvent struct {
	at             time.Time
	running, ready int
}

// judge holds the server's record of the jobs of a key against what was allowed. It returns for how long enough jobs were
// ready, outages and changes excluded, and for how much of that the key was at its limit.
func (b *bounds) judge(t *testing.T, key string, jobs []*stintv1.Job, outages [][2]time.Time) (enough, full time.Duration) {
	var events []keyEvent
	for _, j := range jobs {
		for _, run := range j.GetHistory() {
			events = append(events, keyEvent{run.GetDispatchTime().AsTime(), 1, -1}, keyEvent{run.GetEndTime().AsTime(), -1, 0})
			if run.GetNumber() == 1 {
				events = append(events, keyEvent{j.GetSubmitTime().AsTime(), 0, 1})
			} else {
				events = append(events, keyEvent{run.GetDispatchTime().AsTime(), 0, 1}) // when it was ready again is not known
			}
		}
	}
	slices.SortStableFunc(events, func(a, b keyEvent) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.running, b.running)) })
	running, ready := 0, 0
	for i, e := range events {
		running, ready = running+e.running, ready+e.ready
		least, most := b.within(key, e.at, e.at)
		if e.running > 0 && running > int(most) {
			t.Errorf("%s has %d runs at %s, of at most %d", key, running, e.at, most)
		}
		if i+1 == len(events) || ready <= 0 || touches(outages, e.at, events[i+1].at) {
			continue
		}
		lasts := events[i+1].at.Sub(e.at)
		enough += lasts
		if running >= int(least) {
			full += lasts
		}
	}
	return enough, full
}

func touches(outages [][2]time.Time, from, to time.Time) bool {
	return slices.ContainsFunc(outages, func(o [2]time.Time) bool { return !from.After(o[1]) && !to.Before(o[0]) })
}

// TestLimitsLive: 50 keys, whose limits change all the time, and a server that crashes three times. No key is ever over its
// limit, by what the workers see and by the server's record; each is at its limit nearly all the time that jobs wait for
// it; in the end all of it is free.
func TestLimitsLive(t *testing.T) {
	keys, turns := 50, 120
	if testing.Short() {
		keys, turns = 12, 100
	}
	eachSeed(t, 1, func(t *testing.T, seed uint64) {
		w, d := newWorldOn(t, seed, syncFast), newDice(seed, "limits")
		l, b := w.connect(), newBounds(keys, newDice(seed, "bounds"))
		if err := b.put(l, ""); err != nil {
			t.Fatal(err)
		}
		total := b.submit(t, l, turns)
		all := make(chan struct{})
		var done sync.WaitGroup
		done.Add(total)
		worker := l.NewWorker(client.WorkerConfig{OnEvent: func(e client.Event) {
			if e.Status == stintv1.FinishStatus_FINISH_STATUS_RECORDED || e.Status == stintv1.FinishStatus_FINISH_STATUS_DUPLICATE {
				done.Done()
			}
		}})
		worker.Handle("limited", 512, b.handle(newDice(seed, "work")))
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(context.Background()) }()
		go func() { done.Wait(); close(all) }()

		stop, changed := make(chan struct{}), make(chan error, 1)
		go func() { changed <- b.keepChanging(w.connect(), newDice(seed, "changes"), stop) }()
		outages := [][2]time.Time{{w.began, time.Now()}} // at first nobody works
		for range 3 {
			d.rest(nil, 200*time.Millisecond, 600*time.Millisecond)
			from := time.Now()
			w.crashFor(50*d.n(3), d.between(0, 2*time.Second))
			d.rest(nil, 4*time.Second, 4*time.Second) // until the worker is back
			outages = append(outages, [2]time.Time{from, time.Now()})
		}
		w.await("all jobs have an outcome", all)
		close(stop)
		if err := <-changed; err != nil {
			t.Error(err)
		}
		worker.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		b.check(t, w, total, outages)
	})
}

// submit submits enough jobs of each key for so many turns at its first limit, those of all keys mixed.
func (b *bounds) submit(t *testing.T, l *link, turns int) (total int) {
	for range turns {
		var jobs []client.Job
		for key, most := range b.most {
			for range most {
				jobs = append(jobs, client.Job{Queue: "limited", Payload: []byte(key), Limits: []*stintv1.LimitUse{{Name: limitName, Key: key}}})
			}
		}
		for _, some := range slices.Collect(slices.Chunk(jobs, 500)) {
			if _, err := l.Submit(context.Background(), some...); err != nil {
				t.Fatal(err)
			}
		}
		total += len(jobs)
	}
	return total
}

// keepChanging gives some key another maximum every now and then.
func (b *bounds) keepChanging(l *link, d *dice, stop <-chan struct{}) error {
	for d.rest(stop, 10*time.Millisecond, 60*time.Millisecond) {
		b.mu.Lock()
		key := fmt.Sprint("key", d.n(len(b.most)))
		b.most[key] = uint32(1 + d.n(10)) //nolint:gosec // 1 to 10
		b.mu.Unlock()
		if err := b.put(l, key); err != nil {
			return err
		}
	}
	return nil
}

func (b *bounds) check(t *testing.T, w *world, total int, outages [][2]time.Time) {
	for _, fault := range b.faults {
		t.Error(fault)
	}
	jobs := w.list()
	if len(jobs) != total {
		t.Fatalf("%d jobs are listed, of %d", len(jobs), total)
	}
	byKey := map[string][]*stintv1.Job{}
	for _, j := range jobs {
		if j.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED {
			t.Errorf("job %s is %s", j.GetId(), j.GetState())
		}
		key := j.GetLimits()[0].GetKey()
		byKey[key] = append(byKey[key], j)
	}
	var enough, full time.Duration
	for key, jobs := range byKey {
		e, f := b.judge(t, key, jobs, outages)
		enough, full = enough+e, full+f
	}
	if share := float64(full) / float64(enough); share < 0.95 || enough < time.Second {
		t.Errorf("the keys were at their limits %.1f %% of the %s in which jobs waited for them", 100*share, enough)
	} else {
		t.Logf("%d jobs of %d keys: at their limits %.2f %% of the %s in which jobs waited for them", total, len(byKey), 100*share, enough)
	}
	l := w.connect()
	defer l.close()
	usage, err := l.Queues().GetLimitUsage(context.Background(), &stintv1.GetLimitUsageRequest{Name: limitName})
	if err != nil || len(usage.GetKeys()) > 0 {
		t.Errorf("in the end: %v, %v", usage.GetKeys(), err)
	}
}
