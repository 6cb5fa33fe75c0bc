package simtest

import (
	"context"

	"google.golang.org/grpc"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// stream is the interceptor of streams.
func (w *witness) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &overheard{ClientStream: s, w: w, reports: map[uint64]asked[[]string]{}}, nil
}

// overheard is a stream that the witness listens to. All but the stream is guarded by the witness's lock.
type overheard struct {
	grpc.ClientStream
	w        *witness
	submits  []asked[*stintv1.SubmitRequest] // not answered
	instance string                          // of the worker
	hello    asked[[]string]
	reports  map[uint64]asked[[]string] // not answered, by seq
	finishes []asked[*stintv1.Finish]   // not answered
	wait     asked[*stintv1.WaitJobRequest]
}

// asked is a part of a request, and when it left.
type asked[T any] struct {
	moment
	what T
}

// SendMsg notes a message before it leaves.
func (o *overheard) SendMsg(m any) error {
	o.w.mu.Lock()
	o.says(o.w.now(), m)
	o.w.mu.Unlock()
	return o.ClientStream.SendMsg(m)
}

func (o *overheard) says(now moment, m any) {
	switch m := m.(type) {
	case *stintv1.SubmitRequest:
		o.w.submits(m.GetJobs())
		o.submits = append(o.submits, asked[*stintv1.SubmitRequest]{now, m})
	case *stintv1.WaitJobRequest:
		o.wait = asked[*stintv1.WaitJobRequest]{now, m}
	case *stintv1.WorkRequest:
		o.w.acts(m.GetInterruptAcks())
		o.w.finishes(m.GetFinishes())
		for _, f := range m.GetFinishes() {
			o.finishes = append(o.finishes, asked[*stintv1.Finish]{now, f})
		}
		if m.GetHello() != nil {
			o.instance, o.hello = m.GetHello().GetInstanceId(), asked[[]string]{now, m.GetHello().GetHeld()}
			o.w.lists(o.instance, o.hello.what)
		}
		if m.GetReport() != nil {
			o.reports[m.GetSeq()] = asked[[]string]{now, m.GetReport().GetHeld()}
			o.w.lists(o.instance, m.GetReport().GetHeld())
		}
	}
}

// RecvMsg judges a message before the client has it.
func (o *overheard) RecvMsg(m any) error {
	if err := o.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	now := o.w.now()
	switch m := m.(type) {
	case *stintv1.SubmitResponse:
		oldest := o.submits[0]
		o.submits = o.submits[1:]
		o.w.submitted(oldest.moment, oldest.what.GetJobs(), m.GetResults())
	case *stintv1.WaitJobResponse:
		o.w.shows(o.wait.moment, m.GetJob(), o.wait.what.GetView())
		o.wait.moment = now // the next one is read later
	case *stintv1.WorkResponse:
		o.works(m)
	}
	return nil
}

func (o *overheard) works(m *stintv1.WorkResponse) {
	w := o.w
	if m.GetWelcome() != nil {
		w.judges(o.hello.moment, o.hello.what, m.GetWelcome().GetVerdicts())
	}
	for _, a := range m.GetAssignments() {
		w.assigns(o.instance, a)
	}
	for _, ack := range m.GetFinishAcks() {
		if len(o.finishes) == 0 {
			w.blame("an acknowledgement came of a finish that was not sent: %v", ack)
			continue
		}
		oldest := o.finishes[0]
		o.finishes = o.finishes[1:]
		w.acknowledges(oldest.moment, oldest.what, ack)
	}
	w.pushed(m.GetInterrupts())
	answer := m.GetReportAnswer()
	if report, ok := o.reports[answer.GetSeq()]; ok {
		delete(o.reports, answer.GetSeq())
		w.judges(report.moment, report.what, answer.GetVerdicts())
	} else if len(answer.GetVerdicts()) > 0 {
		w.blame("verdicts came on a report that was not sent: %v", answer)
	}
	for _, e := range m.GetItemErrors() {
		if e.GetError().GetReason() != stintv1.Reason_REASON_DRAINING {
			w.blame("a part of a worker's message was refused: %v", e)
		}
	}
}
