package screen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/stintrun/stint/internal/top"
)

// Config is what a screen needs.
type Config struct {
	// Server is its address, to be shown.
	Server string
	// Take takes a picture with what a filter leaves of it.
	Take func(filter string) *top.Snapshot
	// Pause and Resume act on a queue.
	Pause, Resume func(ctx context.Context, queue string) error
	// Filter is the filter to begin with.
	Filter string
	// Colours is whether there may be any.
	Colours bool

	// Output is the terminal.
	Output io.Writer
	// Input is where keys come from.
	Input io.Reader
}

// refresh is how often the picture is taken anew: what happens is to be seen at once, for a person.
const refresh = 250 * time.Millisecond

// Run shows the screen until somebody quits, or ctx ends: then it returns ctx's cause.
func Run(ctx context.Context, c Config) error {
	acting, stop := context.WithCancel(ctx)
	p := &program{config: c, ctx: acting, view: view{server: c.Server, width: 80, height: 24, filter: c.Filter}}
	p.take()
	t := tea.NewProgram(p, tea.WithContext(ctx), tea.WithOutput(c.Output), tea.WithInput(c.Input), tea.WithoutSignalHandler())
	p.send = t.Send
	_, err := t.Run()
	stop()
	p.actions.Wait()
	if ctx.Err() != nil && errors.Is(err, tea.ErrProgramKilled) {
		return context.Cause(ctx)
	}
	return err
}

// program is the screen as the library has it: messages change it, and a view is drawn of what it is then.
type program struct {
	config Config
	ctx    context.Context
	send   func(tea.Msg)
	view   view
	shot   *top.Snapshot

	queue   string // The queue that the question is about.
	pausing bool
	actions sync.WaitGroup
}

type (
	// tick says that the picture is to be taken anew.
	tick struct{}
	// acted is what an action came to.
	acted struct{ note string }
)

func ticking() tea.Cmd { return tea.Tick(refresh, func(time.Time) tea.Msg { return tick{} }) }

// Init begins.
func (p *program) Init() tea.Cmd { return ticking() }

// View draws.
func (p *program) View() tea.View {
	v := tea.NewView(paint(draw(p.shot, &p.view), p.view.width, p.config.Colours))
	v.AltScreen = true
	return v
}

// Update takes a message.
func (p *program) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case tick:
		p.take()
		return p, ticking()
	case acted:
		p.view.note = m.note
		p.take()
	case tea.WindowSizeMsg:
		p.view.width, p.view.height = m.Width, m.Height
		p.move(0)
	case tea.KeyPressMsg:
		return p, p.key(m.String(), m.Text)
	}
	return p, nil
}

func (p *program) take() {
	p.shot = p.config.Take(p.view.filter)
	p.move(0)
}

// key obeys a key.
func (p *program) key(name, text string) tea.Cmd {
	switch {
	case name == "ctrl+c":
		return tea.Quit
	case name == "ctrl+z":
		return tea.Suspend
	case p.view.ask != "":
		p.answer(name == "y")
		return nil
	case p.view.typing:
		p.typed(name, text)
		return nil
	}
	p.view.note = ""
	if p.view.help {
		p.view.help = false
		if name != "q" {
			return nil // Any key ends the help.
		}
	}
	switch name {
	case "q":
		return tea.Quit
	case "?":
		p.view.help = true
	case "/":
		p.view.typing = true
	case "esc":
		p.filter("")
	case "tab":
		p.show((p.view.section + 1) % 5)
	case "shift+tab":
		p.show((p.view.section + 4) % 5)
	case "0", "1", "2", "3", "4":
		p.show(int(name[0] - '0'))
	case "p":
		p.ask()
	default:
		p.scroll(name)
	}
	return nil
}

// scroll obeys the keys that move.
func (p *program) scroll(name string) {
	page := p.view.body() - 1
	switch name {
	case "up", "k":
		p.move(-1)
	case "down", "j":
		p.move(1)
	case "pgup":
		p.move(-page)
	case "pgdown", "space":
		p.move(page)
	case "home", "g":
		p.move(-1 << 30)
	case "end", "G":
		p.move(1 << 30)
	}
}

// show goes to a section.
func (p *program) show(section int) {
	p.view.section, p.view.selected, p.view.from = section, "", 0
	p.move(0)
}

func (p *program) filter(text string) {
	p.view.filter = text
	p.take()
}

// typed changes the filter.
func (p *program) typed(name, text string) {
	was := []rune(p.view.filter)
	switch {
	case name == "enter":
		p.view.typing = false
	case name == "esc":
		p.view.typing = false
		p.filter("")
	case name == "backspace" && len(was) > 0:
		p.filter(string(was[:len(was)-1]))
	case name == "backspace":
		p.view.typing = false
	case text != "":
		p.filter(p.view.filter + harmless(text))
	}
}

// move moves the selection, which stays on its row when rows change places, and sees to it that it is on the screen.
func (p *program) move(by int) {
	v := &p.view
	if v.section == 0 {
		return
	}
	s := v.sections(p.shot, p.shot.Problems)[v.section-1]
	if s.n == 0 {
		v.selected, v.from = "", 0
		return
	}
	at := s.find(v.selected)
	if at < 0 {
		at = v.from // Its row is gone: stay where it was, about.
	}
	at = min(max(at+by, 0), s.n-1)
	rows := v.body() - 1
	v.selected = s.id(at)
	v.from = max(0, min(v.from, at, s.n-rows), at-rows+1)
}

// ask asks whether to pause the selected queue, or to resume it.
func (p *program) ask() {
	if p.view.section == 0 {
		p.view.note = "choose a queue first: 2, then up and down"
		return
	}
	s := p.view.sections(p.shot, p.shot.Problems)[p.view.section-1]
	i := s.find(p.view.selected)
	if i < 0 || s.row(i).queue == "" {
		p.view.note = "no queue is selected"
		return
	}
	p.queue, p.pausing = s.row(i).queue, true
	p.view.ask = fmt.Sprintf("Pause %s? Its runs go on, its jobs wait.", p.queue)
	for _, q := range p.shot.Queues {
		if q.Name == p.queue && q.State == "PAUSED" {
			p.pausing = false
			p.view.ask = fmt.Sprintf("Resume %s? Its %s.", p.queue, top.Number(q.Ready, "ready job may start", "ready jobs may start"))
		}
	}
}

// answer does what was asked about, or does not. It does not wait for the server: Run waits for what goes on.
func (p *program) answer(yes bool) {
	p.view.ask = ""
	if !yes {
		p.view.note = "nothing was done"
		return
	}
	act, done, queue := p.config.Resume, "resumed ", p.queue
	if p.pausing {
		act, done = p.config.Pause, "paused "
	}
	p.view.note = strings.TrimSpace(done+queue) + "..."
	p.actions.Go(func() {
		note := done + queue
		if err := act(p.ctx, queue); err != nil {
			note = fmt.Sprintf("%s could not be %s: %s", queue, strings.TrimSpace(done), harmless(err.Error()))
		}
		p.send(acted{note})
	})
}
