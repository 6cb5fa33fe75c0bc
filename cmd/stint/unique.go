package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// uniqueFlags are the flags of submit that make a job the only one with a key.
type uniqueFlags struct {
	key, until, onConflict string
	ttl                    time.Duration
}

func (u *uniqueFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&u.key, "unique", "", "a key: store no job while another one of the queue holds the same")
	f.StringVar(&u.until, "unique-until", "", "hold the key until start or finish (default finish)")
	f.DurationVar(&u.ttl, "unique-ttl", 0, "hold the key for so long after the finish, too")
	f.StringVar(&u.onConflict, "on-conflict", "",
		"if the key is held: return-existing, reject, or replace-pending, which gives a holder that has not run yet what is asked here (default return-existing)")
	_ = c.RegisterFlagCompletionFunc("unique-until", cobra.FixedCompletions([]string{"start", "finish"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("on-conflict", cobra.FixedCompletions(
		[]string{"return-existing", "reject", "replace-pending"}, cobra.ShellCompDirectiveNoFileComp))
}

// unique is what the flags say; nil if there is no key.
func (u *uniqueFlags) unique() (*stintv1.Unique, error) {
	if *u == (uniqueFlags{}) {
		return nil, nil
	}
	if u.key == "" {
		return nil, errors.New("--unique-until, --unique-ttl and --on-conflict go with --unique")
	}
	m := &stintv1.Unique{Key: u.key}
	if u.ttl != 0 {
		m.Ttl = durationpb.New(u.ttl)
	}
	if u.until != "" {
		v, err := parseEnum(stintv1.UniqueUntil_value, "UNIQUE_UNTIL_", u.until)
		if err != nil {
			return nil, fmt.Errorf("--unique-until %w", err)
		}
		m.Until = stintv1.UniqueUntil(v)
	}
	if u.onConflict != "" {
		v, err := parseEnum(stintv1.OnConflict_value, "ON_CONFLICT_", u.onConflict)
		if err != nil {
			return nil, fmt.Errorf("--on-conflict %w", err)
		}
		m.OnConflict = stintv1.OnConflict(v)
	}
	return m, nil
}

// tellHolder says that a job was not stored, because another one holds its key.
func tellHolder(w io.Writer, answer client.Submitted) {
	switch state := stateName(answer.State); {
	case answer.Replaced:
		fmt.Fprintf(w, "not stored: job %s, which is %s and holds the key, has its content now\n", answer.Holder, state)
	case answer.Holder != "":
		fmt.Fprintf(w, "not stored: job %s, which is %s, holds the key\n", answer.Holder, state)
	}
}

// endOf is how the job has ended that an answer names, if that is known although the job's record is gone: a job may hold
// its key for longer than it is kept. err is what waiting for it ended with.
func endOf(answer stintv1.JobState, err error) (stintv1.JobState, bool) {
	if client.ReasonOf(err) != stintv1.Reason_REASON_JOB_NOT_FOUND {
		return 0, false
	}
	switch answer {
	case stintv1.JobState_JOB_STATE_SUCCEEDED, stintv1.JobState_JOB_STATE_FAILED,
		stintv1.JobState_JOB_STATE_CANCELLED, stintv1.JobState_JOB_STATE_EXPIRED:
		return answer, true
	default:
		return 0, false
	}
}

// tellEnd says how a job has ended whose record is gone.
func (g *globals) tellEnd(id string, state stintv1.JobState) {
	fmt.Fprintf(g.stderr, "%s is %s; what came of it is past its retention\n", id, stateName(state))
}

// uniqueText is a unique key in a line; empty if there is none.
func uniqueText(u *stintv1.UniqueKey) string {
	if u == nil {
		return ""
	}
	text := u.GetKey() + ", until " + strings.ToLower(name(u.GetUntil(), "UNIQUE_UNTIL_"))
	if u.GetTtl() != nil {
		text += " and " + u.GetTtl().AsDuration().String() + " more"
	}
	switch {
	case !u.GetHeld():
		return text + ", free"
	case u.GetHeldUntil() != nil:
		return text + ", held until " + timeText(u.GetHeldUntil())
	default:
		return text + ", held"
	}
}
