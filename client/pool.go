package client

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// maxFrames is how many stack frames of a panic are reported.
const maxFrames = 64

// pool is room for runs of some queues, and the goroutines that execute them: as many as may run at once, for the life
// of Run, because starting one for each run costs more than a small handler does.
type pool struct {
	worker      *Worker
	queues      []string
	concurrency int
	handler     Handler
	queue       chan *held // as long as the pool is wide; the server never assigns more
}

// start starts the goroutines; they end when the queue is closed.
func (p *pool) start(running *sync.WaitGroup) {
	room := max(p.concurrency, 0)
	p.queue = make(chan *held, room)
	running.Add(room)
	for range room {
		go p.work(running)
	}
}

// work executes runs one after another. A handler that calls runtime.Goexit takes this goroutine with it, so another
// one takes its place.
func (p *pool) work(running *sync.WaitGroup) {
	ended := false
	defer func() {
		if ended {
			running.Done()
		} else {
			go p.work(running)
		}
	}()
	for h := range p.queue {
		p.execute(h)
	}
	ended = true
}

// execute calls the handler and its hooks and files the outcome, however it ends. A run that was interrupted or stopped before it
// started is not started.
func (p *pool) execute(h *held) {
	var finish *stintv1.Finish
	defer func() {
		if v := recover(); v != nil {
			finish = failed(panicFailure(v))
		} else if finish == nil {
			finish = failed(&stintv1.Failure{Type: "goexit", Message: "the handler called runtime.Goexit"})
		}
		cause := context.Cause(h.ctx)
		h.cancel(nil)
		h.callHooks(p.worker.cfg.Logger, cause, p.worker.graceOf(h), finish.GetSuccess() != nil)
		p.worker.finished(h, finish)
	}()
	err := context.Cause(h.ctx)
	if err == nil {
		p.worker.started(h)
		err = p.handler(extract(h.ctx, h.run.TraceContext), h.run)
	}
	finish = outcome(h.run, err, context.Cause(h.ctx))
}

// panicFailure describes a panic. It is called by the deferred function that recovered it, while the stack is still
// there.
func panicFailure(v any) *stintv1.Failure {
	f := &stintv1.Failure{Type: "panic", Message: fmt.Sprint(v)}
	pcs := make([]uintptr, maxFrames)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		frame, more := frames.Next()
		// The frames between the panic and its recovery say nothing about the handler.
		if len(f.Stack) > 0 || !strings.HasPrefix(frame.Function, "runtime.") {
			f.Stack = append(f.Stack, &stintv1.StackFrame{
				Function: frame.Function, File: frame.File, Line: uint32(max(frame.Line, 0)), //nolint:gosec // a line number
			})
		}
		if !more {
			return cleanFailure(f)
		}
	}
}

func failed(f *stintv1.Failure) *stintv1.Finish {
	return &stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: f}}
}
