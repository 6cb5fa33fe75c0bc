package screen

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/stintrun/stint/internal/top"
)

// tone says how a line looks; never is it the only thing that says something.
type tone int

const (
	plain tone = iota
	faint
	head
	warning
	bad
	selection
	alarm
)

// Line is a line of the screen.
type Line struct {
	Text string
	tone tone
}

// looks are the sequences that begin a line of a tone: with colours, and without.
var looks = [...][2]string{
	plain:     {"", ""},
	faint:     {"\x1b[2m", "\x1b[2m"},
	head:      {"\x1b[1;36m", "\x1b[1m"},
	warning:   {"\x1b[33m", ""},
	bad:       {"\x1b[31m", "\x1b[1m"},
	selection: {"\x1b[7m", "\x1b[7m"},
	alarm:     {"\x1b[1;37;41m", "\x1b[1;7m"},
}

// paint joins lines to what a terminal shows.
func paint(lines []Line, width int, colours bool) string {
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		look := looks[l.tone][1]
		if colours {
			look = looks[l.tone][0]
		}
		if look == "" {
			b.WriteString(l.Text)
			continue
		}
		b.WriteString(look + l.Text)
		if l.tone == selection || l.tone == alarm {
			b.WriteString(strings.Repeat(" ", max(0, width-ansi.StringWidth(l.Text)))) // A bar over the whole line.
		}
		b.WriteString("\x1b[m")
	}
	return b.String()
}

// view is what of a snapshot is to be seen.
type view struct {
	server        string
	width, height int
	section       int    // 0: all of them; 1 to 4: one.
	selected      string // The id of the row that is selected in the section.
	from          int    // The first row that is to be seen of it.
	filter        string
	typing        bool // The filter is being typed.
	help          bool
	ask           string // A question that waits for y or n.
	note          string // What the last action came to.
}

// headLines is how many lines are above the sections.
const headLines = 4

// body is how many lines the sections have.
func (v *view) body() int { return max(3, v.height-headLines-1) }

// draw draws the whole screen.
func draw(s *top.Snapshot, v *view) []Line {
	lines := header(s, v)
	switch {
	case v.help:
		lines = append(lines, help...)
	case !s.Listed:
		lines = append(lines, Line{Text: "reading what there is..."})
	case v.section == 0:
		lines = append(lines, overview(s, v)...)
	default:
		section := v.sections(s, s.Problems)[v.section-1]
		lines = append(lines, section.lines(v.from, v.body()-1, v.width, v.selected)...)
	}
	for len(lines) < v.height-1 {
		lines = append(lines, Line{})
	}
	lines = append(lines[:max(0, v.height-1)], footer(s, v))
	for i := range lines {
		lines[i].Text = clip(lines[i].Text, v.width)
	}
	return lines
}

// behindShown is from when on the rates are said to be old.
const behindShown = top.Span(2 * time.Second)

// header is what is always to be seen.
func header(s *top.Snapshot, v *view) []Line {
	state := "live"
	if s.Behind >= behindShown {
		state = s.Behind.String() + " behind"
	}
	left := "stint top  " + v.server + "  " + state
	if v.filter != "" {
		left += "  filter: " + v.filter
	}
	right := "up " + s.Up.String() + "  " + s.Time.Local().Format("15:04:05")
	space := strings.Repeat(" ", max(2, v.width-ansi.StringWidth(left)-len(right)))
	lines := []Line{{Text: left + space + right, tone: head}}
	if s.Away != nil {
		// What follows is what was.
		text := fmt.Sprintf("stint top  %s  away for %s, trying again: %s", v.server, s.AwayFor, harmless(s.Away.Why))
		lines[0] = Line{Text: text, tone: alarm}
	}
	for _, text := range summary(s) {
		lines = append(lines, Line{Text: text})
	}
	return append(lines, Line{Text: tabs(s, v), tone: faint})
}

// summary is the totals and rates, in two lines.
func summary(s *top.Snapshot) []string {
	t, r := &s.Totals, &s.Rates
	jobs := fmt.Sprintf("jobs   %s ready  %s running  %s delayed  %s parked", short(t.Ready), short(t.Running), short(t.Delayed), short(t.Parked))
	if t.Zombies > 0 {
		jobs += "  " + top.Number(t.Zombies, "zombie", "zombies")
	}
	jobs += fmt.Sprintf("  workers %d/%d", t.Runs, t.Room)
	rates := fmt.Sprintf("per s  %s submit  %s start  %s finish  %s fail (%s in 1m)  %s events",
		perSecond(r.Submits), perSecond(r.Starts), perSecond(r.Finishes), perSecond(r.Failures), short(r.FailuresLastMinute), perSecond(r.Events))
	return []string{jobs, rates}
}

// tabs names the sections, with their keys; the one that is shown is in brackets.
func tabs(s *top.Snapshot, v *view) string {
	names := []string{
		"0 all", fmt.Sprintf("1 problems %d", len(s.Problems)), fmt.Sprintf("2 queues %d", s.Totals.Queues),
		fmt.Sprintf("3 workers %d", s.Totals.Workers), fmt.Sprintf("4 limits %d", s.Totals.Limits),
	}
	for i, name := range names {
		if i == v.section {
			names[i] = "[" + name + "]"
		} else {
			names[i] = " " + name + " "
		}
	}
	return strings.Join(names, " ")
}

// shares is how many rows each section gets in turn while there are any.
var shares = [...]int{3, 4, 2, 2}

// overview draws all sections, each with as many rows as there is room for.
func overview(s *top.Snapshot, v *view) []Line {
	all := v.sections(s, s.Problems)
	room := v.body() - len(all)
	rows := make([]int, len(all))
	for gave := true; gave && room > 0; {
		gave = false
		for i := range all {
			more := min(shares[i], all[i].n-rows[i], room)
			rows[i], room = rows[i]+more, room-more
			gave = gave || more > 0
		}
	}
	all[0] = v.sections(s, top.Pick(s.Problems, rows[0]))[0]
	var lines []Line
	for i := range all {
		lines = append(lines, all[i].lines(0, rows[i], v.width, "")...)
	}
	return lines
}

// footer is the last line: a question, what is typed, what an action came to, the command for the selected row, or the keys.
func footer(s *top.Snapshot, v *view) Line {
	switch {
	case v.ask != "":
		return Line{Text: v.ask + "  y/n", tone: alarm}
	case v.typing:
		return Line{Text: "filter: " + v.filter + "_   enter keeps it, esc ends it", tone: selection}
	case v.note != "":
		return Line{Text: v.note, tone: warning}
	}
	keys := "q quit  tab 0-4 section  / filter  ? help"
	if v.section == 0 || v.help {
		return Line{Text: keys, tone: faint}
	}
	section := v.sections(s, s.Problems)[v.section-1]
	if i := section.find(v.selected); i >= 0 {
		r := section.row(i)
		text := "$ " + harmless(r.command)
		if r.queue != "" {
			text += "   p pause/resume"
		}
		return Line{Text: text + "   ? help", tone: faint}
	}
	return Line{Text: keys, tone: faint}
}

// find is the index of a row; -1 if it is not there.
func (s *section) find(id string) int {
	for i := range s.n {
		if s.id(i) == id {
			return i
		}
	}
	return -1
}

// help is the help, in the place of the sections.
var help = []Line{
	{Text: "KEYS", tone: head},
	{Text: "q, ctrl+c         quit"},
	{Text: "tab, 0-4          next section; all, problems, queues, workers, limits"},
	{Text: "up, down, k, j    select a row; the last line says which command shows more of it"},
	{Text: "pgup, pgdown      a screen up or down; home, end: the first row, the last one"},
	{Text: "/                 show only names that hold what is typed; esc ends that"},
	{Text: "p                 pause the selected queue, or resume it; asks first"},
	{Text: "?                 this help"},
	{Text: "WORDS", tone: head},
	{Text: "DELAY             jobs that wait for a time: scheduled, or tried again later"},
	{Text: "START/S, END/S    runs that begin and end, a second, over the last five"},
	{Text: "FAIL/M            runs that failed or were lost in the last minute"},
	{Text: "OLDEST            how long the oldest ready job has been ready"},
	{Text: "CLOSED            its gate is: a worker said 'later', or runs failed in a row"},
	{Text: "RATE              its rate has no permit at the moment"},
	{Text: "ROOM              how many runs the worker has asked for, those it has included"},
	{Text: "CALLS             a worker without a session, which claims by calls"},
}

// printRows is how many rows of a section a text has.
const printRows = 20

// Print writes a snapshot as text.
func Print(w io.Writer, s *top.Snapshot, server, filter string) error {
	lines := header(s, &view{server: server, filter: filter})
	lines = lines[:len(lines)-1] // Without tabs.
	all := view{filter: filter}
	for i, section := range all.sections(s, top.Pick(s.Problems, printRows)) {
		if i < 3 || section.total > 0 {
			lines = append(lines, Line{})
			lines = append(lines, section.lines(0, printRows, 0, "")...)
		}
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, l.Text); err != nil {
			return err
		}
	}
	return nil
}
