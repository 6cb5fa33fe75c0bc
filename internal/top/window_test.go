package top

import (
	"testing"
	"testing/synctest"
	"time"
)

// rated is what a window says now, of events that began to be counted at since.
func rated(w *window, since time.Time) float64 { return w.rate(starts, time.Now(), since) }

func TestRateSlides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w window
		since := time.Now()
		for range 100 { // Ten seconds of ten a second.
			time.Sleep(100 * time.Millisecond)
			w.add(starts, time.Now())
		}
		if got := rated(&w, since); got < 9.5 || got > 10.5 {
			t.Errorf("after ten seconds of 10/s the rate is %.2f", got)
		}
		time.Sleep(3 * time.Second)
		if got := rated(&w, since); got < 3 || got > 6 {
			t.Errorf("three seconds after the last the rate is %.2f, want about 4", got)
		}
		time.Sleep(3 * time.Second)
		if got := rated(&w, since); got != 0 {
			t.Errorf("six seconds after the last the rate is %.2f, want none", got)
		}
		if got := w.lastMinute(starts, time.Now()); got != 100 {
			t.Errorf("there were %d in the last minute, want all 100", got)
		}
		time.Sleep(time.Minute)
		if got := w.lastMinute(starts, time.Now()); got != 0 || !w.idle(time.Now()) {
			t.Errorf("a minute later there are still %d, idle is %t", got, w.idle(time.Now()))
		}
	})
}

// TestRateOfABeginning: what has been measured for two seconds is not spread over five, and one event at the very beginning is
// not a thousand a second.
func TestRateOfABeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w window
		time.Sleep(300 * time.Millisecond)
		since := time.Now()
		w.add(starts, time.Now())
		time.Sleep(time.Millisecond)
		if got := rated(&w, since); got != 2 {
			t.Errorf("after a millisecond the rate is %.2f, want that of half a second", got)
		}
		for range 199 {
			time.Sleep(10 * time.Millisecond)
			w.add(starts, time.Now())
		}
		if got := rated(&w, since); got < 95 || got > 105 {
			t.Errorf("after two seconds of 100/s the rate is %.2f", got)
		}
	})
}

func TestWindowTakesOldAndFarEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w window
		now := time.Now()
		w.add(failures, now)
		w.add(failures, now.Add(-59*time.Second))
		w.add(failures, now.Add(-60*time.Second)) // Too old by a second.
		if got := w.lastMinute(failures, now); got != 2 {
			t.Errorf("counted %d, want 2", got)
		}
		w.add(failures, now.Add(24*time.Hour))
		if got := w.lastMinute(failures, now.Add(24*time.Hour)); got != 1 {
			t.Errorf("a day later counted %d, want 1", got)
		}
	})
}

func TestSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s skew
		ahead := 3 * time.Hour
		s.learn(time.Now().Add(ahead-10*time.Minute), time.Now()) // An old event.
		s.learn(time.Now().Add(ahead-20*time.Millisecond), time.Now())
		s.learn(time.Now().Add(ahead-time.Second), time.Now()) // One that came late.
		if got := ahead - s.estimated; got != 20*time.Millisecond {
			t.Errorf("the estimate is %s off, want 20ms", got)
		}
		// The server's clock is set back by an hour.
		for range 40 {
			time.Sleep(time.Second)
			s.learn(time.Now().Add(ahead-time.Hour), time.Now())
		}
		if got := ahead - s.estimated; got != time.Hour {
			t.Errorf("half a minute after its clock was set the estimate is %s off what it was, want 1h", got)
		}
	})
}
