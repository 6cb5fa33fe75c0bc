package top

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Span is a duration, in JSON as proto3 has it: "12.345s".
type Span time.Duration

// MarshalJSON writes seconds.
func (s Span) MarshalJSON() ([]byte, error) {
	return json.Marshal(fmt.Sprintf("%.3fs", time.Duration(s).Seconds()))
}

// String is the span in two units at most: "3m12s".
func (s Span) String() string {
	d := max(0, time.Duration(s))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

func runStateName(s stintv1.RunState) string { return strings.TrimPrefix(s.String(), "RUN_STATE_") }
