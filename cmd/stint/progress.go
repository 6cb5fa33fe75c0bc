package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	barWidth   = 30
	barRefresh = 200 * time.Millisecond
)

// progress is one line on a terminal that shows how far a submit has come. Elsewhere it shows nothing.
type progress struct {
	out   io.Writer // Nil: not a terminal.
	size  int64     // Bytes of the input; 0: unknown.
	began time.Time

	mu    sync.Mutex
	bytes int64
	count int
}

// newProgress watches over the reading of an input, whose size is known if it is a file.
func newProgress(out io.Writer, in io.Reader) *progress {
	p := &progress{began: time.Now()}
	if isTerminal(out) {
		p.out = out
	}
	if file, ok := in.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			p.size = info.Size()
		}
	}
	return p
}

// run draws the line now and then until the returned function is called, which clears it.
func (p *progress) run() (stop func()) {
	if p.out == nil {
		return func() {}
	}
	end := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() {
		tick := time.NewTicker(barRefresh)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.draw()
			case <-end:
				p.clear()
				return
			}
		}
	})
	return func() {
		close(end)
		drawing.Wait()
	}
}

// read counts bytes of the input, done counts a stored job.
func (p *progress) read(bytes int) {
	p.mu.Lock()
	p.bytes += int64(bytes)
	p.mu.Unlock()
}

func (p *progress) done() {
	p.mu.Lock()
	p.count++
	p.mu.Unlock()
}

// clear empties the line.
func (p *progress) clear() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func (p *progress) draw() {
	p.mu.Lock()
	text := p.line(time.Since(p.began))
	p.mu.Unlock()
	fmt.Fprint(p.out, "\r"+text+"\x1b[K")
}

// line is what to show. Caller holds mu.
func (p *progress) line(took time.Duration) string {
	rate := float64(p.count) / max(took.Seconds(), 0.001)
	text := fmt.Sprintf("%d jobs  %.0f/s", p.count, rate)
	if p.size == 0 {
		return text
	}
	share := min(float64(p.bytes)/float64(p.size), 1)
	full := int(share * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f%%  %s", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), share*100, text)
}

// hasWindow reports whether a file is a terminal: only those have a window.
func hasWindow(file *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	return err == nil
}
