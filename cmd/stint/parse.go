package main

import (
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// name is an enum's value as people see it: without the enum's own name.
func name(value fmt.Stringer, prefix string) string {
	return strings.TrimPrefix(value.String(), prefix)
}

func stateName(s stintv1.JobState) string    { return name(s, "JOB_STATE_") }
func runStateName(s stintv1.RunState) string { return name(s, "RUN_STATE_") }
func priorityName(p stintv1.Priority) string { return name(p, "PRIORITY_") }

// parseEnum finds a value by its name as people see it, in any case, with "-" or "_"; or by its number.
func parseEnum(values map[string]int32, prefix, s string) (int32, error) {
	key := prefix + strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
	if v, ok := values[key]; ok && v != 0 {
		return v, nil
	}
	numbers := map[int32]string{}
	for full, v := range values {
		if v == 0 {
			continue
		}
		if fmt.Sprint(v) == s {
			return v, nil
		}
		numbers[v] = strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(full, prefix), "_", "-"))
	}
	var names []string
	for _, v := range slices.Sorted(maps.Keys(numbers)) {
		names = append(names, numbers[v])
	}
	return 0, fmt.Errorf("%q: want one of %s", s, strings.Join(names, ", "))
}

func parsePriority(s string) (stintv1.Priority, error) {
	if s == "" {
		return stintv1.Priority_PRIORITY_UNSPECIFIED, nil
	}
	v, err := parseEnum(stintv1.Priority_value, "PRIORITY_", s)
	return stintv1.Priority(v), err
}

func parseStates(names []string) ([]stintv1.JobState, error) {
	var states []stintv1.JobState
	for _, n := range names {
		v, err := parseEnum(stintv1.JobState_value, "JOB_STATE_", n)
		if err != nil {
			return nil, err
		}
		states = append(states, stintv1.JobState(v))
	}
	return states, nil
}

func parseLevel(s string) (stintv1.InterruptLevel, error) {
	v, err := parseEnum(stintv1.InterruptLevel_value, "INTERRUPT_LEVEL_", s)
	return stintv1.InterruptLevel(v), err
}

// parseLabels reads "key=value" pairs.
func parseLabels(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	labels := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--label %q: want key=value", pair)
		}
		if _, twice := labels[key]; twice {
			return nil, fmt.Errorf("--label %q: the key is given twice", key)
		}
		labels[key] = value
	}
	return labels, nil
}

// refuseEmpty refuses the named flags if they are given without a value. A script whose variable is empty means none of what
// a flag that is left out stands for: no key, or all jobs.
func refuseEmpty(c *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if f := c.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			return usageError("--%s is given without a value; leave it out if none is meant", name)
		}
	}
	return nil
}

// parseTime reads a time as people write it for machines; empty is no time.
func parseTime(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("--%s %q: want a time like 2026-01-31T15:04:05Z", flag, s)
	}
	return t, nil
}

// requester is who asks, for the records of what operators do.
func requester() string {
	who := "unknown"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		who += "@" + host
	}
	return who
}
