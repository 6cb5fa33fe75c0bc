package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

const (
	recorded   = stintv1.FinishStatus_FINISH_STATUS_RECORDED
	duplicate  = stintv1.FinishStatus_FINISH_STATUS_DUPLICATE
	superseded = stintv1.FinishStatus_FINISH_STATUS_SUPERSEDED
	succeeded  = stintv1.RunState_RUN_STATE_SUCCEEDED
	lost       = stintv1.RunState_RUN_STATE_LOST
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }

// scene is a ledger with the jobs a server would list for it, as if all went well; tests spoil it.
type scene struct {
	*ledger
	expected []Digest
	jobs     []*stintv1.Job
	killed   time.Time
}

// play makes a scene of four jobs around a crash at 100 ms: job-0 finishes before it; job-1 is held and adopted; job-2 is
// held with its answer lost; job-3 is submitted before and after it and runs afterwards.
func play(t *testing.T) *scene {
	t.Helper()
	files, ids := make([]string, 4), make([]string, 4)
	for i := range files {
		files[i], ids[i] = fmt.Sprint("file-", i), fmt.Sprint("job-", i)
	}
	s := &scene{ledger: newLedger(files, ids), killed: at(100)}
	event := func(ms, job int, kind client.EventKind, status stintv1.FinishStatus) {
		s.event("w", client.Event{
			Kind: kind, Time: at(ms), Status: status,
			Run: &client.Run{JobID: ids[job], Fence: uint64(10 + job), Number: 1},
		})
	}
	s.event("w", client.Event{Kind: client.SessionOpened})
	for i := range files {
		s.sending(i, at(i))
		if i < 3 {
			s.submitted(client.Submitted{ID: ids[i]}, at(10+i))
			event(20, i, client.RunAssigned, 0)
		}
	}
	event(50, 0, client.RunFinished, recorded)
	s.event("w", client.Event{Kind: client.SessionLost})
	if n := s.crossing(); n != 2 {
		t.Fatalf("%d runs crossed, want 2", n)
	}
	s.event("w", client.Event{Kind: client.SessionOpened})
	s.submitted(client.Submitted{ID: ids[3], Existing: true}, at(210))
	event(220, 1, client.RunAdopted, 0)
	event(230, 1, client.RunFinished, recorded)
	event(230, 2, client.RunFinished, duplicate)
	event(240, 3, client.RunAssigned, 0)
	event(250, 3, client.RunFinished, recorded)
	for i := range files {
		d := Digest{SHA256: fmt.Sprint("sum-", i), Bytes: int64(i), GzipBytes: int64(2 * i)}
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		s.expected = append(s.expected, d)
		s.jobs = append(s.jobs, &stintv1.Job{
			Id: ids[i], State: stintv1.JobState_JOB_STATE_SUCCEEDED, SubmitTime: timestamppb.New(at(i)),
			Result: &stintv1.Payload{Content: &stintv1.Payload_Data{Data: data}},
			History: []*stintv1.Run{{
				Number: 1, Fence: uint64(10 + i), State: succeeded, Worker: "w",
				DispatchTime: timestamppb.New(at(19)), EndTime: timestamppb.New(at(230)),
			}},
		})
	}
	return s
}

func TestCompareFindsNothingWhenAllIsWell(t *testing.T) {
	s := play(t)
	if faults := compare(s.ledger, s.expected, s.jobs); len(faults) != 0 {
		t.Error(errors.Join(faults...))
	}
	got := s.crash(s.killed)
	if want := (Crash{Finished: 1, Adopted: 1, Answered: 1, Resent: 1}); got != want {
		t.Errorf("crash %+v, want %+v", got, want)
	}
	if e := s.example(); e == nil || e.id != "job-1" {
		t.Errorf("example %+v, want job-1", e)
	}
	if s.accepted != 4 || s.answered != 4 || s.sessions() != 1 {
		t.Errorf("%d accepted, %d answered, %d sessions", s.accepted, s.answered, s.sessions())
	}
}

func TestCompareFinds(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*scene)
		want  string
	}{
		{"a missing job", func(s *scene) { s.jobs = s.jobs[:3] }, "file-3: its job is missing"},
		{"a job listed twice", func(s *scene) { s.jobs = append(s.jobs, s.jobs[1]) }, "file-1: its job is listed twice"},
		{"a job of nobody", func(s *scene) {
			s.jobs = append(s.jobs, &stintv1.Job{Id: "x"})
		}, "job x is listed, but was never submitted"},
		{"a wrong sum", func(s *scene) { s.expected[2].SHA256 = "other" }, "file-2: its result is"},
		{"a wrong size", func(s *scene) { s.expected[2].GzipBytes++ }, "file-2: its result is"},
		{"no result", func(s *scene) { s.jobs[0].Result = nil }, "file-0: its result cannot be read"},
		{"a job that is not done", func(s *scene) {
			s.jobs[0].State = stintv1.JobState_JOB_STATE_FAILED
		}, "file-0: its job is JOB_STATE_FAILED"},
		{"no acknowledged submit", func(s *scene) { s.entries[3].answered = time.Time{} }, "submit was not acknowledged"},
		{"two answers to a submit", func(s *scene) {
			s.submitted(client.Submitted{ID: "job-3"}, at(300))
		}, "file-3: submit answered twice"},
		{"a refused submit", func(s *scene) {
			s.submitted(client.Submitted{ID: "job-3", Err: errors.New("full")}, at(300))
		}, "file-3: submit refused: full"},
		{"one run recorded twice", func(s *scene) {
			r := s.entries[1].runs[0]
			r.acks = append(r.acks, ack{at(300), recorded})
		}, "file-1: 1 of its runs were accepted, with 2 answers RECORDED"},
		{"two runs accepted", func(s *scene) {
			s.entries[1].runs = append(s.entries[1].runs, &run{fence: 99, number: 2, acks: []ack{{at(300), recorded}}})
		}, "file-1: 2 of its runs were accepted"},
		{"a finish never answered", func(s *scene) { s.entries[1].runs[0].acks = nil }, "file-1: 0 of its runs were accepted"},
		{"a finish only superseded", func(s *scene) {
			s.entries[1].runs[0].acks[0].status = superseded
		}, "file-1: 0 of its runs were accepted"},
		{"DUPLICATE out of nowhere", func(s *scene) {
			s.entries[3].runs[0].acks[0].status = duplicate
		}, "file-3: run 1 was answered DUPLICATE, but never RECORDED"},
		{"a history with two successes", func(s *scene) {
			s.jobs[0].History = append(s.jobs[0].History, s.jobs[0].History[0])
		}, "file-0: its history holds 2 runs that succeeded"},
		{"a history without success", func(s *scene) {
			s.jobs[0].History[0].State = lost
		}, "file-0: its history holds 0 runs that succeeded"},
		{"a success that nobody reported", func(s *scene) {
			s.jobs[0].History[0].Fence = 77
		}, "file-0: its history says that run 1 succeeded, which no worker was told"},
		{"a run of an unknown job", func(s *scene) {
			s.event("w", client.Event{Kind: client.RunAssigned, Run: &client.Run{JobID: "x"}})
		}, "w was given the unknown job x"},
		{"an answer to an unknown run", func(s *scene) {
			s.event("w", client.Event{Kind: client.RunFinished, Run: &client.Run{JobID: "job-0", Fence: 5}})
		}, "never assigned"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := play(t)
			c.spoil(s)
			faults := compare(s.ledger, s.expected, s.jobs)
			// What no worker was told may show in the history too; nothing else may be blamed.
			if len(faults) == 2 && strings.Contains(faults[1].Error(), "no worker was told") {
				faults = faults[:1]
			}
			if len(faults) != 1 || !strings.Contains(faults[0].Error(), c.want) {
				t.Errorf("found %v, want %q alone", faults, c.want)
			}
		})
	}
}

// A run that was lost and run again is no fault: the first one's finish is superseded, the second's is accepted.
func TestASecondRunIsCountedNotBlamed(t *testing.T) {
	s := play(t)
	e := s.entries[1]
	e.runs[0].acks[0].status = superseded
	e.runs = append(e.runs, &run{fence: 99, number: 2, assigned: at(240), acks: []ack{{at(250), recorded}}})
	s.jobs[1].History[0].State = lost
	s.jobs[1].History = append(s.jobs[1].History, &stintv1.Run{Number: 2, Fence: 99, State: succeeded})
	if faults := compare(s.ledger, s.expected, s.jobs); len(faults) != 0 {
		t.Error(errors.Join(faults...))
	}
	got := s.crash(s.killed)
	if want := (Crash{Finished: 1, Answered: 1, Again: 1, Resent: 1}); got != want {
		t.Errorf("crash %+v, want %+v", got, want)
	}
	if err := (Report{Crash: got}).verdict(); !errors.Is(err, ErrNotAdopted) {
		t.Errorf("verdict %v, want ErrNotAdopted", err)
	}
}
