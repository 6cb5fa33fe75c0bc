package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// retryHelp is how --retry is written, for the help of the commands that have it.
const retryHelp = `How failed jobs are tried again is written as parts with commas between them, in any order; what no part names is
left to the next policy:

  exponential:1sx2..10m   delays from 1s, each twice the last, to 10m; all of 1s, x2 and ..10m may be left out
  linear:1s+5s..10m       delays from 1s, each 5s longer than the last, to 10m; likewise
  constant:30s            the same delay every time
  attempts=5              failed attempts until the job is FAILED
  deadline=1h             FAILED by a failure or crash this long after its submit, or its last retry by hand; 0: never
  on-failure=park         what a failure of the work means: retry, park or fail
  interrupt-delay=10s     how long an interrupted job stays away`

// retryPolicy is a retry policy as a flag.
type retryPolicy struct{ *stintv1.RetryPolicy }

// String is the policy as Set takes it; empty if it says nothing.
func (p *retryPolicy) String() string { return retryText(p.RetryPolicy) }

// Set takes the flag's value.
func (p *retryPolicy) Set(s string) error {
	policy, err := parseRetry(s)
	if err == nil {
		p.RetryPolicy = policy
	}
	return err
}

// Type names the flag's value in help texts.
func (p *retryPolicy) Type() string { return "policy" }

// parseRetry reads a policy as retryHelp describes it; "default" is one that says nothing. How large the numbers may be
// is for the server to say.
func parseRetry(s string) (*stintv1.RetryPolicy, error) {
	p := &stintv1.RetryPolicy{}
	if s == "default" {
		return p, nil
	}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(s, ",") {
		key, value, setting := strings.Cut(part, "=")
		if !setting {
			var numbers bool
			if key, value, numbers = strings.Cut(part, ":"); numbers && value == "" {
				return nil, fmt.Errorf("%q: nothing after the colon", part)
			}
		}
		what := key
		if !setting {
			what = "curve"
		}
		if seen[what] {
			return nil, fmt.Errorf("%q: a second %s", part, what)
		}
		seen[what] = true
		var err error
		if setting {
			err = parseRetrySetting(p, key, value)
		} else {
			err = parseCurve(p, key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
	}
	return p, nil
}

func parseRetrySetting(p *stintv1.RetryPolicy, key, value string) (err error) {
	switch key {
	case "attempts":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n == 0 {
			return errors.New("want a number from 1 on")
		}
		p.MaxAttempts = uint32(n)
		return nil
	case "deadline":
		p.Deadline, err = parseDuration(value)
	case "on-failure":
		var v int32
		v, err = parseEnum(stintv1.OnFailure_value, "ON_FAILURE_", value)
		p.OnFailure = stintv1.OnFailure(v)
	case "interrupt-delay":
		p.InterruptDelay, err = parseDuration(value)
	default:
		err = errors.New("want one of attempts, deadline, on-failure, interrupt-delay before the =")
	}
	return err
}

func parseCurve(p *stintv1.RetryPolicy, curve, numbers string) (err error) {
	switch curve {
	case "exponential":
		e := &stintv1.ExponentialBackoff{}
		p.Backoff = &stintv1.RetryPolicy_Exponential{Exponential: e}
		var growth string
		if e.Initial, growth, e.Max, err = parseDelays(numbers, "x"); err != nil || growth == "" {
			return err
		}
		if e.Multiplier, err = strconv.ParseFloat(growth, 64); err != nil || e.Multiplier == 0 {
			return fmt.Errorf("%q after the x is no factor", growth)
		}
	case "linear":
		l := &stintv1.LinearBackoff{}
		p.Backoff = &stintv1.RetryPolicy_Linear{Linear: l}
		var growth string
		if l.Initial, growth, l.Max, err = parseDelays(numbers, "+"); err != nil || growth == "" {
			return err
		}
		l.Increment, err = parseDuration(growth)
	case "constant":
		c := &stintv1.ConstantBackoff{}
		p.Backoff = &stintv1.RetryPolicy_Constant{Constant: c}
		if numbers != "" {
			c.Delay, err = parseDuration(numbers)
		}
	default:
		err = errors.New("want exponential, linear, constant, or a setting like attempts=5")
	}
	return err
}

// parseDelays reads "1sx2..10m": the first delay, what comes after the sign of growth, and the longest delay.
func parseDelays(s, sign string) (first *durationpb.Duration, growth string, longest *durationpb.Duration, err error) {
	s, last, bounded := strings.Cut(s, "..")
	s, growth, grows := strings.Cut(s, sign)
	if grows && growth == "" {
		return nil, "", nil, fmt.Errorf("nothing after the %s", sign)
	}
	if s != "" {
		first, err = parseDuration(s)
	}
	if bounded && err == nil {
		longest, err = parseDuration(last)
	}
	return first, growth, longest, err
}

func parseDuration(s string) (*durationpb.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no duration like 1m30s", s)
	}
	return durationpb.New(d), nil
}

// retryText is a policy in the words of parseRetry; empty if it says nothing.
func retryText(p *stintv1.RetryPolicy) string {
	var parts []string
	setting := func(key, value string) {
		if value != "" {
			parts = append(parts, key+"="+value)
		}
	}
	switch p.GetBackoff().(type) {
	case *stintv1.RetryPolicy_Exponential:
		e, growth := p.GetExponential(), ""
		if e.GetMultiplier() != 0 {
			growth = fmt.Sprintf("x%g", e.GetMultiplier())
		}
		parts = append(parts, curveText("exponential", e.GetInitial(), growth, e.GetMax()))
	case *stintv1.RetryPolicy_Linear:
		l, growth := p.GetLinear(), ""
		if l.GetIncrement() != nil {
			growth = "+" + durationText(l.GetIncrement())
		}
		parts = append(parts, curveText("linear", l.GetInitial(), growth, l.GetMax()))
	case *stintv1.RetryPolicy_Constant:
		parts = append(parts, curveText("constant", p.GetConstant().GetDelay(), "", nil))
	}
	if n := p.GetMaxAttempts(); n > 0 {
		setting("attempts", strconv.FormatUint(uint64(n), 10))
	}
	setting("deadline", durationText(p.GetDeadline()))
	if o := p.GetOnFailure(); o != 0 {
		setting("on-failure", strings.ToLower(name(o, "ON_FAILURE_")))
	}
	setting("interrupt-delay", durationText(p.GetInterruptDelay()))
	return strings.Join(parts, ",")
}

func curveText(curve string, first *durationpb.Duration, growth string, longest *durationpb.Duration) string {
	numbers := durationText(first) + growth
	if longest != nil {
		numbers += ".." + durationText(longest)
	}
	if numbers == "" {
		return curve
	}
	return curve + ":" + numbers
}

// durationText is a duration without the zeros at its end; empty if it is absent.
func durationText(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	s := d.AsDuration().String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
