package server

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
)

// Digests are stored with their jobs, so that what is hashed never changes: a later field gets the next tag and is left
// out where it is not set.
const (
	tagQueue       = 1
	tagPayloadText = 3 // the tags of payload and start are those of the alternative that was sent
	tagPayloadData = 2
	tagPayloadJSON = 4
	tagContentType = 5
	tagPriority    = 6
	tagRunAt       = 7
	tagDelay       = 8
	tagStartBy     = 9
	tagLease       = 10
	tagAttempts    = 11
	tagInitial     = 12
	tagMax         = 13
	tagMultiplier  = 14
	tagLabel       = 15
	tagSubject     = 16
	tagCurve       = 17 // then tagInitial and tagMax are those of this curve
	tagIncrement   = 18
	tagDeadline    = 19
	tagOnFailure   = 20
	tagBack        = 21
	tagTimeout     = 22
	tagLimit       = 23
	tagFairness    = 24
	tagUnique      = 25
	tagUntil       = 26
	tagTTL         = 27
	tagOnConflict  = 28
)

// digest is what a repeated id is compared by: a hash of the fields as they were sent, without id and trace context.
// payload is the payload's bytes, uses what it takes, in the order in which jobs keep it. scratch is overwritten and grows.
func digest(m *stintv1.JobSpec, payload []byte, uses []job.LimitUse, scratch *[]byte) [16]byte {
	b := (*scratch)[:0]
	b = appendField(b, tagQueue, m.GetQueue())
	switch m.GetPayload().GetContent().(type) {
	case *stintv1.Payload_Data:
		b = appendPayload(b, tagPayloadData, payload)
	case *stintv1.Payload_Text:
		b = appendPayload(b, tagPayloadText, payload)
	case *stintv1.Payload_Json:
		b = appendPayload(b, tagPayloadJSON, payload)
	}
	if t := m.GetPayload().GetContentType(); t != "" {
		b = appendField(b, tagContentType, t)
	}
	b = appendNumber(b, tagPriority, uint64(m.GetPriority()))
	if t := m.GetRunAt(); t != nil {
		b = appendPair(b, tagRunAt, t.GetSeconds(), t.GetNanos())
	}
	b = appendDuration(b, tagDelay, m.GetDelay())
	if t := m.GetStartBy(); t != nil {
		b = appendPair(b, tagStartBy, t.GetSeconds(), t.GetNanos())
	}
	b = appendDuration(b, tagLease, m.GetLease())
	b = appendRetry(b, m.GetRetry())
	b = appendLabels(b, m.GetLabels())
	if m.GetSubject() != "" {
		b = appendField(b, tagSubject, m.GetSubject())
	}
	b = appendDuration(b, tagTimeout, m.GetTimeout())
	for _, u := range uses {
		b = appendField(appendField(b, tagLimit, u.Limit), tagLimit, u.Key)
		b = appendNumber(b, tagLimit, uint64(u.Units))
	}
	if m.GetFairnessKey() != "" {
		b = appendField(b, tagFairness, m.GetFairnessKey())
	}
	if u := m.GetUnique(); u != nil {
		b = appendField(b, tagUnique, u.GetKey())
		b = appendNumber(b, tagUntil, uint64(u.GetUntil()))
		b = appendDuration(b, tagTTL, u.GetTtl())
		b = appendNumber(b, tagOnConflict, uint64(u.GetOnConflict()))
	}
	*scratch = b
	sum := sha256.Sum256(b)
	return [16]byte(sum[:])
}

func appendRetry(b []byte, p *stintv1.RetryPolicy) []byte {
	b = appendNumber(b, tagAttempts, uint64(p.GetMaxAttempts()))
	e, l := p.GetExponential(), p.GetLinear()
	switch {
	case l != nil:
		b = appendNumber(b, tagCurve, uint64(job.Linear))
		b = appendDuration(b, tagInitial, l.GetInitial())
		b = appendDuration(b, tagMax, l.GetMax())
		b = appendDuration(b, tagIncrement, l.GetIncrement())
	case p.GetConstant() != nil:
		b = appendNumber(b, tagCurve, uint64(job.Constant))
		b = appendDuration(b, tagInitial, p.GetConstant().GetDelay())
	case e != nil && e.GetInitial() == nil && e.GetMax() == nil && e.GetMultiplier() == 0:
		b = appendNumber(b, tagCurve, uint64(job.Exponential)) // its numbers name it by themselves: they had tags first
	default:
		b = appendDuration(b, tagInitial, e.GetInitial())
		b = appendDuration(b, tagMax, e.GetMax())
		b = appendNumber(b, tagMultiplier, math.Float64bits(e.GetMultiplier()))
	}
	b = appendDuration(b, tagDeadline, p.GetDeadline())
	b = appendNumber(b, tagOnFailure, uint64(p.GetOnFailure()))
	return appendDuration(b, tagBack, p.GetInterruptDelay())
}

func appendField(b []byte, tag byte, s string) []byte {
	b = binary.AppendUvarint(append(b, tag), uint64(len(s)))
	return append(b, s...)
}

// appendPayload appends a payload, or in place of a large one its own hash, to copy less.
func appendPayload(b []byte, tag byte, payload []byte) []byte {
	b = binary.AppendUvarint(append(b, tag), uint64(len(payload)))
	if len(payload) <= 4096 {
		return append(b, payload...)
	}
	sum := sha256.Sum256(payload)
	return append(b, sum[:]...)
}

func appendNumber(b []byte, tag byte, n uint64) []byte {
	if n == 0 {
		return b
	}
	return binary.AppendUvarint(append(b, tag), n)
}

func appendPair(b []byte, tag byte, seconds int64, nanos int32) []byte {
	b = binary.AppendVarint(append(b, tag), seconds)
	return binary.AppendVarint(b, int64(nanos))
}

func appendDuration(b []byte, tag byte, d *durationpb.Duration) []byte {
	if d == nil {
		return b
	}
	return appendPair(b, tag, d.GetSeconds(), d.GetNanos())
}

func appendLabels(b []byte, labels map[string]string) []byte {
	if len(labels) == 0 {
		return b
	}
	keys := make([]string, 0, len(labels))
	for key := range labels {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		b = appendField(appendField(b, tagLabel, key), tagLabel, labels[key])
	}
	return b
}
