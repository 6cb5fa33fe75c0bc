package server

import (
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
)

// Limits of what workers say; lengths are in bytes.
const (
	workerNameMax    = 200
	workerDetailMax  = 200 // build, SDK
	hostMax          = 255
	featuresMax      = 64
	featureMax       = 63
	resumeTokenMax   = 64
	queuesOfWorker   = 64
	runsOfWorker     = 4096
	claimWaitMax     = 5 * time.Minute
	failureMax       = 64 << 10 // texts of a failure
	failureListMax   = 1000     // frames, and causes
	maxSilenceMax    = 24 * time.Hour
	helloMax         = 10 * time.Second // until hello
	assignmentsBytes = 256 << 10        // of assignments in one message
	acksMax          = 1000             // finish_acks in one message
	interruptTexts   = 256 << 10        // of reasons and requesters in one list of verdicts; more are left out
)

// sessionOrder is what a stream ends with that breaks the session's order.
func sessionOrder(message string) *refusal {
	return &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_SESSION_ORDER, message: message}
}

// sessionLimit blames a field for asking more than a session may have.
func sessionLimit(field, format string, args ...any) *refusal {
	return &refusal{code: codes.InvalidArgument, reason: stintv1.Reason_REASON_SESSION_LIMIT, field: field, message: fmt.Sprintf(format, args...)}
}

func checkHello(m *stintv1.Hello) error {
	if m.GetWorker() == "" {
		return invalid("hello.worker", "a worker's name is needed")
	}
	texts := []struct {
		field, text string
		limit       int
	}{
		{"hello.worker", m.GetWorker(), workerNameMax},
		{"hello.resume_token", m.GetResumeToken(), resumeTokenMax},
		{"hello.host", m.GetHost(), hostMax},
		{"hello.build_id", m.GetBuildId(), workerDetailMax},
		{"hello.sdk", m.GetSdk(), workerDetailMax},
	}
	for _, t := range texts {
		if err := checkText(t.field, t.text, t.limit); err != nil {
			return err
		}
	}
	if len(m.GetFeatures()) > featuresMax {
		return invalid("hello.features", "at most %d features; these are %d", featuresMax, len(m.GetFeatures()))
	}
	for _, feature := range m.GetFeatures() {
		if err := checkText("hello.features", feature, featureMax); err != nil {
			return err
		}
	}
	if err := checkLabels("hello.labels", m.GetLabels()); err != nil {
		return err
	}
	if err := checkDuration("hello.max_silence", m.GetMaxSilence(), 1, maxSilenceMax); err != nil {
		return err
	}
	return checkHeld("hello.held", m.GetHeld())
}

// checkHeld bounds a list of runs. What is no token of ours is no error: it gets its verdict.
func checkHeld(field string, held []string) error {
	if len(held) > runsOfWorker {
		return sessionLimit(field, "a session has at most %d runs; these are %d", runsOfWorker, len(held))
	}
	return nil
}

// checkDemand says what is wrong with a demand, and with which of its pools.
func checkDemand(m *stintv1.Demand) (index int, err error) {
	if m.GetVersion() == 0 {
		return 0, invalid("version", "must be larger than that of the demand before, so at least 1")
	}
	queues, runs, named := 0, uint64(0), map[string]bool{}
	for i, p := range m.GetPools() {
		if len(p.GetQueues()) == 0 {
			return i, invalid(fmt.Sprintf("pools[%d].queues", i), "a pool serves at least one queue")
		}
		queues += len(p.GetQueues())
		runs += uint64(p.GetMaxRuns())
		if queues > queuesOfWorker {
			return i, sessionLimit(fmt.Sprintf("pools[%d].queues", i), "all pools together serve at most %d queues", queuesOfWorker)
		}
		if runs > runsOfWorker {
			return i, sessionLimit(fmt.Sprintf("pools[%d].max_runs", i), "all pools together have at most %d runs", runsOfWorker)
		}
		if err := checkQueues(fmt.Sprintf("pools[%d].queues", i), p.GetQueues(), named); err != nil {
			return i, err
		}
	}
	return 0, nil
}

// checkQueues says what is wrong with the names that a pool or a claim is for. seen holds those that were named before.
func checkQueues(field string, names []string, seen map[string]bool) error {
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", field, i)
		if err := checkQueueName(at, name); err != nil {
			return err
		}
		if seen[name] {
			return invalid(at, "this queue is named twice")
		}
		seen[name] = true
	}
	return nil
}

func checkClaim(m *stintv1.ClaimJobsRequest) error {
	if m.GetWorker() == "" {
		return invalid("worker", "a worker's name is needed")
	}
	if err := checkText("worker", m.GetWorker(), workerNameMax); err != nil {
		return err
	}
	if len(m.GetJobIds()) > 0 {
		return checkChosen(m)
	}
	if n := len(m.GetQueues()); n == 0 || n > queuesOfWorker {
		return invalid("queues", "1 to %d queues; these are %d", queuesOfWorker, n)
	}
	if err := checkQueues("queues", m.GetQueues(), map[string]bool{}); err != nil {
		return err
	}
	if m.GetMaxRuns() > itemsMax {
		return invalid("max_runs", "at most %d", itemsMax)
	}
	if err := checkDuration("wait", m.GetWait(), 0, claimWaitMax); err != nil {
		return err
	}
	return checkText("request_id", m.GetRequestId(), requestIDMax)
}

// checkChosen says what is wrong with a claim of chosen jobs, of any queue: it takes those that may start and does not wait.
func checkChosen(m *stintv1.ClaimJobsRequest) error {
	switch {
	case len(m.GetJobIds()) > itemsMax:
		return invalid("job_ids", "at most %d at once; these are %d", itemsMax, len(m.GetJobIds()))
	case len(m.GetQueues()) > 0:
		return invalid("queues", "chosen jobs may be of any queue; name none")
	case m.GetMaxRuns() > 0:
		return invalid("max_runs", "all of job_ids are wanted; leave it out")
	case m.GetWait() != nil:
		return invalid("wait", "chosen jobs are not waited for; leave it out")
	}
	return checkText("request_id", m.GetRequestId(), requestIDMax)
}

func checkHeartbeat(m *stintv1.HeartbeatRunsRequest) error {
	if n := len(m.GetLeaseTokens()); n == 0 || n > runsOfWorker {
		return invalid("lease_tokens", "1 to %d tokens; these are %d", runsOfWorker, n)
	}
	return checkInterruptAcks(m.GetInterruptAcks())
}

func checkInterruptAcks(acks []*stintv1.InterruptAck) error {
	if n := len(acks); n > runsOfWorker {
		return sessionLimit("interrupt_acks", "at most %d at once; these are %d", runsOfWorker, n)
	}
	return nil
}

func checkDrain(m *stintv1.DrainWorkersRequest) error {
	if err := checkCount("instance_ids", len(m.GetInstanceIds())); err != nil {
		return err
	}
	if err := checkDuration("grace", m.GetGrace(), 0, delayMax); err != nil {
		return err
	}
	return checkWho(m.GetReason(), m.GetRequester())
}

// checkFailure says what is wrong with a failure. Its length never is.
func checkFailure(m *stintv1.Failure) error {
	if _, known := stintv1.FailureClass_name[int32(m.GetClass())]; !known {
		return invalid("failure.class", "%d is not a class", m.GetClass())
	}
	for _, t := range []struct{ field, text string }{
		{"failure.type", m.GetType()},
		{"failure.message", m.GetMessage()},
		{"failure.process.signal", m.GetProcess().GetSignal()},
		{"failure.process.stderr_tail", m.GetProcess().GetStderrTail()},
	} {
		if !utf8.ValidString(t.text) {
			return invalid(t.field, "not valid UTF-8")
		}
	}
	for i, f := range m.GetStack() {
		if !utf8.ValidString(f.GetFunction()) || !utf8.ValidString(f.GetFile()) {
			return invalid(fmt.Sprintf("failure.stack[%d]", i), "not valid UTF-8")
		}
	}
	for i, c := range m.GetCauses() {
		if !utf8.ValidString(c.GetType()) || !utf8.ValidString(c.GetMessage()) {
			return invalid(fmt.Sprintf("failure.causes[%d]", i), "not valid UTF-8")
		}
	}
	return checkDuration("failure.retry_delay", m.GetRetryDelay(), 0, delayMax)
}

// cutFailure cuts a failure to failureMax, the longest texts first.
func cutFailure(f *job.Failure) {
	f.Stack = f.Stack[:min(len(f.Stack), failureListMax)]
	f.Causes = f.Causes[:min(len(f.Causes), failureListMax)]
	texts := []*string{&f.Type, &f.Message}
	for i := range f.Stack {
		texts = append(texts, &f.Stack[i].Function, &f.Stack[i].File)
	}
	for i := range f.Causes {
		texts = append(texts, &f.Causes[i].Type, &f.Causes[i].Message)
	}
	if f.Process != nil {
		texts = append(texts, &f.Process.Signal, &f.Process.StderrTail)
	}
	limit := textLimit(texts, failureMax)
	for _, t := range texts {
		*t = cut(*t, limit)
	}
}

// textLimit is the length that each of the texts may have so that all have at most total.
func textLimit(texts []*string, total int) int {
	low, high := 0, total
	for low < high {
		middle := (low + high + 1) / 2
		sum := 0
		for _, t := range texts {
			sum += min(len(*t), middle)
		}
		if sum <= total {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}
