package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// bar draws one line of progress again and again, for a terminal.
type bar struct {
	out     io.Writer
	end     chan struct{}
	drawing sync.WaitGroup
}

const (
	barEvery = 100 * time.Millisecond
	barWidth = 40
)

// newBar makes a bar that draws nothing yet, and never does if out is nil.
func newBar(out io.Writer) *bar { return &bar{out: out} }

// follow draws how far now is on its way to total, until stop or the next follow.
func (b *bar) follow(label string, total int, now func() int) {
	b.stop()
	if b.out == nil {
		return
	}
	end := make(chan struct{})
	b.end = end
	b.drawing.Go(func() {
		tick := time.NewTicker(barEvery)
		defer tick.Stop()
		for {
			_, _ = fmt.Fprint(b.out, "\r", barLine(label, now(), total), "\x1b[K")
			select {
			case <-tick.C:
			case <-end:
				_, _ = fmt.Fprint(b.out, "\r\x1b[K")
				return
			}
		}
	})
}

// stop wipes the line. It may be called again.
func (b *bar) stop() {
	if b.end != nil {
		close(b.end)
		b.end = nil
	}
	b.drawing.Wait()
}

func barLine(label string, now, total int) string {
	full := barWidth * min(now, total) / max(total, 1)
	return fmt.Sprintf("[%s%s] %d of %d %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), now, total, label)
}
