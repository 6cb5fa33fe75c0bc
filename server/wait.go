package server

import (
	"slices"
	"time"

	"google.golang.org/grpc"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
)

// waitRepeat is how often WaitJob shows a job that does not change.
const waitRepeat = 15 * time.Second

// WaitJob shows the job at once, again at each repeat, and last when it has come as far as asked. The dispatcher only
// says that something changed; what is shown is always read from the store, so that it is on disk.
func (s *Server) WaitJob(m *stintv1.WaitJobRequest, stream grpc.ServerStreamingServer[stintv1.WaitJobResponse]) error {
	id, err := parseID("id", m.GetId())
	if err != nil {
		return err
	}
	if err := checkWaitJob(m); err != nil {
		return err
	}
	ctx := stream.Context()
	followed, _, err := s.readJob(ctx, id, stintv1.JobView_JOB_VIEW_BASIC)
	if err != nil {
		return err
	}
	changed, stop := s.dispatch.Follow(followed.Seq)
	defer stop()
	repeat := time.NewTicker(waitRepeat)
	defer repeat.Stop()
	for show := true; ; {
		now, shown, err := s.readJob(ctx, id, m.GetView())
		if err != nil {
			return err
		}
		if now.Seq != followed.Seq {
			return errJobNotFound // it was deleted, and its id used again
		}
		reached := hasReached(now, m.GetUntil())
		if show || reached {
			if err := stream.Send(&stintv1.WaitJobResponse{Job: shown, Reached: reached}); err != nil {
				return err
			}
		}
		if reached {
			return nil
		}
		select {
		case <-changed:
			show = false
		case <-repeat.C:
			show = true
		case <-s.stopping:
			return errStopping
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hasReached reports whether a job has come as far as until says.
func hasReached(j *job.Job, until stintv1.WaitUntil) bool {
	if j.State.Terminal() || j.State == job.Parked {
		return true
	}
	switch until {
	case stintv1.WaitUntil_WAIT_UNTIL_ACCEPTED:
		return accepted(j)
	case stintv1.WaitUntil_WAIT_UNTIL_INTERRUPT_ACKNOWLEDGED:
		return j.Interrupted().Level == job.LevelNone || !j.Interrupted().AckTime.IsZero()
	default:
		return false
	}
}

// accepted reports whether a worker has accepted a run of the job in this epoch, the live one or an earlier one.
func accepted(j *job.Job) bool {
	if j.Run.State == job.RunRunning {
		return true
	}
	return slices.ContainsFunc(j.History, func(r job.Run) bool { return r.Epoch == j.Epoch && !r.AcceptTime.IsZero() })
}
