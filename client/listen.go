package client

import (
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"time"
)

const (
	// listenerBacklog is how many events wait for a listener; of those that come while so many do it learns the number only.
	listenerBacklog = 1 << 14
	// listenerPatience is how long Run waits, when all else is done, for listeners that are still busy.
	listenerPatience = time.Second
)

// listener is told events on a goroutine of its own, which lives while there are some: what it does, or fails to do, is
// nobody else's loss.
type listener struct {
	fn    func(Event)
	kinds uint64 // a bit for each kind; 0: all

	// Guarded by Worker.mu.
	events []Event
	missed uint64        // since the last of them
	idle   chan struct{} // closed when it has been told everything; nil: it has
}

// Listen has listener told what happens to the worker from now on: the events of the kinds given, or all if none is given.
// Several may be added, at any time. Each is told one event at a time, in order, beside the worker's own work: one that is
// slow or panics delays and breaks nothing (a panic is logged). If 16,384 events wait for it, those that follow are left
// out until it has caught up; the next one that it is told says in Missed how many. Run returns when all have been told
// everything, or a second later. A listener may call any of the worker's methods, but to wait for the worker's end is to
// wait for that second.
//
// The function that Listen returns removes the listener: no event is told after it but one that is being told already.
func (w *Worker) Listen(tell func(Event), kinds ...EventKind) (remove func()) {
	l := &listener{fn: tell}
	for _, k := range kinds {
		l.kinds |= 1 << k
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listeners = append(w.listeners, l)
	w.hear()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		l.events = nil
		w.listeners = slices.DeleteFunc(w.listeners, func(o *listener) bool { return o == l })
		w.hear()
	}
}

// hear notes which kinds somebody listens to. Caller holds mu.
func (w *Worker) hear() {
	all := uint64(0)
	for _, l := range w.listeners {
		if l.kinds == 0 {
			all = math.MaxUint64
		}
		all |= l.kinds
	}
	w.heard.Store(all)
}

// hears reports whether somebody listens to the kind.
func (w *Worker) hears(k EventKind) bool { return w.heard.Load()&(1<<k) != 0 }

// event tells the listeners what happened. Caller holds mu.
func (w *Worker) event(e Event) {
	if !w.hears(e.Kind) {
		return
	}
	e.Time = time.Now()
	for _, l := range w.listeners {
		switch {
		case l.kinds != 0 && l.kinds&(1<<e.Kind) == 0:
			continue
		case len(l.events) >= listenerBacklog:
			l.missed++
			continue
		}
		e.Missed, l.missed = l.missed, 0
		l.events = append(l.events, e)
		if l.idle == nil {
			l.idle = make(chan struct{})
			go w.tell(l)
		}
	}
}

// started tells the listeners that a run's handler is about to be called.
func (w *Worker) started(h *held) {
	if w.hears(RunStarted) {
		w.mu.Lock()
		w.event(Event{Kind: RunStarted, Run: h.run})
		w.mu.Unlock()
	}
}

// tell tells a listener its events until none is left. A listener that calls runtime.Goexit takes this goroutine with it,
// so another one takes its place.
func (w *Worker) tell(l *listener) {
	done := false
	defer func() {
		if !done {
			go w.tell(l)
		}
	}()
	for {
		w.mu.Lock()
		if done = len(l.events) == 0; done {
			close(l.idle)
			l.idle, l.events = nil, nil
			w.mu.Unlock()
			return
		}
		e := l.events[0]
		l.events[0], l.events = Event{}, l.events[1:]
		w.mu.Unlock()
		w.tellOne(l, e)
	}
}

// tellOne tells a listener one event.
func (w *Worker) tellOne(l *listener, e Event) {
	defer func() {
		if v := recover(); v != nil {
			w.cfg.Logger.Error("a listener panicked", slog.String("event", e.Kind.String()), slog.String("panic", fmt.Sprint(v)),
				slog.String("stack", string(debug.Stack())))
		}
	}()
	l.fn(e)
}

// awaitListeners waits until the listeners have been told everything, at most listenerPatience.
func (w *Worker) awaitListeners() {
	timer := time.NewTimer(listenerPatience)
	defer timer.Stop()
	w.mu.Lock()
	listeners := slices.Clone(w.listeners)
	w.mu.Unlock()
	for _, l := range listeners {
		w.mu.Lock()
		idle := l.idle
		w.mu.Unlock()
		if idle == nil {
			continue
		}
		select {
		case <-idle:
		case <-timer.C:
			w.cfg.Logger.Warn("a listener is still busy; the worker ends without it")
			return
		}
	}
}
