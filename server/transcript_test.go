package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// cast names what transcripts speak of: a job by a short name, a run by its job's name and its number ("a/1").
type cast struct {
	mu   sync.Mutex
	ids  map[string]string // of jobs, by name
	jobs map[string]string // names of jobs, by id
	runs map[string]string // names of runs, by token
}

func newCast() *cast {
	return &cast{ids: map[string]string{}, jobs: map[string]string{}, runs: map[string]string{}}
}

// add submits jobs to a queue under names.
func (r *rig) add(queue string, names ...string) {
	r.t.Helper()
	for _, name := range names {
		r.addSpec(name, &stintv1.JobSpec{Queue: queue})
	}
}

// addSpec submits one job under a name, and waits until everybody has reacted to it.
func (r *rig) addSpec(name string, spec *stintv1.JobSpec) {
	r.t.Helper()
	spec.Id = newID()
	r.cast.mu.Lock()
	r.cast.ids[name], r.cast.jobs[spec.GetId()] = spec.GetId(), name
	r.cast.mu.Unlock()
	r.submit(spec)
	synctest.Wait()
}

func (r *rig) id(name string) string {
	r.cast.mu.Lock()
	defer r.cast.mu.Unlock()
	return r.cast.ids[name]
}

// token is the lease token of a run that was assigned; a name that no run has is its own token.
func (r *rig) token(run string) string {
	r.cast.mu.Lock()
	defer r.cast.mu.Unlock()
	for token, name := range r.cast.runs {
		if name == run {
			return token
		}
	}
	return run
}

func (r *rig) tokens(runs ...string) []string {
	out := make([]string, len(runs))
	for i, run := range runs {
		out[i] = r.token(run)
	}
	return out
}

func (c *cast) run(token string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name, known := c.runs[token]; known {
		return name
	}
	return token
}

// meet learns the name of an assigned run.
func (c *cast) meet(a *stintv1.Assignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := c.jobs[a.GetJobId()]
	if name == "" {
		name = a.GetJobId()
	}
	c.runs[a.GetLeaseToken()] = fmt.Sprintf("%s/%d", name, a.GetRunNumber())
}

// talk is one Work stream as its worker sees it. What is said and heard is written down; what comes between two steps
// of the test is sorted by kind, because how it was packed into messages is up to the server.
type talk struct {
	r      *rig
	stream grpc.BidiStreamingClient[stintv1.WorkRequest, stintv1.WorkResponse]
	seq    uint64
	lines  []string
	resume string             // token of the last welcome
	demand uint64             // the version echoed last
	cancel context.CancelFunc // breaks the stream
	read   chan struct{}      // closed when the stream has ended

	mu    sync.Mutex
	heard []*stintv1.WorkResponse // not yet written down
	all   []*stintv1.WorkResponse
	err   error
	told  bool // the end is written down
}

// work opens a Work stream and says nothing yet.
func (r *rig) work(options ...grpc.CallOption) *talk {
	r.t.Helper()
	w := r.unread(options...)
	go w.listen()
	return w
}

// unread is a stream that nobody reads.
func (r *rig) unread(options ...grpc.CallOption) *talk {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	r.t.Cleanup(cancel)
	stream, err := r.workers.Work(ctx, options...)
	if err != nil {
		r.t.Fatal(err)
	}
	return &talk{r: r, stream: stream, cancel: cancel, read: make(chan struct{})}
}

func (w *talk) listen() {
	defer close(w.read)
	for {
		m, err := w.stream.Recv()
		w.mu.Lock()
		if err != nil {
			w.err = err
			w.mu.Unlock()
			return
		}
		w.heard, w.all = append(w.heard, m), append(w.all, m)
		w.mu.Unlock()
		for _, a := range m.GetAssignments() {
			w.r.cast.meet(a)
		}
	}
}

// say sends a message under the next seq and waits until everybody has reacted to it.
func (w *talk) say(m *stintv1.WorkRequest) {
	w.r.t.Helper()
	w.settle()
	w.seq++
	m.Seq = w.seq
	w.lines = append(w.lines, "> "+w.r.cast.request(m))
	if err := w.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		w.r.t.Fatal(err)
	}
	w.settle()
}

// close says that nothing follows.
func (w *talk) close() {
	if err := w.stream.CloseSend(); err != nil {
		w.r.t.Fatal(err)
	}
}

// step does something that is not said on the stream, and waits for what comes of it.
func (w *talk) step(what string, do func()) {
	w.r.t.Helper()
	w.settle()
	w.lines = append(w.lines, "- "+what)
	do()
	w.settle()
}

// pass lets time pass.
func (w *talk) pass(d time.Duration) {
	w.r.t.Helper()
	w.step(d.String()+" pass", func() { time.Sleep(d) })
}

// settle waits until everything is quiet and writes down what was heard.
func (w *talk) settle() {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := w.responses(w.heard)
	for _, m := range w.heard {
		if welcome := m.GetWelcome(); welcome != nil {
			w.resume = welcome.GetResumeToken()
		}
	}
	w.heard = nil
	if w.err != nil && !w.told {
		w.told = true
		lines = append(lines, "end "+describeEnd(w.err))
	}
	for _, line := range lines {
		w.lines = append(w.lines, "< "+line)
	}
}

// expect compares the transcript so far, and begins a new one.
func (w *talk) expect(want string) {
	w.r.t.Helper()
	w.settle()
	if diff := cmp.Diff(trimLines(want), strings.Join(w.lines, "\n")); diff != "" {
		w.r.t.Errorf("the transcript differs (-want +got):\n%s", diff)
	}
	w.lines = nil
}

// skip begins a new transcript without a look at the old one.
func (w *talk) skip() {
	w.settle()
	w.lines = nil
}

func trimLines(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// describeEnd is how a call ended.
func describeEnd(err error) string {
	if errors.Is(err, io.EOF) {
		return "OK"
	}
	reason, field, _ := refusalOf(err)
	text := status.Code(err).String()
	if reason != 0 {
		text = short(reason.String(), "REASON_") + ", " + text
	}
	if field != "" {
		text += ", " + field
	}
	return text
}

func short(name, prefix string) string { return strings.TrimPrefix(name, prefix) }

// hello is the first message of a worker's process.
func hello(instance string, held ...string) *stintv1.WorkRequest {
	return &stintv1.WorkRequest{Hello: &stintv1.Hello{Worker: "w", InstanceId: instance, Held: held}}
}

// demand asks for runs: the rest are pairs of a queue and a number of runs, one pool each.
func demand(version uint64, pools ...any) *stintv1.WorkRequest {
	d := &stintv1.Demand{Version: version}
	for i := 0; i < len(pools); i += 2 {
		d.Pools = append(d.Pools, &stintv1.Pool{Queues: strings.Split(pools[i].(string), "+"), MaxRuns: uint32(pools[i+1].(int))})
	}
	return &stintv1.WorkRequest{Demand: d}
}

func seen(n uint64) *stintv1.WorkRequest { return &stintv1.WorkRequest{Seen: n} }

// report lists runs by their tokens.
func report(held ...string) *stintv1.WorkRequest {
	return &stintv1.WorkRequest{Report: &stintv1.Report{Held: held}}
}

func finish(finishes ...*stintv1.Finish) *stintv1.WorkRequest {
	return &stintv1.WorkRequest{Finishes: finishes}
}

func success(token string) *stintv1.Finish {
	return &stintv1.Finish{LeaseToken: token, Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{}}}
}

// failure ends a run whose job may come back after half a second.
func failure(token string) *stintv1.Finish {
	return &stintv1.Finish{LeaseToken: token, Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{
		Message: "no", RetryDelay: durationpb.New(500 * time.Millisecond),
	}}}
}

func released(token string) *stintv1.Finish {
	return &stintv1.Finish{LeaseToken: token, Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{}}}
}

func newInstance() string { return uuid.NewString() }

// request is a message of a worker in a line.
func (c *cast) request(m *stintv1.WorkRequest) string {
	parts := []string{fmt.Sprint(m.GetSeq())}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if h := m.GetHello(); h != nil {
		add("%s", strings.Join(append([]string{"hello"}, c.named(h.GetHeld())...), " "))
	}
	if d := m.GetDemand(); d != nil {
		var pools []string
		for _, p := range d.GetPools() {
			pools = append(pools, fmt.Sprintf("%s×%d", strings.Join(p.GetQueues(), "+"), p.GetMaxRuns()))
		}
		add("%s", strings.Join(append([]string{fmt.Sprintf("demand %d", d.GetVersion())}, pools...), " "))
	}
	if m.GetSeen() != 0 {
		add("seen %d", m.GetSeen())
	}
	for _, a := range m.GetInterruptAcks() {
		add("act on %s %d", c.run(a.GetLeaseToken()), a.GetGeneration())
	}
	if n := len(m.GetFinishes()); n > 10 {
		return fmt.Sprintf("%d, finishes of %d", m.GetSeq(), n)
	}
	for _, f := range m.GetFinishes() {
		arm := "nothing"
		switch f.GetOutcome().(type) {
		case *stintv1.Finish_Success:
			arm = "success"
		case *stintv1.Finish_Failure:
			arm = "failure"
		case *stintv1.Finish_Interrupted:
			arm = "interrupted"
		case *stintv1.Finish_Released:
			arm = "released"
		}
		add("finish %s %s", c.run(f.GetLeaseToken()), arm)
	}
	if n := len(m.GetReport().GetHeld()); n > 10 {
		add("report of %d", n)
	} else if m.GetReport() != nil {
		add("%s", strings.Join(append([]string{"report"}, c.named(m.GetReport().GetHeld())...), " "))
	}
	if m.GetDrain() != nil {
		add("drain")
	}
	return strings.Join(parts, ", ")
}

func (c *cast) named(tokens []string) []string {
	var names []string
	for _, token := range tokens {
		names = append(names, c.run(token))
	}
	return names
}

// responses are messages of the server, a line for each thing they say, sorted by kind.
func (w *talk) responses(ms []*stintv1.WorkResponse) []string {
	c, kinds := w.r.cast, make([][]string, 6)
	add := func(kind int, format string, args ...any) {
		kinds[kind] = append(kinds[kind], fmt.Sprintf(format, args...))
	}
	var version uint64
	for _, m := range ms {
		if w := m.GetWelcome(); w != nil {
			add(0, "welcome%s, report in %s", c.verdicts(w.GetVerdicts()), cadence(w.GetNextReportIn().AsDuration()))
		}
		for _, e := range m.GetItemErrors() {
			add(1, "refused %d %s[%d]: %s", e.GetSeq(), e.GetPart(), e.GetError().GetIndex(), itemRefusal(e.GetError()))
		}
		for _, a := range m.GetFinishAcks() {
			add(2, "ack %s, recorded %d", c.ack(a), m.GetRecordedSeq())
		}
		if a := m.GetReportAnswer(); a != nil {
			line := fmt.Sprintf("report %d%s", a.GetSeq(), c.verdicts(a.GetVerdicts()))
			if n := len(kinds[3]); n > 0 && len(a.GetVerdicts()) == 0 { // only the time is another than just said
				last, _, _ := strings.Cut(kinds[3][n-1], ", next")
				line, kinds[3] = last, kinds[3][:n-1]
			}
			add(3, "%s, next in %s", line, cadence(a.GetNextReportIn().AsDuration()))
		}
		for _, v := range m.GetInterrupts() {
			add(5, "told%s", strings.TrimPrefix(c.verdicts([]*stintv1.Verdict{v}), ";"))
		}
		for _, a := range m.GetAssignments() {
			add(4, "assignment %d: %s of %s in pool %d", a.GetAssignmentSeq(), c.run(a.GetLeaseToken()), a.GetQueue(), a.GetPool())
		}
		version = max(version, m.GetDemandVersion())
		if d := m.GetDrain(); d != nil {
			line := fmt.Sprintf("drain %q", d.GetReason())
			if d.GetGrace() != nil {
				line += " within " + d.GetGrace().AsDuration().String()
			}
			add(5, "%s", line)
		}
		if m.GetDrained() {
			add(5, "drained")
		}
		if m.GetGoingAway() != nil {
			add(5, "going away")
		}
	}
	if version > w.demand {
		w.demand = version
		kinds[5] = slices.Insert(kinds[5], 0, fmt.Sprintf("demand %d", version))
	}
	return slices.Concat(kinds...)
}

// ack is an acknowledgement in a line.
func (c *cast) ack(a *stintv1.FinishAck) string {
	line := c.run(a.GetLeaseToken()) + " " + short(a.GetStatus().String(), "FINISH_STATUS_")
	if a.GetJobState() != 0 {
		line += ", job " + short(a.GetJobState().String(), "JOB_STATE_")
	}
	if a.GetError() != nil {
		line += fmt.Sprintf(", [%d] %s", a.GetError().GetIndex(), itemRefusal(a.GetError()))
	}
	return line
}

func itemRefusal(e *stintv1.ItemError) string {
	return strings.TrimSuffix(fmt.Sprintf("%s %s", short(e.GetReason().String(), "REASON_"), e.GetField()), " ")
}

// verdicts are verdicts in a line, each after a semicolon.
func (c *cast) verdicts(vs []*stintv1.Verdict) string {
	var b strings.Builder
	for _, v := range vs {
		fmt.Fprintf(&b, "; %s %s", c.run(v.GetLeaseToken()), short(v.GetAction().String(), "VERDICT_ACTION_"))
		if v.GetStopReason() != 0 {
			b.WriteString(" " + short(v.GetStopReason().String(), "STOP_REASON_"))
		}
		if v.GetLease() != nil {
			b.WriteString(" " + v.GetLease().AsDuration().String())
		}
		if i := v.GetInterrupt(); i != nil {
			fmt.Fprintf(&b, " under %s %d of %s %q", short(i.GetLevel().String(), "INTERRUPT_LEVEL_"), i.GetGeneration(),
				short(i.GetSource().String(), "INTERRUPT_SOURCE_"), i.GetReason())
		}
	}
	return b.String()
}

// cadence is a time until the next report, without the jitter of ±10 %.
func cadence(d time.Duration) string {
	for _, pace := range []time.Duration{time.Second, 3 * time.Second, 15 * time.Second} {
		if d >= pace*9/10 && d <= pace*11/10 {
			return "~" + pace.String()
		}
	}
	return d.String()
}
