package screen

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/top"
)

var update = flag.Bool("update", false, "rewrite the screens in testdata")

// picture is of a server with trouble of every kind.
func picture() *top.Snapshot {
	s := &top.Snapshot{
		Time: time.Date(2026, 11, 28, 12, 0, 1, 0, time.Local), Up: top.Span(192 * time.Second), Listed: true,
		Totals: top.Totals{Ready: 1_234_567, Running: 12, Delayed: 3, Parked: 14, Zombies: 1, Queues: 40, Workers: 3, Limits: 2, Runs: 11, Room: 24},
		Rates:  top.Rates{Events: 12345, Submits: 230.4, Starts: 229.6, Finishes: 228, Failures: 0.52, FailuresLastMinute: 31},
		Problems: []top.Problem{
			{Rank: top.NoWorker, Name: "media/scale", Queue: "media/scale", Command: "stint worker list", Detail: "1,234,000 jobs wait, the oldest for 3m12s"},
			{Rank: top.GateClosed, Name: "mail-api=acme", Command: `stint limit open mail-api --key "acme"`, Detail: "limit, 5 failures in a row, one run may try in 12s: dial tcp: connection refused; 12 jobs wait"},
			{Rank: top.JobsParked, Name: "reports", Queue: "reports", Command: "stint job list --queue reports --state parked", Detail: "14 jobs for a person to look at"},
			{Rank: top.QueuePaused, Name: "thumbnails", Queue: "thumbnails", Command: "stint queue resume thumbnails", Detail: "for 3m02s by ada: disk\x1b[31m full"},
			{Rank: top.RunsFailed, Name: "reports", Queue: "reports", Command: "stint events", Detail: "31 runs in the last minute; the last: 日本語 text"},
			{Rank: top.WorkerDraining, Name: "scaler@host-7", Command: "stint worker list", Detail: "finishes 3 runs: new kernel"},
			{Rank: top.WorkerGone, Name: "scaler@host-8", Command: "stint events", Detail: "its session ended 12s ago"},
		},
		Queues: []top.QueueRow{
			{Name: "media/scale", Ready: 1_234_000, OldestReady: top.Span(192 * time.Second), Worst: top.NoWorker},
			{Name: "reports", Ready: 567, Running: 12, Delayed: 3, Parked: 14, Starts: 229.6, Ends: 228, Failures: 31, Worst: top.JobsParked},
			{Name: "thumbnails", State: "PAUSED", Worst: top.QueuePaused},
		},
		Workers: []top.WorkerRow{
			{Instance: "5f0c6a1e-3c1b-4a57-9d1e-0a6f0d2b8c11", Name: "scaler", Host: "host-7", Runs: 3, Room: 8, State: "DRAINING", Queues: []string{"media/scale"}},
			{Instance: "2", Name: "reporter", Host: "a-host-with-a-name-that-is-long", Runs: 8, Room: 16, Zombies: 1, State: "CONNECTED", Heard: top.Span(time.Second), Queues: []string{"reports", "thumbnails", "others"}},
			{Instance: "3", Name: "caller", Runs: 1, State: "CALLS"},
		},
		Limits: []top.LimitRow{
			{Name: "mail-api", Key: "acme", Taken: 1, Max: 2, Waiting: 12, State: "CLOSED"}, {Name: "db", Taken: 4},
		},
	}
	for i := range 37 {
		s.Queues = append(s.Queues, top.QueueRow{Name: fmt.Sprintf("tenants/customer-with-a-long-name-%02d", i), Running: 1, Worst: top.Fine})
	}
	return s
}

// quiet is of a server on which nothing is there yet.
func quiet() *top.Snapshot {
	return &top.Snapshot{Time: picture().Time, Listed: true}
}

// framed is a screen with its edges and the tones of its lines, so that a golden file shows them.
func framed(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%d|%s%s|\n", l.tone, l.Text, strings.Repeat(" ", max(0, 80-ansi.StringWidth(l.Text))))
	}
	return b.String()
}

// TestScreens compares what 80x24 show with testdata; -update writes it anew, for a reviewer.
func TestScreens(t *testing.T) {
	away := picture()
	away.Away, away.AwayFor = &top.Away{Why: "connection refused"}, top.Span(12*time.Second)
	slow := picture()
	slow.Behind = top.Span(7 * time.Second)
	for name, test := range map[string]struct {
		s *top.Snapshot
		v view
	}{
		"overview":  {picture(), view{}},
		"quiet":     {quiet(), view{}},
		"beginning": {&top.Snapshot{Time: picture().Time}, view{}},
		"away":      {away, view{}},
		"help":      {slow, view{help: true}},
		"problems":  {picture(), view{section: 1, selected: "parked reports"}},
		"queues":    {picture(), view{section: 2, from: 10, selected: "tenants/customer-with-a-long-name-20"}},
		"workers":   {picture(), view{section: 3, selected: "5f0c6a1e-3c1b-4a57-9d1e-0a6f0d2b8c11"}},
		"limits":    {picture(), view{section: 4, ask: "Pause reports? Its runs go on, its jobs wait."}},
		"filter":    {quiet(), view{section: 2, filter: "media", typing: true}},
	} {
		t.Run(name, func(t *testing.T) {
			test.v.server, test.v.width, test.v.height = "127.0.0.1:7707", 80, 24
			lines := draw(test.s, &test.v)
			got := framed(lines)
			if len(lines) != 24 {
				t.Errorf("the screen has %d lines", len(lines))
			}
			for _, l := range lines {
				if ansi.StringWidth(l.Text) > 80 || strings.Contains(l.Text, "\x1b") {
					t.Errorf("the line does not fit, or is obeyed: %q", l.Text)
				}
			}
			compare(t, "testdata/"+name+".txt", got)
		})
	}
}

// TestPrint: a text has the same tables, uncut, and no colours.
func TestPrint(t *testing.T) {
	var b strings.Builder
	if err := Print(&b, picture(), "127.0.0.1:7707", ""); err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/print.txt", b.String())
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", file, diff)
	}
}

// TestSmallScreens: whatever the size, nothing is outside of it.
func TestSmallScreens(t *testing.T) {
	for width := 1; width < 90; width += 4 {
		for height := 1; height < 30; height += 3 {
			for section := range 5 {
				lines := draw(picture(), &view{server: "s", width: width, height: height, section: section, selected: "reports"})
				for _, l := range lines {
					if len(lines) > height || ansi.StringWidth(l.Text) > width {
						t.Fatalf("%dx%d, section %d: %d lines, one is %q", width, height, section, len(lines), l.Text)
					}
				}
			}
		}
	}
}

func TestColours(t *testing.T) {
	lines := []Line{{Text: "fine"}, {Text: "bad", tone: bad}, {Text: "here", tone: selection}}
	if got, want := paint(lines, 6, true), "fine\n\x1b[31mbad\x1b[m\n\x1b[7mhere  \x1b[m"; got != want {
		t.Errorf("in colours: %q, want %q", got, want)
	}
	if got := paint(lines, 6, false); strings.Contains(got, "[3") {
		t.Errorf("without colours: %q", got)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 99_999: "99999", 123_456: "123k", 1_234_567: "1.2M", 123_456_789: "123M", 12_345_678_901: "12G"} {
		if got := short(n); got != want {
			t.Errorf("%d is shown as %s, want %s", n, got, want)
		}
	}
	for x, want := range map[float64]string{0: "0", 0.04: "0", 0.52: "0.5", 9.96: "10.0", 12.5: "13", 123_456: "123k"} {
		if got := perSecond(x); got != want {
			t.Errorf("%v/s is shown as %s, want %s", x, got, want)
		}
	}
}

// rig is a program without a terminal, and what it asked for.
type rig struct {
	*program
	filters, acts []string
	acted         chan tea.Msg
}

func newRig(fail error) *rig {
	r := &rig{acted: make(chan tea.Msg, 1)}
	act := func(what string) func(context.Context, string) error {
		return func(_ context.Context, queue string) error {
			r.acts = append(r.acts, what+" "+queue)
			return fail
		}
	}
	r.program = &program{
		config: Config{
			Take: func(filter string) *top.Snapshot {
				r.filters = append(r.filters, filter)
				return picture()
			},
			Pause: act("pause"), Resume: act("resume"),
		},
		view: view{width: 80, height: 24}, send: func(m tea.Msg) { r.acted <- m },
	}
	r.program.take()
	return r
}

// press presses keys, by their names, and returns whether one of them ended the program.
func (r *rig) press(keys ...string) (quit bool) {
	for _, k := range keys {
		m := tea.KeyPressMsg{Text: k}
		for name, code := range map[string]rune{
			"tab": tea.KeyTab, "esc": tea.KeyEscape, "enter": tea.KeyEnter, "backspace": tea.KeyBackspace, "up": tea.KeyUp, "down": tea.KeyDown,
			"pgdown": tea.KeyPgDown, "home": tea.KeyHome, "end": tea.KeyEnd,
		} {
			if k == name {
				m = tea.KeyPressMsg{Code: code}
			}
		}
		if k == "ctrl+c" {
			m = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		}
		if _, cmd := r.Update(m); cmd != nil {
			_, ends := cmd().(tea.QuitMsg)
			quit = quit || ends
		}
	}
	return quit
}

func TestKeysMove(t *testing.T) {
	r := newRig(nil)
	for _, step := range []struct {
		keys     []string
		selected string
		from     int
	}{
		{[]string{"down"}, "", 0},
		{[]string{"2"}, "media/scale", 0},
		{[]string{"down", "j", "k"}, "reports", 0},
		{[]string{"up", "up"}, "media/scale", 0},
		{[]string{"pgdown"}, "tenants/customer-with-a-long-name-15", 1},
		{[]string{"end"}, "tenants/customer-with-a-long-name-36", 22},
		{[]string{"up"}, "tenants/customer-with-a-long-name-35", 22},
		{[]string{"home"}, "media/scale", 0},
		{[]string{"tab", "down"}, "2", 0},
		{[]string{"tab", "tab"}, "", 0},
	} {
		r.press(step.keys...)
		if r.view.selected != step.selected || r.view.from != step.from {
			t.Errorf("after %v %q is selected, from %d; want %q from %d", step.keys, r.view.selected, r.view.from, step.selected, step.from)
		}
	}
	r.press("2", "end")
	r.Update(tea.WindowSizeMsg{Width: 80, Height: 10})
	if r.view.from != 36 {
		t.Errorf("on a smaller screen the first row is %d", r.view.from)
	}
	for _, quit := range []string{"q", "ctrl+c"} {
		if r.press("?", "x") || !r.press("?", quit) || !r.press(quit) {
			t.Errorf("%s does not quit, or another key does", quit)
		}
	}
}

func TestKeysFilter(t *testing.T) {
	r := newRig(nil)
	r.press("/", "m", "q", "backspace", "e", "enter")
	if got := r.filters[len(r.filters)-1]; got != "me" || r.view.typing {
		t.Errorf("the filter is %q, typed still: %t", got, r.view.typing)
	}
	if r.press("esc"); r.view.filter != "" {
		t.Errorf("after esc the filter is %q", r.view.filter)
	}
	r.press("/", "\x1b", "esc", "/", "backspace")
	if r.view.filter != "" || r.view.typing {
		t.Errorf("after all that the filter is %q, typed still: %t", r.view.filter, r.view.typing)
	}
}

// TestPause: a queue is paused, or resumed, after a yes only, and what came of it is said.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(nil)
		r.press("p", "3", "p")
		if r.view.ask != "" || r.view.note != "no queue is selected" {
			t.Errorf("without a queue it asks %q and says %q", r.view.ask, r.view.note)
		}
		r.press("2", "down", "p")
		if want := "Pause reports? Its runs go on, its jobs wait."; r.view.ask != want {
			t.Errorf("it asks %q, want %q", r.view.ask, want)
		}
		r.press("n")
		if r.press("q"); len(r.acts) != 0 {
			t.Errorf("after a no it did %q", r.acts)
		}
		r.press("p", "y")
		r.Update(<-r.acted)
		if r.view.note != "paused reports" {
			t.Errorf("it says %q", r.view.note)
		}
		r.press("1", "down", "down", "down", "p")
		if want := "Resume thumbnails? Its 0 ready jobs may start."; r.view.ask != want {
			t.Errorf("it asks %q, want %q", r.view.ask, want)
		}
		r.press("y")
		r.Update(<-r.acted)
		if got := strings.Join(r.acts, ", "); got != "pause reports, resume thumbnails" {
			t.Errorf("it did %s", got)
		}
		r.actions.Wait()

		r = newRig(errors.New("no server"))
		r.press("2", "p", "y")
		if r.Update(<-r.acted); r.view.note != "media/scale could not be paused: no server" {
			t.Errorf("after a failure it says %q", r.view.note)
		}
	})
}

// TestRun: the whole program, on a terminal that is none, ends by a key and by its context.
func TestRun(t *testing.T) {
	config := Config{Server: "s", Take: func(string) *top.Snapshot { return picture() }, Input: strings.NewReader("q"), Output: &strings.Builder{}}
	if err := Run(t.Context(), config); err != nil {
		t.Errorf("quitting ended with %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	cancel(over)
	config.Input, config.Output = strings.NewReader(""), &strings.Builder{}
	if err := Run(ctx, config); !errors.Is(err, over) {
		t.Errorf("the end of its context ended it with %v", err)
	}
}
