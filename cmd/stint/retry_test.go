package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func TestParseRetry(t *testing.T) {
	for text, want := range map[string]string{
		"exponential":               `{"exponential":{}}`,
		"exponential:1s":            `{"exponential":{"initial":"1s"}}`,
		"exponential:1s..10m":       `{"exponential":{"initial":"1s","max":"600s"}}`,
		"exponential:1.5sx1.25..1h": `{"exponential":{"initial":"1.500s","max":"3600s","multiplier":1.25}}`,
		"exponential:x3":            `{"exponential":{"multiplier":3}}`,
		"exponential:..1h":          `{"exponential":{"max":"3600s"}}`,
		"exponential:0s":            `{"exponential":{"initial":"0s"}}`,
		"linear":                    `{"linear":{}}`,
		"linear:1s+5s..10m":         `{"linear":{"initial":"1s","increment":"5s","max":"600s"}}`,
		"linear:+5s":                `{"linear":{"increment":"5s"}}`,
		"linear:2m":                 `{"linear":{"initial":"120s"}}`,
		"constant":                  `{"constant":{}}`,
		"constant:30s":              `{"constant":{"delay":"30s"}}`,
		"attempts=5":                `{"maxAttempts":5}`,
		"default":                   `{}`,
		"deadline=0":                `{"deadline":"0s"}`,
		"on-failure=retry":          `{"onFailure":"ON_FAILURE_RETRY"}`,
		"on-failure=FAIL":           `{"onFailure":"ON_FAILURE_FAIL"}`,
		"interrupt-delay=1m30s":     `{"interruptDelay":"90s"}`,
		"on-failure=park,deadline=1h,exponential:1s..10m,attempts=5": `{"maxAttempts":5,"exponential":{"initial":"1s","max":"600s"},` +
			`"deadline":"3600s","onFailure":"ON_FAILURE_PARK"}`,
	} {
		wanted := &stintv1.RetryPolicy{}
		if err := protojson.Unmarshal([]byte(want), wanted); err != nil {
			t.Fatal(err)
		}
		got, err := parseRetry(text)
		if diff := cmp.Diff(wanted, got, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", text, err, diff)
		}
	}
}

// What is no policy is refused with the part that is to blame and what is wrong with it.
func TestParseRetryRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"":                           `"": want exponential, linear, constant, or a setting like attempts=5`,
		"fibonacci":                  `"fibonacci": want exponential, linear`,
		"default,attempts=5":         `"default": want exponential`,
		"attempts":                   `"attempts": want exponential, linear`,
		"attempts=5,":                `"": want exponential`,
		"linear, attempts=5":         `" attempts=5": want one of attempts, deadline, on-failure, interrupt-delay`,
		"tries=5":                    `"tries=5": want one of attempts`,
		"attempts=0":                 `"attempts=0": want a number from 1 on`,
		"attempts=-1":                `"attempts=-1": want a number`,
		"attempts=4294967296":        `want a number`,
		"attempts=":                  `want a number`,
		"deadline=1":                 `"deadline=1": "1" is no duration like 1m30s`,
		"deadline=":                  `"" is no duration`,
		"interrupt-delay=x":          `"interrupt-delay=x": "x" is no duration`,
		"on-failure=stop":            `"on-failure=stop": "stop": want one of retry, park, fail`,
		"on-failure=unspecified":     `want one of retry, park, fail`,
		"constant:":                  `"constant:": nothing after the colon`,
		"constant:x2":                `"x2" is no duration`,
		"constant:1s..2s":            `"1s..2s" is no duration`,
		"exponential:":               `nothing after the colon`,
		"exponential:fast":           `"fast" is no duration`,
		"exponential:1sx":            `"exponential:1sx": nothing after the x`,
		"exponential:1sxx":           `"x" after the x is no factor`,
		"exponential:1sx0":           `"0" after the x is no factor`,
		"exponential:1s..":           `"" is no duration`,
		"exponential:1s+2s":          `"1s+2s" is no duration`,
		"linear:1s+":                 `"linear:1s+": nothing after the +`,
		"linear:1sx2":                `"1sx2" is no duration`,
		"linear:1s+2":                `"2" is no duration`,
		"linear,constant":            `"constant": a second curve`,
		"attempts=5,attempts=5":      `"attempts=5": a second attempts`,
		"attempts=5,constant:1h,a=b": `"a=b": want one of`,
	} {
		if got, err := parseRetry(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v and error %v, want %q in it", text, got, err, says)
		}
	}
}

// What is shown of a policy can be given as one, exactly.
func TestRetryTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		duration := func(name string) *durationpb.Duration {
			if rapid.Bool().Draw(t, "no "+name) {
				return nil
			}
			unit := rapid.SampledFrom([]time.Duration{1, time.Millisecond, time.Second, time.Minute, time.Hour}).Draw(t, name+" unit")
			return durationpb.New(time.Duration(rapid.Int64Range(0, 5000).Draw(t, name)) * unit)
		}
		want := &stintv1.RetryPolicy{
			MaxAttempts: rapid.Uint32().Draw(t, "attempts"), Deadline: duration("deadline"), InterruptDelay: duration("interrupt delay"),
			OnFailure: stintv1.OnFailure(rapid.Int32Range(0, 3).Draw(t, "on failure")),
		}
		switch rapid.IntRange(0, 3).Draw(t, "curve") {
		case 1:
			want.Backoff = &stintv1.RetryPolicy_Exponential{Exponential: &stintv1.ExponentialBackoff{
				Initial: duration("initial"), Max: duration("max"), Multiplier: rapid.Float64Range(0, math.MaxFloat64).Draw(t, "multiplier"),
			}}
		case 2:
			want.Backoff = &stintv1.RetryPolicy_Linear{Linear: &stintv1.LinearBackoff{
				Initial: duration("initial"), Increment: duration("increment"), Max: duration("max"),
			}}
		case 3:
			want.Backoff = &stintv1.RetryPolicy_Constant{Constant: &stintv1.ConstantBackoff{Delay: duration("delay")}}
		}
		text := retryText(want)
		if text == "" {
			if diff := cmp.Diff(&stintv1.RetryPolicy{}, want, protocmp.Transform()); diff != "" {
				t.Errorf("nothing is shown of %v", want)
			}
			return
		}
		got, err := parseRetry(text)
		if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", text, err, diff)
		}
	})
}
