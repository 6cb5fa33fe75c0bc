package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func Example() {
	c, err := client.Dial("127.0.0.1:7707")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answers, err := c.Submit(ctx, client.Job{Queue: "greetings", Payload: []byte("world"), Subject: "example"})
	if err != nil {
		log.Fatal(err) // no answer came; submit again with answers[0].ID
	}
	if answers[0].Err != nil {
		log.Fatal(answers[0].Err) // the server refused this job
	}
	job, err := c.Wait(ctx, answers[0].ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", job.GetState(), job.GetResult().GetData())
}

func ExampleWorker() {
	c, err := client.Dial("127.0.0.1:7707")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()

	w := c.NewWorker(client.WorkerConfig{Name: "greeter"})
	w.Handle("greetings", 10, func(ctx context.Context, run *client.Run) error {
		if len(run.Payload) == 0 {
			return client.Malformed(errors.New("there is nobody to greet"))
		}
		select {
		case <-time.After(time.Second): // the work
		case <-ctx.Done():
			return ctx.Err() // interrupted: the job comes back, or is cancelled
		}
		run.SetResult(fmt.Appendf(nil, "hello, %s", run.Payload), "text/plain")
		return nil
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := w.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

func ExampleClient_SubmitStream() {
	c, err := client.Dial("127.0.0.1:7707")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()

	ctx := context.Background()
	s := c.SubmitStream(ctx, client.SubmitConfig{OnResult: func(r client.Submitted) {
		if r.Err != nil {
			log.Printf("%s: %v", r.ID, r.Err)
		}
	}})
	for n := range 100_000 {
		if err := s.Send(ctx, client.Job{Queue: "numbers", Payload: fmt.Append(nil, n)}); err != nil {
			log.Print(err)
			break
		}
	}
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}
}

// A worker that chooses: it looks at what is READY and claims what it likes.
func ExampleWorker_Claim() {
	c, err := client.Dial("127.0.0.1:7707")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()

	w := c.NewWorker(client.WorkerConfig{Name: "chooser"})
	w.Handle("films", client.ClaimOnly, func(context.Context, *client.Run) error { return nil })
	ctx := context.Background()
	w.Listen(func(client.Event) {
		board, err := c.Jobs().ListJobs(ctx, &stintv1.ListJobsRequest{Filter: &stintv1.JobFilter{
			Queue: "films", States: []stintv1.JobState{stintv1.JobState_JOB_STATE_READY},
		}})
		if err != nil {
			log.Fatal(err)
		}
		for _, job := range board.GetJobs() {
			if job.GetLabels()["genre"] != "western" {
				continue
			}
			claimed, err := w.Claim(ctx, job.GetId())
			if err != nil {
				log.Fatal(err)
			}
			if refused := claimed[0].Err; refused != nil {
				log.Printf("%s: %v; %s has it", claimed[0].JobID, refused, claimed[0].Worker)
			}
		}
	}, client.SessionOpened)
	if err := w.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// A worker does ten jobs and ends by itself; whoever is impatient stops it.
func ExampleWorker_Wait() {
	c, err := client.Dial("127.0.0.1:7707")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()

	w := c.NewWorker(client.WorkerConfig{MaxRuns: 10})
	w.Handle("films", 1, func(context.Context, *client.Run) error { return nil })
	w.Listen(func(e client.Event) {
		log.Printf("%s: %s, now %s", e.Run.JobID, e.Kind, e.JobState)
	}, client.JobConsumed, client.JobAbandoned, client.JobParked)
	go func() {
		if err := w.Run(context.Background()); err != nil {
			log.Print(err)
		}
	}()
	if !w.Wait(time.Minute) {
		w.Stop() // returns at once
		w.Wait(-1)
	}
}
