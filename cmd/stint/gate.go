package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// What rates and circuit breakers are set by.
const (
	rateUsage    = "how many may begin in a time, as 100/1m or 100/1m,burst=5; none: any number"
	breakerUsage = "how many failures in a row keep jobs from starting, and for how long before one tries, as 5 or 5,retry-in=1m; none: any number"
)

// parseRate reads PERMITS/PERIOD[,burst=N]; nil for none.
func parseRate(s string) (*stintv1.Rate, error) {
	if s == "" || s == "none" {
		return nil, nil
	}
	wrong := fmt.Errorf("%q: want PERMITS/PERIOD, as 100/1m, and maybe ,burst=N; or none", s)
	text, burst, hasBurst := strings.Cut(s, ",burst=")
	permits, period, ok := strings.Cut(text, "/")
	if !ok {
		return nil, wrong
	}
	if period != "" && period[0] != '.' && (period[0] < '0' || period[0] > '9') {
		period = "1" + period // 10/s
	}
	n, err := strconv.ParseUint(permits, 10, 32)
	d, err2 := time.ParseDuration(period)
	if err != nil || err2 != nil || n == 0 || d <= 0 {
		return nil, wrong
	}
	rate := &stintv1.Rate{Permits: uint32(n), Period: durationpb.New(d)}
	if hasBurst {
		b, err := strconv.ParseUint(burst, 10, 32)
		if err != nil || b == 0 {
			return nil, wrong
		}
		rate.Burst = uint32(b)
	}
	return rate, nil
}

// rateText is a rate as parseRate reads it.
func rateText(r *stintv1.Rate) string {
	text := fmt.Sprintf("%d/%s", r.GetPermits(), cmp.Or(durationText(r.GetPeriod()), "1s"))
	if r.GetBurst() > 0 {
		text += fmt.Sprintf(",burst=%d", r.GetBurst())
	}
	return text
}

// parseRates reads "KEY=RATE" pairs; nil is the rate of a key that goes back to what all have.
func parseRates(pairs []string) (map[string]*stintv1.Rate, error) {
	rates := map[string]*stintv1.Rate{}
	for _, pair := range pairs {
		text, burst, hasBurst := strings.Cut(pair, ",burst=")
		i := strings.LastIndexByte(text, '=')
		if i < 0 {
			return nil, fmt.Errorf("--key-rate %q: want KEY=PERMITS/PERIOD", pair)
		}
		if text = text[i+1:]; hasBurst {
			text += ",burst=" + burst
		}
		rate, err := parseRate(text)
		if err != nil {
			return nil, fmt.Errorf("--key-rate %w", err)
		}
		rates[pair[:i]] = rate
	}
	return rates, nil
}

// parseBreaker reads FAILURES[,retry-in=D]; nil for none.
func parseBreaker(s string) (*stintv1.CircuitBreaker, error) {
	if s == "" || s == "none" {
		return nil, nil
	}
	wrong := fmt.Errorf("%q: want a number of failures, and maybe ,retry-in=DURATION; or none", s)
	text, retryIn, hasRetryIn := strings.Cut(s, ",retry-in=")
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return nil, wrong
	}
	b := &stintv1.CircuitBreaker{Failures: uint32(n)}
	if hasRetryIn {
		d, err := time.ParseDuration(retryIn)
		if err != nil {
			return nil, wrong
		}
		b.RetryIn = durationpb.New(d)
	}
	return b, nil
}

// breakerText is a circuit breaker as parseBreaker reads it.
func breakerText(b *stintv1.CircuitBreaker) string {
	text := fmt.Sprint(b.GetFailures())
	if b.GetRetryIn() != nil {
		text += ",retry-in=" + durationText(b.GetRetryIn())
	}
	return text
}

// checkGating says what is wrong with the flags of a rate and a circuit breaker.
func checkGating(rate, breaker string) error {
	if _, err := parseRate(rate); err != nil {
		return usageError("--rate %w", err)
	}
	if _, err := parseBreaker(breaker); err != nil {
		return usageError("--circuit-breaker %w", err)
	}
	return nil
}

// gateRows shows what a gate keeps closed.
func gateRows(w io.Writer, g *stintv1.Gate) {
	if text := gateText(g); text != "" {
		row(w, "Gate", text)
	}
}

// gateText says what keeps a gate closed; empty if nothing does.
func gateText(g *stintv1.Gate) string {
	var parts []string
	if g.GetThrottledUntil() != nil {
		text := "throttled until " + timeText(g.GetThrottledUntil())
		if g.GetThrottleReason() != "" {
			text += " (" + g.GetThrottleReason() + ")"
		}
		parts = append(parts, text)
	}
	switch {
	case g.GetTripTime() != nil && g.GetTrying():
		parts = append(parts, failuresText(g)+" in a row, one run is trying")
	case g.GetTripTime() != nil:
		parts = append(parts, failuresText(g)+" in a row, one run tries at "+timeText(g.GetTryTime()))
	}
	if g.GetNextPermitTime() != nil {
		parts = append(parts, "next permit at "+timeText(g.GetNextPermitTime()))
	}
	return strings.Join(parts, ", ")
}

func failuresText(g *stintv1.Gate) string {
	if g.GetFailures() == 1 {
		return "1 failure"
	}
	return fmt.Sprintf("%d failures", g.GetFailures())
}

func newQueueOpenCommand(g *globals) *cobra.Command {
	return queueCommand(g, "open", "Let a queue's jobs start although a worker said it is overloaded, or its runs failed in a row, or no permit is left",
		"  stint queue open thumbnails",
		func(ctx context.Context, c *client.Client, queue string) error {
			return g.openGate(ctx, c, queue, &stintv1.OpenGateRequest{Of: &stintv1.OpenGateRequest_Queue{Queue: queue}})
		})
}

func newLimitOpenCommand(g *globals) *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:               "open NAME",
		Short:             "Let jobs that take a key start although a worker said it is overloaded, or runs failed in a row, or no permit is left",
		Example:           "  stint limit open mail-api --key acme",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeLimits(g),
	}
	c.Flags().StringVar(&key, "key", "", "the key (default: the empty one)")
	c.RunE = func(c *cobra.Command, args []string) error {
		return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
			return g.openGate(ctx, c, args[0], &stintv1.OpenGateRequest{Of: &stintv1.OpenGateRequest_Limit{Limit: args[0]}, Key: key})
		})
	}
	return c
}

func (g *globals) openGate(ctx context.Context, c *client.Client, name string, m *stintv1.OpenGateRequest) error {
	answer, err := c.Queues().OpenGate(ctx, m)
	if err != nil {
		return err
	}
	return g.print(answer, []proto.Message{answer}, func(w io.Writer) {
		row(w, name, "OPEN")
		if was := gateText(answer.GetWas()); was != "" {
			row(w, "Was", was)
		}
	})
}

// applyRates changes the rates of keys.
func applyRates(p *stintv1.LimitPolicy, rates map[string]*stintv1.Rate) {
	for _, key := range slices.Sorted(maps.Keys(rates)) {
		if p.RateOf == nil {
			p.RateOf = map[string]*stintv1.Rate{}
		}
		if p.RateOf[key] = rates[key]; rates[key] == nil {
			delete(p.RateOf, key)
		}
	}
}
