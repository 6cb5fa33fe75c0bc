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
