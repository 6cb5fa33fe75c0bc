package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// The enums of the wire and of the domain have the same numbers, so that they convert by value; a test compares the
// names.

// explicitZero stands for a duration of zero that was asked for, in a job.RetryPolicy.
const explicitZero = -1

// payloadContent is what a payload says: its bytes and the type they have.
func payloadContent(p *stintv1.Payload) (data []byte, contentType string, err error) {
	contentType = p.GetContentType()
	switch content := p.GetContent().(type) {
	case nil:
		if p != nil { // maybe an alternative that a later Stint knows: what it says must not be lost
			return nil, "", invalid("payload", "holds none of data, text and json; leave it out if there is nothing to send")
		}
		return nil, "", nil
	case *stintv1.Payload_Data:
		return content.Data, contentType, nil
	case *stintv1.Payload_Text:
		if !utf8.ValidString(content.Text) {
			return nil, "", invalid("payload.text", "not valid UTF-8")
		}
		if contentType == "" {
			contentType = "text/plain"
		}
		return []byte(content.Text), contentType, nil
	case *stintv1.Payload_Json:
		if contentType == "" {
			contentType = "application/json"
		}
		data, err = compactJSON(content.Json)
		return data, contentType, err
	default:
		return nil, "", invalid("payload", "this alternative is not known")
	}
}

// compactJSON is the shortest JSON text of v, with the members of objects in the order of their names.
func compactJSON(v *structpb.Value) ([]byte, error) {
	if err := checkJSON(v); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v.AsInterface()); err != nil {
		return nil, invalid("payload.json", "not JSON: %v", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// checkJSON says what a Value holds that JSON cannot say.
func checkJSON(v *structpb.Value) error {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_NullValue, *structpb.Value_BoolValue:
		return nil
	case *structpb.Value_NumberValue:
		if math.IsNaN(kind.NumberValue) || math.IsInf(kind.NumberValue, 0) {
			return invalid("payload.json", "a number of JSON is finite")
		}
		return nil
	case *structpb.Value_StringValue:
		return checkJSONText(kind.StringValue)
	case *structpb.Value_ListValue:
		for _, element := range kind.ListValue.GetValues() {
			if err := checkJSON(element); err != nil {
				return err
			}
		}
		return nil
	case *structpb.Value_StructValue:
		for name, member := range kind.StructValue.GetFields() {
			if err := checkJSONText(name); err != nil {
				return err
			}
			if err := checkJSON(member); err != nil {
				return err
			}
		}
		return nil
	default:
		return invalid("payload.json", "a value has none of JSON's kinds")
	}
}

func checkJSONText(s string) error {
	if !utf8.ValidString(s) {
		return invalid("payload.json", "a string is not valid UTF-8")
	}
	return nil
}

// specFrom is the job that m asks for, but for its id, its payload, its trace and its digest. m has been checked.
func specFrom(m *stintv1.JobSpec) job.Spec {
	s := job.Spec{
		Queue:    m.GetQueue(),
		Priority: job.Priority(m.GetPriority()),
		Timeout:  m.GetTimeout().AsDuration(),
		Lease:    m.GetLease().AsDuration(),
		Labels:   m.GetLabels(),
		Subject:  m.GetSubject(),
		Limits:   usesFrom(m.GetLimits()),

		FairnessKey: m.GetFairnessKey(),
		Unique:      uniqueFrom(m.GetUnique()),
	}
	if m.GetRetry() != nil {
		s.Retry = new(retryFrom(m.GetRetry()))
	}
	if s.Priority == 0 {
		s.Priority = job.Normal
	}
	if m.GetRunAt() != nil {
		s.RunAt = m.GetRunAt().AsTime()
	}
	if m.GetStartBy() != nil {
		s.StartBy = m.GetStartBy().AsTime()
	}
	return s
}

func retryFrom(p *stintv1.RetryPolicy) job.RetryPolicy {
	r := job.RetryPolicy{
		MaxAttempts:    p.GetMaxAttempts(),
		OnFailure:      job.OnFailure(p.GetOnFailure()),
		Deadline:       retryDelayFrom(p.GetDeadline()),
		InterruptDelay: retryDelayFrom(p.GetInterruptDelay()),
	}
	switch p.GetBackoff().(type) {
	case *stintv1.RetryPolicy_Exponential:
		e := p.GetExponential()
		r.Curve, r.Multiplier = job.Exponential, e.GetMultiplier()
		r.Initial, r.Max = retryDelayFrom(e.GetInitial()), retryDelayFrom(e.GetMax())
	case *stintv1.RetryPolicy_Linear:
		l := p.GetLinear()
		r.Curve, r.Increment = job.Linear, retryDelayFrom(l.GetIncrement())
		r.Initial, r.Max = retryDelayFrom(l.GetInitial()), retryDelayFrom(l.GetMax())
	case *stintv1.RetryPolicy_Constant:
		r.Curve, r.Initial = job.Constant, retryDelayFrom(p.GetConstant().GetDelay())
	}
	return r
}

func retryDelayFrom(d *durationpb.Duration) time.Duration {
	if d != nil && d.AsDuration() == 0 {
		return explicitZero
	}
	return d.AsDuration()
}

func policyFrom(p *stintv1.QueuePolicy) job.Policy {
	return job.Policy{
		Lease: p.GetLease().AsDuration(), Retry: retryFrom(p.GetRetry()), LostContact: job.LostContact(p.GetLostContact()),
		MaxRunning: p.GetMaxRunning(), OnZombie: job.OnZombie(p.GetOnZombie()), Weights: weightsFrom(p.GetFairnessWeights()),
		Rate: rateFrom(p.GetRate()), Breaker: breakerFrom(p.GetCircuitBreaker()),
	}
}

// traceFrom is t if it is a trace context, and nothing otherwise: a bad trace must not lose a job.
func traceFrom(traceparent, tracestate string) (string, string) {
	if !validTraceparent(traceparent) {
		return "", ""
	}
	if len(tracestate) > tracestateMax || !utf8.ValidString(tracestate) {
		return traceparent, ""
	}
	return traceparent, tracestate
}

// validTraceparent follows W3C Trace Context: version, trace id, parent id and flags in lower-case hex, no id all
// zeros; later versions may have more behind.
func validTraceparent(s string) bool {
	const length = 55
	if len(s) < length || (len(s) > length && (s[:2] == "00" || s[length] != '-')) || s[:2] == "ff" {
		return false
	}
	for i := range length {
		dash := i == 2 || i == 35 || i == 52
		hex := '0' <= s[i] && s[i] <= '9' || 'a' <= s[i] && s[i] <= 'f'
		if dash != (s[i] == '-') || !dash && !hex {
			return false
		}
	}
	return strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != "" && utf8.ValidString(s)
}

// wireTime is t on the wire; absent if it is not set.
func wireTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// wirePayload is bytes that were stored, as a payload; absent if there is nothing to say.
func wirePayload(data []byte, contentType string) *stintv1.Payload {
	if len(data) == 0 && contentType == "" {
		return nil
	}
	return &stintv1.Payload{Content: &stintv1.Payload_Data{Data: data}, ContentType: contentType}
}

func wireTrace(s *job.Spec) *stintv1.TraceContext {
	if s.Traceparent == "" {
		return nil
	}
	return &stintv1.TraceContext{Traceparent: s.Traceparent, Tracestate: s.Tracestate}
}

func wireCounters(c job.Counters) *stintv1.JobCounters {
	return &stintv1.JobCounters{
		Attempts:   c.Attempts,
		Crashes:    c.Crashes,
		Interrupts: c.Interrupts,
		Snoozes:    c.Snoozes,
		Deliveries: c.Deliveries,
	}
}

// wireInterrupt is the interrupt of a run, or of a job after that run; absent if there is none. A parked job keeps who
// parked it there.
func wireInterrupt(i *job.Interrupt, epoch, run uint32) *stintv1.Interrupt {
	if i == nil || i.Level == job.LevelNone && !i.Park {
		return nil
	}
	var id string
	if i.Level != job.LevelNone {
		id = fmt.Sprintf("%d.%d", epoch, run)
	}
	return &stintv1.Interrupt{
		Id:               id,
		Level:            stintv1.InterruptLevel(i.Level),
		Generation:       i.Generation,
		Reason:           i.Reason,
		Source:           stintv1.InterruptSource(i.Source),
		Requester:        i.Requester,
		RequestTime:      wireTime(i.RequestTime),
		GraceTime:        wireTime(i.GraceTime),
		HardDeadlineTime: wireTime(i.HardTime),
		DeliverTime:      wireTime(i.DeliverTime),
		AcknowledgeTime:  wireTime(i.AckTime),
		End:              stintv1.InterruptEnd(i.End),
		EndTime:          wireTime(i.EndTime),
	}
}

// wireRetry is a policy's part about trying again, absent fields left out.
func wireRetry(p job.RetryPolicy) *stintv1.RetryPolicy {
	m := &stintv1.RetryPolicy{
		MaxAttempts:    p.MaxAttempts,
		Deadline:       wireRetryDelay(p.Deadline),
		OnFailure:      stintv1.OnFailure(p.OnFailure),
		InterruptDelay: wireRetryDelay(p.InterruptDelay),
	}
	initial, longest := wireRetryDelay(p.Initial), wireRetryDelay(p.Max)
	switch p.AskedCurve() {
	case job.Exponential:
		m.Backoff = &stintv1.RetryPolicy_Exponential{Exponential: &stintv1.ExponentialBackoff{
			Initial: initial, Max: longest, Multiplier: p.Multiplier,
		}}
	case job.Linear:
		m.Backoff = &stintv1.RetryPolicy_Linear{Linear: &stintv1.LinearBackoff{
			Initial: initial, Max: longest, Increment: wireRetryDelay(p.Increment),
		}}
	case job.Constant:
		m.Backoff = &stintv1.RetryPolicy_Constant{Constant: &stintv1.ConstantBackoff{Delay: initial}}
	default:
	}
	return m
}

func wireRetryDelay(d time.Duration) *durationpb.Duration {
	switch d {
	case 0:
		return nil
	case explicitZero:
		return &durationpb.Duration{}
	default:
		return durationpb.New(d)
	}
}

func wirePolicy(p job.Policy) *stintv1.JobPolicy {
	return &stintv1.JobPolicy{Lease: durationpb.New(p.Lease), Retry: wireRetry(p.Retry)}
}

func weightsFrom(weights map[string]uint32) *job.Weights {
	keys := make([]job.KeyWeight, 0, len(weights))
	for key, weight := range weights {
		keys = append(keys, job.KeyWeight{Key: key, Weight: weight})
	}
	return job.NewWeights(keys)
}

// wireQueuePolicy is a queue's policy as it was set; absent if nothing was.
func wireQueuePolicy(p job.Policy) *stintv1.QueuePolicy {
	if p == (job.Policy{}) {
		return nil
	}
	m := &stintv1.QueuePolicy{
		LostContact: stintv1.LostContact(p.LostContact), MaxRunning: p.MaxRunning, OnZombie: stintv1.OnZombie(p.OnZombie),
		Rate: wireRate(p.Rate), CircuitBreaker: wireBreaker(p.Breaker),
	}
	for _, w := range p.Weights.All() {
		if m.FairnessWeights == nil {
			m.FairnessWeights = map[string]uint32{}
		}
		m.FairnessWeights[w.Key] = w.Weight
	}
	if p.Lease != 0 {
		m.Lease = durationpb.New(p.Lease)
	}
	if p.Retry != (job.RetryPolicy{}) {
		m.Retry = wireRetry(p.Retry)
	}
	return m
}

func wireCounts(c [job.NumberOfStates]uint64) *stintv1.JobCounts {
	return &stintv1.JobCounts{
		Scheduled: c[job.Scheduled],
		Ready:     c[job.Ready],
		Running:   c[job.Running],
		Backoff:   c[job.Backoff],
		Parked:    c[job.Parked],
		Succeeded: c[job.Succeeded],
		Failed:    c[job.Failed],
		Cancelled: c[job.Cancelled],
		Expired:   c[job.Expired],
	}
}

// wireQueue is a queue as of now; oldest is its job that has been ready longest, or nil.
func wireQueue(q *store.Queue, oldest *job.Job, now time.Time) *stintv1.Queue {
	m := &stintv1.Queue{
		Name:       q.Name,
		Policy:     wireQueuePolicy(q.Policy),
		Counts:     wireCounts(q.Counts),
		CreateTime: wireTime(q.CreateTime),
		Etag:       queueEtag(q),
		Zombies:    q.Zombies,
	}
	if p := q.Pause; p != nil {
		m.Pause = &stintv1.QueuePause{Reason: p.Reason, Requester: p.Requester, PauseTime: wireTime(p.Time)}
	}
	if oldest != nil {
		m.OldestReadyAge = durationpb.New(max(0, now.Sub(oldest.ReadyTime)))
	}
	return m
}

// queueEtag changes whenever the queue's settings do, also when it was deleted and made again in between.
func queueEtag(q *store.Queue) string {
	return strconv.FormatInt(q.CreateTime.UnixNano(), 36) + "-" + strconv.FormatUint(q.Version, 36)
}

// jobEtag changes whenever the job does, also when it was deleted and submitted again in between.
func jobEtag(j *job.Job) string {
	return fmt.Sprintf("%x-%x", j.Seq, j.Version)
}
