package simtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// uniqueTTL is for how long keys with a ttl are held after the end.
const uniqueTTL = 300 * time.Millisecond

// uniques are the ways to hold a key. Each key has one way.
var uniques = map[string]*stintv1.Unique{
	"start":  {Until: stintv1.UniqueUntil_UNIQUE_UNTIL_START},
	"finish": {Until: stintv1.UniqueUntil_UNIQUE_UNTIL_FINISH},
	"ttl":    {Until: stintv1.UniqueUntil_UNIQUE_UNTIL_FINISH, Ttl: durationpb.New(uniqueTTL)},
}

// rivals submit jobs with the same keys and note what they are told.
type rivals struct {
	mu      sync.Mutex
	created map[string]bool // ids
	holders map[string]bool // ids of those that were told to hold a key
	away    map[string]bool // ids of jobs that were not stored
	counts  map[string]int
}

// submit submits one job after another until stop is closed.
func (r *rivals) submit(l *link, d *dice, stop <-chan struct{}) error {
	ways := []string{"start", "finish", "ttl"}
	for d.rest(stop, time.Millisecond, 20*time.Millisecond) {
		way := ways[d.n(len(ways))]
		unique := stintv1.Unique{
			Key: fmt.Sprint(way, d.n(4)), Until: uniques[way].GetUntil(), Ttl: uniques[way].GetTtl(), OnConflict: stintv1.OnConflict(d.n(4)),
		}
		job := client.Job{
			Queue: "unique", Payload: []byte(unique.GetKey()), Unique: &unique,
			Retry: &stintv1.RetryPolicy{Backoff: &stintv1.RetryPolicy_Constant{Constant: &stintv1.ConstantBackoff{Delay: durationpb.New(20 * time.Millisecond)}}},
		}
		if d.chance(50) {
			job.Priority = stintv1.Priority_PRIORITY_HIGH
		}
		if d.chance(30) {
			job.Delay = d.between(time.Millisecond, 200*time.Millisecond)
		}
		answers, err := l.Submit(context.Background(), job)
		if err != nil {
			return err
		}
		if err := r.note(answers[0]); err != nil {
			return err
		}
	}
	return nil
}

func (r *rivals) note(a client.Submitted) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case a.Err != nil && client.ReasonOf(a.Err) != stintv1.Reason_REASON_UNIQUE_CONFLICT:
		return a.Err
	case a.Holder == "":
		r.counts["stored"]++
		r.created[a.ID] = true
		return nil
	case a.Err != nil:
		r.counts["rejected"]++
	case a.Replaced:
		r.counts["replaced"]++
	default:
		r.counts["held"]++
	}
	r.holders[a.Holder], r.away[a.ID] = true, true
	return nil
}

// TestUniqueLive: many submit jobs with a few keys, in every way to hold one and with every policy, while a worker runs and
// fails them and the server crashes three times. By the server's record no key ever has two holders, and every answer was
// true.
func TestUniqueLive(t *testing.T) {
	eachSeed(t, 1, func(t *testing.T, seed uint64) {
		w, d := newWorldOn(t, seed, syncFast), newDice(seed, "unique")
		r := &rivals{created: map[string]bool{}, holders: map[string]bool{}, away: map[string]bool{}, counts: map[string]int{}}
		worker := w.connect().NewWorker(client.WorkerConfig{})
		work := newDice(seed, "work")
		worker.Handle("unique", 16, func(_ context.Context, _ *client.Run) error {
			time.Sleep(work.between(0, 30*time.Millisecond))
			if work.chance(30) {
				return errors.New("not this time")
			}
			return nil
		})
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(context.Background()) }()
		stop, rivalry := make(chan struct{}), make(chan error, 6)
		for i := range cap(rivalry) {
			l, own := w.connect(), newDice(seed, fmt.Sprint("rival", i))
			go func() { rivalry <- r.submit(l, own, stop) }()
		}
		for range 3 {
			d.rest(nil, time.Second, 3*time.Second)
			w.crashFor(50*d.n(3), d.between(0, time.Second))
			d.rest(nil, 4*time.Second, 4*time.Second)
		}
		close(stop)
		for range cap(rivalry) {
			if err := <-rivalry; err != nil {
				t.Error(err)
			}
		}
		r.check(t, w.list())
		worker.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// tenure is a time in which a job held its key, by the server's record.
type tenure struct {
	job      *stintv1.Job
	from, to time.Time // to is zero: it holds it still
}

func tenureOf(j *stintv1.Job) tenure {
	t := tenure{job: j, from: j.GetSubmitTime().AsTime()}
	if j.GetEndTime() != nil {
		t.to = j.GetEndTime().AsTime().Add(j.GetUnique().GetTtl().AsDuration())
	}
	if j.GetUnique().GetUntil() == stintv1.UniqueUntil_UNIQUE_UNTIL_START {
		for _, run := range slices.Backward(append(slices.Clone(j.GetHistory()), j.GetRun())) {
			if run.GetAcceptTime() != nil {
				t.to = run.GetAcceptTime().AsTime()
			}
		}
	}
	return t
}

func (r *rivals) check(t *testing.T, jobs []*stintv1.Job) {
	tenures := map[string][]tenure{}
	for _, j := range jobs {
		if r.away[j.GetId()] {
			t.Errorf("job %s was told not to be stored", j.GetId())
		}
		delete(r.created, j.GetId())
		delete(r.holders, j.GetId())
		key := j.GetUnique().GetKey()
		tenures[key] = append(tenures[key], tenureOf(j))
	}
	if len(r.created)+len(r.holders) > 0 {
		t.Errorf("told of and not there: %v, %v", r.created, r.holders)
	}
	for key, all := range tenures {
		slices.SortFunc(all, func(a, b tenure) int { return cmp.Compare(a.job.GetSequence(), b.job.GetSequence()) })
		for i := 1; i < len(all); i++ {
			if before := all[i-1]; before.to.IsZero() || before.to.After(all[i].from) {
				t.Errorf("key %s was held until %v, and again from %v:\n%v\n%v", key, before.to, all[i].from, before.job, all[i].job)
			}
		}
	}
	for _, what := range []string{"stored", "held", "replaced", "rejected"} {
		if r.counts[what] < 20 {
			t.Errorf("only %d jobs were %s", r.counts[what], what)
		}
	}
	t.Logf("%d jobs of %d keys: %v", len(jobs), len(tenures), r.counts)
}
