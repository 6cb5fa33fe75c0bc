package top

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Rank orders problems, the worst first: what stands still and will not go on by itself, what somebody has to decide on,
// what is about to be one.
type Rank int

// The problems.
const (
	NoWorker Rank = iota
	GateClosed
	Zombies
	WorkerAway
	JobsParked
	QueuePaused
	RunsFailed
	LongWait
	WorkerDraining
	WorkerGone
	Fine
)

// String is what a rank is called.
func (r Rank) String() string {
	return [...]string{
		"no worker", "gate closed", "zombies", "worker away", "parked", "paused", "failures", "long wait", "draining", "worker gone", "fine",
	}[r]
}

// MarshalText makes it the same in JSON.
func (r Rank) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

const (
	// longWait is from when on a ready job's age is a problem of its own, although its queue has workers.
	longWait = time.Minute
	// unserved is how long a ready job may wait for a worker to come.
	unserved = 5 * time.Second
)

// Problem is something that an operator should look at.
type Problem struct {
	Rank Rank `json:"problem"`
	// Name is the queue, the worker, or the limit with its key.
	Name string `json:"name"`
	// Command shows more of it, or acts on it.
	Command string `json:"command,omitempty"`
	// Queue is the queue, if it is one's.
	Queue string `json:"queue,omitempty"`
	// Detail says more, in words; parts of it are what others wrote.
	Detail string `json:"detail"`
	// Weight is how bad it is among those of its rank.
	Weight float64 `json:"-"`
}

func worseProblem(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(magnitude(b.Weight), magnitude(a.Weight)), cmp.Compare(a.Name, b.Name))
}

// Pick returns n problems at most, such that each rank is among them as long as there is room: one that a thousand queues
// have does not hide another one. They stay in their order.
func Pick(all []Problem, n int) []Problem {
	if len(all) <= n {
		return all
	}
	quota := map[Rank]int{}
	for taken, turn := 0, 0; taken < n; turn++ {
		for rank := range Fine {
			if taken < n && turn < count(all, rank) {
				quota[rank]++
				taken++
			}
		}
	}
	picked := make([]Problem, 0, n)
	for _, p := range all {
		if quota[p.Rank]--; quota[p.Rank] >= 0 {
			picked = append(picked, p)
		}
	}
	return picked
}

// count is how many problems have a rank; they are sorted by it.
func count(sorted []Problem, r Rank) int {
	find := func(r Rank) int {
		i, _ := slices.BinarySearchFunc(sorted, r, func(p Problem, r Rank) int { return cmp.Compare(p.Rank, r) })
		return i
	}
	return find(r+1) - find(r)
}

func (v *viewer) add(p Problem, format string, args ...any) {
	p.Detail = fmt.Sprintf(format, args...)
	v.s.Problems = append(v.s.Problems, p)
}

// queueCommands are what to look at, or do, about a queue's problem.
var queueCommands = map[Rank]string{
	NoWorker:    "stint worker list",
	GateClosed:  "stint queue open %s",
	Zombies:     "stint queue get %s",
	JobsParked:  "stint job list --queue %s --state parked",
	QueuePaused: "stint queue resume %s",
	RunsFailed:  "stint events --queue %s --kind run-ended",
	LongWait:    "stint queue get %s",
}

func (v *viewer) queueProblems(q *queue, row *QueueRow) {
	add := func(r Rank, weight uint64, format string, args ...any) {
		row.Worst = min(row.Worst, r)
		command := queueCommands[r]
		if strings.Contains(command, "%s") {
			command = fmt.Sprintf(command, q.name)
		}
		v.add(Problem{Rank: r, Name: q.name, Queue: q.name, Command: command, Weight: float64(weight)}, format, args...)
	}
	waits := time.Duration(row.OldestReady)
	switch {
	case row.Ready == 0 || row.State != "":
	case row.Running == 0 && row.Starts == 0 && !v.served[q.name] && waits >= unserved:
		add(NoWorker, row.Ready, "%s, the oldest for %s", Number(row.Ready, "job waits", "jobs wait"), row.OldestReady)
	case waits >= longWait:
		add(LongWait, uint64(waits.Seconds()), "ready for %s, %s", row.OldestReady, Number(row.Ready, "waits", "wait"))
	}
	if gateState(q.listed.GetGate(), v.at) == "CLOSED" {
		add(GateClosed, row.Ready, "%s", v.gateText(q.listed.GetGate()))
	}
	if n := q.listed.GetZombies(); n > 0 {
		add(Zombies, n, "%s left behind, maybe still at work", Number(n, "run", "runs"))
	}
	if row.Parked > 0 {
		add(JobsParked, row.Parked, "%s for a person to look at", Number(row.Parked, "job", "jobs"))
	}
	if p := q.listed.GetPause(); p != nil {
		add(QueuePaused, row.Ready, "%s%s", v.pauseText(p), waiting(row.Ready))
	}
	if row.Failures > 0 {
		add(RunsFailed, row.Failures, "%s in the last minute; the last: %s", Number(row.Failures, "run", "runs"), q.failure)
	}
}

func waiting(ready uint64) string {
	if ready == 0 {
		return ""
	}
	return "; " + Number(ready, "job waits", "jobs wait")
}

func (v *viewer) pauseText(p *stintv1.QueuePause) string {
	text := "for " + v.ago(p.GetPauseTime()).String()
	if p.GetRequester() != "" {
		text += " by " + p.GetRequester()
	}
	if p.GetReason() != "" {
		text += ": " + p.GetReason()
	}
	return text
}

func (v *viewer) ago(t *timestamppb.Timestamp) Span { return Span(max(0, v.at.Sub(t.AsTime()))) }

// gateText says what keeps a closed gate closed.
func (v *viewer) gateText(g *stintv1.Gate) string {
	var parts []string
	if g.GetTripTime() != nil {
		text := Number(uint64(g.GetFailures()), "failure", "failures") + " in a row"
		switch left := g.GetTryTime().AsTime().Sub(v.at); {
		case g.GetTrying():
			text += ", one run tries"
		case left > 0:
			text += ", one run may try in " + Span(left).String()
		default:
			text += ", the next run tries"
		}
		if g.GetFailure() != "" {
			text += ": " + g.GetFailure()
		}
		parts = append(parts, text)
	}
	if left := g.GetThrottledUntil().AsTime().Sub(v.at); g.GetThrottledUntil() != nil && left > 0 {
		text := "for " + Span(left).String() + " more"
		if g.GetThrottleReason() != "" {
			text += ": " + g.GetThrottleReason()
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func (v *viewer) workerProblems(w *stintv1.Worker, row *WorkerRow) {
	name := cmp.Or(row.Name, row.Instance)
	if row.Host != "" {
		name += "@" + row.Host
	}
	runs := Number(uint64(row.Runs), "run", "runs")
	switch {
	case row.State == "AWAY" && row.Runs > 0:
		v.add(Problem{Rank: WorkerAway, Name: name, Command: "stint worker list", Weight: float64(row.Runs)}, "%s, silent for %s", runs, row.Heard)
	case row.State == "DRAINING":
		text := "finishes " + runs
		if w.GetDrainReason() != "" {
			text += ": " + w.GetDrainReason()
		}
		v.add(Problem{Rank: WorkerDraining, Name: name, Command: "stint worker list", Weight: float64(row.Runs)}, "%s", text)
	}
}

// departure tells for a minute of a worker that has left and holds nothing. One that was drained was meant to go, but who
// looks at a queue that stands still wants to know of that too.
func (v *viewer) departure(instance string, d departure) {
	name := cmp.Or(d.worker, instance)
	if ago := v.at.Sub(d.at); v.m.workers[instance] == nil && ago < time.Minute && v.wants(name) {
		v.add(Problem{Rank: WorkerGone, Name: name, Command: "stint events --kind worker-gone"}, "its session ended %s ago", Span(ago))
	}
}

func (v *viewer) limitProblems(k *stintv1.KeyUsage, row *LimitRow) {
	if row.State == "CLOSED" {
		name := row.Name
		if row.Key != "" {
			name += "=" + row.Key
		}
		command := "stint limit open " + row.Name
		if row.Key != "" {
			command += " --key " + strconv.Quote(row.Key)
		}
		v.add(Problem{Rank: GateClosed, Name: name, Command: command, Weight: float64(row.Waiting)}, "limit, %s%s", v.gateText(k.GetGate()), waiting(row.Waiting))
	}
}

// Number is a count with its noun.
func Number(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Digits(n) + " " + many
}

// Digits is a number with a comma between thousands.
func Digits(n uint64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
