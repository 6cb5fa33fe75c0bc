package bench

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func tiny(t *testing.T, f *fake, scenarios ...string) Config {
	return Config{
		Server: f.serve(t), Scenarios: scenarios, Jobs: 300, Batch: 7, Runs: 2, Payload: 10,
		Note: func(text string) { t.Log(text) },
	}
}

func TestEveryScenarioAccountsForEveryJob(t *testing.T) {
	c := tiny(t, &fake{})
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range r.Results {
		names = append(names, s.Name)
		if s.Runs != 2 || s.Jobs != 300 || s.Rate <= 0 || s.Faults != 0 {
			t.Errorf("%s: %+v", s.Name, s)
		}
		if (s.Latency != nil) != (s.Name == Latency || s.Name == Interrupt) {
			t.Errorf("%s: latency %v", s.Name, s.Latency)
		}
	}
	want := "submit drain life latency interrupt single-submit single-drain single-life unary-submit unary-drain"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("results %s\nwant    %s", got, want)
	}
	var text, doc strings.Builder
	if err := errors.Join(r.WriteTable(&text), r.WriteJSON(&doc)); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal([]byte(doc.String()), &back); err != nil || len(back.Results) != len(r.Results) {
		t.Errorf("JSON %s: %v", doc.String(), err)
	}
	for _, name := range names {
		if !strings.Contains(text.String(), name) {
			t.Errorf("the table lacks %s:\n%s", name, text.String())
		}
	}
}

func TestFaultsFailTheRun(t *testing.T) {
	const stranger = "019a0000-0000-7000-8000-000000000000"
	submit := func(spoil func(*stintv1.SubmitResult)) func(*fake) {
		return func(f *fake) {
			f.spoilSubmit = func(n int, r *stintv1.SubmitResult) {
				if n == 100 {
					spoil(r)
				}
			}
		}
	}
	assign := func(spoil func(*stintv1.Assignment)) func(*fake) {
		return func(f *fake) {
			f.spoilAssign = func(n int, a *stintv1.Assignment) []*stintv1.Assignment {
				if n == 100 {
					spoil(a)
				}
				return []*stintv1.Assignment{a}
			}
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*fake)
		want  string
	}{
		{"refused, then run all the same", submit(func(r *stintv1.SubmitResult) {
			r.Status, r.Error = 0, &stintv1.ItemError{Reason: stintv1.Reason_REASON_STORAGE_FULL}
		}), "STORAGE_FULL"},
		{"answered under another id", submit(func(r *stintv1.SubmitResult) { r.Id = stranger }), "answered " + stranger},
		{"existed", submit(func(r *stintv1.SubmitResult) {
			r.Status = stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING
		}), "EXISTING"},
		{"job of somebody else", assign(func(a *stintv1.Assignment) { a.JobId = stranger }), "none of this run's"},
		{"second run", assign(func(a *stintv1.Assignment) { a.RunNumber = 2 }), "as run 2"},
		{"other payload", assign(func(a *stintv1.Assignment) { a.Payload = nil }), "with 0 bytes"},
		{"finish superseded", func(f *fake) {
			f.spoilFinish = func(n int, a *stintv1.FinishAck) []*stintv1.FinishAck {
				if n == 100 {
					a.Status = stintv1.FinishStatus_FINISH_STATUS_SUPERSEDED
				}
				return []*stintv1.FinishAck{a}
			}
		}, "SUPERSEDED"},
	} {
		// Both ways check with the same code; one case is enough to see that unary calls do.
		scenarios := []string{Life}
		if c.want == "SUPERSEDED" {
			scenarios = append(scenarios, Unary)
		}
		for _, scenario := range scenarios {
			t.Run(c.name+"/"+scenario, func(t *testing.T) {
				t.Parallel() // a job that never counts as done is waited for until the deadline
				f := &fake{}
				c.spoil(f)
				config := tiny(t, f, scenario)
				config.Jobs, config.Runs = 120, 1
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				r, err := Run(ctx, config)
				if err == nil {
					t.Fatalf("no error; results %+v", r.Results)
				}
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %q, want %q in it", err, c.want)
				}
			})
		}
	}
}

// What happens twice leaves the counts as they must be, so only the tally of each job can see it.
func TestTwiceIsAFault(t *testing.T) {
	for _, c := range []struct {
		name string
		f    *fake
		want string
	}{
		{"acknowledged", &fake{spoilFinish: func(n int, a *stintv1.FinishAck) []*stintv1.FinishAck {
			if n == 100 {
				return []*stintv1.FinishAck{a, a}
			}
			return []*stintv1.FinishAck{a}
		}}, "a run that is not held"},
		{"handed out", &fake{spoilAssign: func(n int, a *stintv1.Assignment) []*stintv1.Assignment {
			if n == 100 {
				return []*stintv1.Assignment{a, {
					LeaseToken: "another", JobId: a.JobId, RunNumber: 1, Payload: a.Payload,
				}}
			}
			return []*stintv1.Assignment{a}
		}}, "handed out twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := tiny(t, c.f, Life)
			config.Runs = 1
			r, err := Run(t.Context(), config)
			if !errors.Is(err, ErrFaults) || len(r.Results) != 1 || r.Results[0].Faults == 0 {
				t.Errorf("error %v, results %+v, want a fault", err, r.Results)
			}
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q in it", err, c.want)
			}
		})
	}
}

func TestAServerThatIsGoneIsAnError(t *testing.T) {
	c := tiny(t, &fake{}, Submit)
	c.Server = "127.0.0.1:1"
	if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "Unavailable") {
		t.Errorf("error %v", err)
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := Run(t.Context(), Config{
		Scenarios: []string{"speed"}, Jobs: -1, Batch: 1001, Payload: 2 << 20, Backlog: 5, Blocked: 7, Server: "127.0.0.1:1",
	})
	for _, want := range []string{`"speed"`, "jobs is -1", "batch is 1001", "payload is", "3 MiB", "not at least", "restarts", "blocked is 7", "a server of its own"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestWaitGivesUpOnAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p progress
		go func() {
			time.Sleep(stallLimit / 2)
			p.add(1)
			time.Sleep(stallLimit * 6 / 5) // moved between two looks, so it goes on
			p.add(1)
		}()
		begin := time.Now()
		err := p.wait(t.Context(), 3)
		if err == nil || !strings.Contains(err.Error(), "at 2 of 3 jobs") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took > 5*stallLimit {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestIDs(t *testing.T) {
	s := newIDs()
	at := time.UnixMilli(1_700_000_000_123)
	last := ""
	for _, job := range []int{0, 1, 49, 50, 5_000_000, 1<<48 - 1} {
		id := string(s.append(nil, at, job))
		if n, err := s.number(id); err != nil || n != job {
			t.Errorf("%s read as %d, %v, want %d", id, n, err, job)
		}
		if id <= last {
			t.Errorf("%s does not come after %s", id, last)
		}
		last = id
	}
	if next := string(s.append(nil, at.Add(time.Millisecond), 0)); next <= last {
		t.Errorf("%s does not come after %s", next, last)
	}
	id := string(s.append(nil, at, 7))
	if id[:13] != "018bcfe5-687b" || id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) || id[23] != '-' {
		t.Errorf("%s is no UUIDv7 of %v", id, at)
	}
	if _, err := newIDs().number(id); err == nil {
		t.Errorf("%s was taken for an id of another set", id)
	}
}

// The schedule, not the send, is what delays count from.
func TestDelaysCountFromTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelays()
		d.begin = time.Now()
		time.Sleep(time.Second) // the service stalls; jobs 0 to 199 were due
		for job := range latencyRate {
			d.started(job)
		}
		q := d.quantiles()
		if q.Max < 999 || q.Max > 1001 || q.P50 < 490 || q.P50 > 510 {
			t.Errorf("quantiles %+v", q)
		}
	})
}

func TestResultsAreMedians(t *testing.T) {
	second := time.Second
	server := func(d time.Duration) *time.Duration { return &d }
	rs := resultsOf([]sample{
		{name: "a", jobs: 100, wall: second, server: server(second)},
		{name: "b", jobs: 100, wall: second},
		{name: "a", jobs: 100, wall: second / 4, server: server(3 * second), latency: &Quantiles{P50: 1, Max: 9}},
		{name: "a", jobs: 100, wall: second / 2, server: server(2 * second), latency: &Quantiles{P50: 2, Max: 5}, faults: 2},
	})
	if len(rs) != 2 || rs[0].Name != "a" || rs[1].Name != "b" {
		t.Fatalf("%+v", rs)
	}
	a := rs[0]
	if a.Rate != 200 || a.LeastRate != 100 || a.MostRate != 400 || *a.ServerMicros != 20_000 || a.ClientMicros != nil ||
		a.WallSeconds != 0.5 || a.Faults != 2 || a.Latency.P50 != 2 || a.Latency.Max != 9 {
		t.Errorf("%+v", a)
	}
	if rs[1].ServerMicros != nil || rs[1].Latency != nil {
		t.Errorf("%+v", rs[1])
	}
}
