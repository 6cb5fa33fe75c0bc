package screen

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"github.com/stintrun/stint/internal/top"
)

// column is a column of a table. Of the text ones the first gets what the others leave, and all are cut at the screen's edge.
type column struct {
	head string
	text bool // Aligned at the left.
	most int  // How wide its text may be on a screen; 0: as wide as it is.
}

// section is one of the tables of the screen. Its rows are made when they are drawn: there may be thousands.
type section struct {
	title   string
	columns []column
	n       int              // How many rows there are to draw.
	total   int              // How many there are at all.
	id      func(int) string // What stays the same when rows change places.
	row     func(int) tableRow
	none    string // What is said when there is none.
}

// tableRow is a row.
type tableRow struct {
	cells   []string
	tone    tone
	command string // What to run to see or do more.
	queue   string // The queue it is about, if it is about one.
}

// sections are those of a snapshot, in their order; the problems may be some of its.
func (v *view) sections(s *top.Snapshot, problems []top.Problem) []section {
	all := []section{problemSection(s, problems), queueSection(s), workerSection(s), limitSection(s)}
	if v.filter != "" {
		for i := range all {
			all[i].none = "none with " + v.filter + " in its name"
		}
	}
	return all
}

func problemSection(s *top.Snapshot, shown []top.Problem) section {
	return section{
		title: "PROBLEMS", none: "none", n: len(shown), total: len(s.Problems),
		columns: []column{{head: "", text: true, most: 12}, {text: true, most: 24}, {text: true}},
		id:      func(i int) string { return fmt.Sprint(shown[i].Rank, " ", shown[i].Name) },
		row: func(i int) tableRow {
			p := &shown[i]
			t := warning
			if p.Rank <= top.JobsParked {
				t = bad
			} else if p.Rank >= top.WorkerDraining {
				t = plain
			}
			return tableRow{cells: []string{p.Rank.String(), p.Name, p.Detail}, tone: t, command: p.Command, queue: p.Queue}
		},
	}
}

func queueSection(s *top.Snapshot) section {
	return section{
		title: "QUEUES", none: "none yet; a first submit makes one", n: len(s.Queues), total: len(s.Queues),
		columns: []column{
			{text: true},
			{head: "READY"},
			{head: "RUN"},
			{head: "DELAY"},
			{head: "PARK"},
			{head: "START/S"},
			{head: "END/S"},
			{head: "FAIL/M"},
			{head: "OLDEST"},
			{head: "STATE", text: true},
		},
		id: func(i int) string { return s.Queues[i].Name },
		row: func(i int) tableRow {
			q := &s.Queues[i]
			t := plain
			switch {
			case q.Worst <= top.JobsParked:
				t = bad
			case q.Worst < top.Fine:
				t = warning
			}
			oldest := "-"
			if q.OldestReady > 0 || q.Ready > 0 {
				oldest = q.OldestReady.String()
			}
			return tableRow{
				cells: []string{
					q.Name, short(q.Ready), short(q.Running), short(q.Delayed), short(q.Parked), perSecond(q.Starts), perSecond(q.Ends),
					short(q.Failures), oldest, q.State,
				},
				tone: t, command: "stint queue get " + q.Name, queue: q.Name,
			}
		},
	}
}

func workerSection(s *top.Snapshot) section {
	return section{
		title: "WORKERS", none: "none; start one with: stint work QUEUE -- CMD", n: len(s.Workers), total: len(s.Workers),
		columns: []column{
			{text: true},
			{head: "HOST", text: true, most: 16},
			{head: "RUNS"},
			{head: "ROOM"},
			{head: "ZOMBIES"},
			{head: "STATE", text: true},
			{head: "HEARD"},
			{head: "QUEUES", text: true, most: 20},
		},
		id: func(i int) string { return s.Workers[i].Instance },
		row: func(i int) tableRow {
			w := &s.Workers[i]
			t := plain
			if w.State == "AWAY" && w.Runs > 0 {
				t = bad
			} else if w.State == "DRAINING" {
				t = warning
			}
			return tableRow{
				cells: []string{
					w.Name, w.Host, fmt.Sprint(w.Runs), fmt.Sprint(w.Room), fmt.Sprint(w.Zombies), w.State, w.Heard.String(), strings.Join(w.Queues, ","),
				},
				tone: t, command: "stint worker drain " + w.Instance,
			}
		},
	}
}

func limitSection(s *top.Snapshot) section {
	return section{
		title: "LIMITS", none: "none", n: len(s.Limits), total: len(s.Limits),
		columns: []column{
			{text: true}, {head: "KEY", text: true, most: 24}, {head: "TAKEN"}, {head: "MAX"}, {head: "WAITING"}, {head: "STATE", text: true},
		},
		id: func(i int) string { return s.Limits[i].Name + "=" + s.Limits[i].Key },
		row: func(i int) tableRow {
			l := &s.Limits[i]
			t := plain
			switch {
			case l.State == "CLOSED":
				t = bad
			case l.Waiting > 0:
				t = warning
			}
			most := "-"
			if l.Max > 0 {
				most = short(uint64(l.Max))
			}
			return tableRow{
				cells: []string{l.Name, l.Key, short(l.Taken), most, short(l.Waiting), l.State}, tone: t, command: "stint limit usage " + l.Name,
			}
		},
	}
}

// heading is the text over the first column: what it is, and how many of how many.
func (s *section) heading(shown int) string {
	switch {
	case s.total == 0:
		return s.title
	case shown < s.total:
		return fmt.Sprintf("%s %d of %s", s.title, shown, top.Digits(uint64(s.total)))
	default:
		return s.title + " " + top.Digits(uint64(s.total))
	}
}

// lines draws the rows from one on, under their heads. Width 0 is as wide as it takes.
func (s *section) lines(from, count, width int, selected string) []Line {
	if s.total == 0 {
		return []Line{{Text: clip(s.title+"  "+s.none, width), tone: head}}
	}
	count = max(0, min(count, s.n-from))
	grid := make([][]string, 1, count+1)
	tones := []tone{head}
	for _, c := range s.columns {
		grid[0] = append(grid[0], c.head)
	}
	heading := s.heading(count)
	if s.headed() {
		grid[0][0] = heading
	}
	for i := from; i < from+count; i++ {
		r := s.row(i)
		for j, cell := range r.cells {
			r.cells[j] = harmless(cell)
		}
		grid = append(grid, r.cells)
		if s.id(i) == selected {
			r.tone = selection
		}
		tones = append(tones, r.tone)
	}
	widths := s.widths(grid, width)
	lines := make([]Line, len(grid))
	for i, cells := range grid {
		lines[i] = Line{Text: clip(s.align(cells, widths), width), tone: tones[i]}
	}
	if !s.headed() {
		lines[0].Text = clip(heading, width)
	}
	return lines
}

// headed reports whether the columns have heads.
func (s *section) headed() bool { return s.columns[len(s.columns)-1].head != "" }

// widths are how wide the columns are.
func (s *section) widths(grid [][]string, width int) []int {
	widths := make([]int, len(s.columns))
	rest := width
	for j := 1; j < len(widths); j++ {
		rest -= len(s.gap(j))
	}
	for j, c := range s.columns {
		for _, cells := range grid {
			widths[j] = max(widths[j], ansi.StringWidth(cells[j]))
		}
		if width > 0 && c.most > 0 {
			widths[j] = max(ansi.StringWidth(c.head), min(widths[j], c.most))
		}
		if j > 0 {
			rest -= widths[j]
		}
	}
	if width > 0 && s.columns[0].most == 0 {
		// What the first column has to spare lies at its right, so that numbers stand at the same place in all sections.
		widths[0] = max(rest, ansi.StringWidth(grid[0][0]))
	}
	return widths
}

func (s *section) align(cells []string, widths []int) string {
	var b strings.Builder
	for j, cell := range cells {
		if j > 0 {
			b.WriteString(s.gap(j))
		}
		if j == 0 {
			cell = clipMiddle(cell, widths[j])
		}
		cell = clip(cell, widths[j])
		space := strings.Repeat(" ", max(0, widths[j]-ansi.StringWidth(cell)))
		if s.columns[j].text {
			b.WriteString(cell + space)
		} else {
			b.WriteString(space + cell)
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// gap is the space before a column: numbers stand apart by themselves.
func (s *section) gap(j int) string {
	if s.columns[j].text || s.columns[j-1].text {
		return "  "
	}
	return " "
}

// clipMiddle cuts a name that is wider than a width in its middle: names that begin alike are told apart by their ends.
func clipMiddle(s string, width int) string {
	over := ansi.StringWidth(s) - width
	if over <= 0 || width < 8 {
		return s
	}
	head := width / 3
	return ansi.Truncate(s, head, "") + "~" + ansi.TruncateLeft(s, head+over+1, "")
}

// clip cuts text that is wider than a width; 0 is any.
func clip(s string, width int) string {
	if width <= 0 {
		return s
	}
	return ansi.Truncate(s, width, "~")
}

// harmless is text that others chose, without what a terminal would obey.
func harmless(s string) string {
	printable := func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}
	return strings.Map(printable, s)
}

// short is a number in five places at most.
func short(n uint64) string {
	x := float64(n)
	switch {
	case n < 100_000:
		return fmt.Sprint(n)
	case n < 1_000_000:
		return fmt.Sprintf("%.0fk", x/1e3)
	case n < 100_000_000:
		return fmt.Sprintf("%.1fM", x/1e6)
	case n < 10_000_000_000:
		return fmt.Sprintf("%.0fM", x/1e6)
	default:
		return fmt.Sprintf("%.0fG", x/1e9)
	}
}

// perSecond is a rate.
func perSecond(x float64) string {
	switch {
	case x < 0.05:
		return "0"
	case x < 10:
		return fmt.Sprintf("%.1f", x)
	default:
		return short(uint64(x + 0.5))
	}
}
