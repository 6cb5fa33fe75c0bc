package demo

import (
	"encoding/json"
	"errors"
	"fmt"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// compare holds three things against each other: the results computed directly, the jobs as the server lists them, and
// what the workers and the submitter were told. It returns everything that does not fit.
func compare(l *ledger, expected []Digest, jobs []*stintv1.Job) []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	faults := append([]error(nil), l.faults...)
	listed := map[string]*stintv1.Job{}
	for _, j := range jobs {
		switch {
		case l.byID[j.GetId()] == nil:
			faults = append(faults, fmt.Errorf("job %s is listed, but was never submitted", j.GetId()))
		case listed[j.GetId()] != nil:
			faults = append(faults, fmt.Errorf("%s: its job is listed twice", l.byID[j.GetId()].path))
		}
		listed[j.GetId()] = j
	}
	for i, e := range l.entries {
		j := listed[e.id]
		if j == nil {
			faults = append(faults, fmt.Errorf("%s: its job is missing", e.path))
			continue
		}
		for _, check := range []error{checkResult(expected[i], j), checkAnswers(e), checkHistory(e, j)} {
			if check != nil {
				faults = append(faults, fmt.Errorf("%s: %w", e.path, check))
			}
		}
	}
	return faults
}

// checkResult compares a job's result with the direct computation.
func checkResult(want Digest, j *stintv1.Job) error {
	if j.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED {
		return fmt.Errorf("its job is %s", j.GetState())
	}
	var got Digest
	if err := json.Unmarshal(j.GetResult().GetData(), &got); err != nil {
		return fmt.Errorf("its result cannot be read: %w", err)
	}
	if got != want {
		return fmt.Errorf("its result is %+v, directly computed it is %+v", got, want)
	}
	return nil
}

// checkAnswers looks for a job that was accepted twice, or never, as far as the client side was told. An answer
// DUPLICATE is right only for a run whose first answer the crash swallowed.
func checkAnswers(e *entry) error {
	if e.answered.IsZero() {
		return errors.New("its submit was not acknowledged")
	}
	accepted, recorded := 0, 0
	for _, r := range e.runs {
		recorded += r.recorded()
		if !r.accepted() {
			continue
		}
		accepted++
		if r.recorded() == 0 && !r.held {
			return fmt.Errorf("run %d was answered DUPLICATE, but never RECORDED", r.number)
		}
	}
	if accepted != 1 || recorded > 1 {
		return fmt.Errorf("%d of its runs were accepted, with %d answers RECORDED", accepted, recorded)
	}
	return nil
}

// checkHistory compares the job's history with what the workers were told: one run succeeded, and it is the one whose
// finish was accepted.
func checkHistory(e *entry, j *stintv1.Job) error {
	succeeded := 0
	for _, h := range j.GetHistory() {
		if h.GetState() != stintv1.RunState_RUN_STATE_SUCCEEDED {
			continue
		}
		succeeded++
		if r := e.run(h.GetFence()); r == nil || !r.accepted() {
			return fmt.Errorf("its history says that run %d succeeded, which no worker was told", h.GetNumber())
		}
	}
	if succeeded != 1 {
		return fmt.Errorf("its history holds %d runs that succeeded", succeeded)
	}
	return nil
}
