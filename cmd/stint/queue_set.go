package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// policyFlags are the parts of a queue's policy that flags set.
type policyFlags struct {
	lease, retryInitial, retryMax time.Duration
	maxAttempts                   uint32
	retryMultiplier               float64
	retry                         retryPolicy
	lostContact, onZombie         string
	maxRunning                    uint32
	weights                       []string
	rate, breaker                 string
}

func newQueueSetCommand(g *globals) *cobra.Command {
	p := &policyFlags{}
	c := &cobra.Command{
		Use:   "set NAME",
		Short: "Set a queue's policy, making the queue if there is none",
		Long: `Set parts of a queue's policy; what no flag names stays as it is, and 0 goes back to the default. The policy holds for
jobs that wait already, too, unless they say otherwise themselves.

--retry replaces all that the policy says of trying again; the other flags change parts of it, those of the curve make
it exponential. "--retry default" leaves all of it to the defaults.

` + retryHelp,
		Example: `  stint queue set thumbnails --lease 2m --max-attempts 3 --retry-initial 5s
  stint queue set thumbnails --max-running 8
  stint queue set thumbnails --weight acme=5 --weight free=1
  stint queue set thumbnails --rate 10/s --circuit-breaker 5,retry-in=1m
  stint queue set thumbnails --retry linear:5s..1m,attempts=5,deadline=1h,on-failure=park`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeQueues(g, 1),
	}
	f := c.Flags()
	f.DurationVar(&p.lease, "lease", 0, "how long a run may be silent before it is taken for lost (default 30s)")
	f.Uint32Var(&p.maxAttempts, "max-attempts", 0, "how many failed attempts a job may have (default 10)")
	f.DurationVar(&p.retryInitial, "retry-initial", 0, "the delay before the first retry (default 1s)")
	f.DurationVar(&p.retryMax, "retry-max", 0, "the longest delay before a retry (default 10m)")
	f.Float64Var(&p.retryMultiplier, "retry-multiplier", 0, "by how much each delay is longer than the one before (default 2)")
	f.Var(&p.retry, "retry", "how failed jobs are tried again, as one text, see above (default exponential:1sx2..10m,attempts=10,on-failure=retry,interrupt-delay=10s)")
	f.StringVar(&p.lostContact, "lost-contact", "", "what a worker does with a run when the server does not answer for nearly its lease: stop or continue (default stop)")
	_ = c.RegisterFlagCompletionFunc("lost-contact", cobra.FixedCompletions([]string{"stop", "continue"}, cobra.ShellCompDirectiveNoFileComp))
	f.Uint32Var(&p.maxRunning, "max-running", 0, "how many runs of the queue there may be at once, over all workers (default any number)")
	f.StringVar(&p.onZombie, "on-zombie", "", "whether a run that was left behind at its hard deadline takes a place in --max-running until it is known to be gone: hold or release (default hold)")
	_ = c.RegisterFlagCompletionFunc("on-zombie", cobra.FixedCompletions([]string{"hold", "release"}, cobra.ShellCompDirectiveNoFileComp))
	f.StringArrayVar(&p.weights, "weight", nil, "KEY=N: how many times as much of the workers a fairness key gets as others, 1 to 1000; N empty: as others; may be repeated")
	f.StringVar(&p.rate, "rate", "", rateUsage)
	f.StringVar(&p.breaker, "circuit-breaker", "", breakerUsage)
	for _, part := range []string{"max-attempts", "retry-initial", "retry-max", "retry-multiplier"} {
		c.MarkFlagsMutuallyExclusive("retry", part)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		changed := f.Changed
		if _, err := parseLostContact(p.lostContact); err != nil {
			return usageError("--lost-contact %w", err)
		}
		if _, err := parseOnZombie(p.onZombie); err != nil {
			return usageError("--on-zombie %w", err)
		}
		if _, err := parseWeights(p.weights); err != nil {
			return usageError("%w", err)
		}
		if err := checkGating(p.rate, p.breaker); err != nil {
			return err
		}
		return g.call(c.Context(), func(ctx context.Context, c *client.Client) error { return g.setQueue(ctx, c, args[0], p, changed) })
	}
	return c
}

// setQueue reads the policy, changes what was asked for and writes it back; somebody else's change in between is a
// conflict.
func (g *globals) setQueue(ctx context.Context, c *client.Client, queue string, p *policyFlags, changed func(flag string) bool) error {
	req := &stintv1.UpdateQueueRequest{Name: queue, Policy: &stintv1.QueuePolicy{}}
	got, err := c.Queues().GetQueue(ctx, &stintv1.GetQueueRequest{Name: queue})
	switch {
	case client.ReasonOf(err) == stintv1.Reason_REASON_QUEUE_NOT_FOUND:
	case err != nil:
		return err
	default:
		req.Etag = got.GetQueue().GetEtag()
		if policy := got.GetQueue().GetPolicy(); policy != nil {
			req.Policy = policy
		}
	}
	p.apply(req.Policy, changed)
	answer, err := c.Queues().UpdateQueue(ctx, req)
	if err != nil {
		return err
	}
	return g.printQueue(answer, answer.GetQueue())
}

// apply changes the parts of a policy whose flags were given.
func (p *policyFlags) apply(policy *stintv1.QueuePolicy, changed func(flag string) bool) {
	if changed("lease") {
		policy.Lease = orDefault(p.lease)
	}
	if changed("lost-contact") {
		policy.LostContact, _ = parseLostContact(p.lostContact)
	}
	if changed("max-running") {
		policy.MaxRunning = p.maxRunning
	}
	if changed("on-zombie") {
		policy.OnZombie, _ = parseOnZombie(p.onZombie)
	}
	if changed("rate") {
		policy.Rate, _ = parseRate(p.rate)
	}
	if changed("circuit-breaker") {
		policy.CircuitBreaker, _ = parseBreaker(p.breaker)
	}
	weights, _ := parseWeights(p.weights)
	for key, weight := range weights {
		if policy.FairnessWeights == nil {
			policy.FairnessWeights = map[string]uint32{}
		}
		if policy.FairnessWeights[key] = weight; weight == 0 {
			delete(policy.FairnessWeights, key)
		}
	}
	retry := policy.GetRetry()
	if changed("retry") {
		retry = p.retry.RetryPolicy
	}
	if retry == nil {
		retry = &stintv1.RetryPolicy{}
	}
	if changed("max-attempts") {
		retry.MaxAttempts = p.maxAttempts
	}
	if changed("retry-initial") || changed("retry-max") || changed("retry-multiplier") {
		p.applyCurve(retry, changed)
	}
	policy.Retry = nil
	if proto.Size(retry) > 0 {
		policy.Retry = retry
	}
}

func (p *policyFlags) applyCurve(retry *stintv1.RetryPolicy, changed func(flag string) bool) {
	curve := retry.GetExponential()
	if curve == nil {
		curve = &stintv1.ExponentialBackoff{}
	}
	if changed("retry-initial") {
		curve.Initial = orDefault(p.retryInitial)
	}
	if changed("retry-max") {
		curve.Max = orDefault(p.retryMax)
	}
	if changed("retry-multiplier") {
		curve.Multiplier = p.retryMultiplier
	}
	retry.Backoff = nil
	if curve.Initial != nil || curve.Max != nil || curve.Multiplier != 0 {
		retry.Backoff = &stintv1.RetryPolicy_Exponential{Exponential: curve}
	}
}

// orDefault is a duration on the wire; none for 0.
func orDefault(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// parseLostContact reads what to do without contact; empty is the default.
func parseLostContact(s string) (stintv1.LostContact, error) {
	switch s {
	case "", "0", "default":
		return stintv1.LostContact_LOST_CONTACT_UNSPECIFIED, nil
	case "stop":
		return stintv1.LostContact_LOST_CONTACT_STOP, nil
	case "continue":
		return stintv1.LostContact_LOST_CONTACT_CONTINUE, nil
	default:
		return 0, fmt.Errorf("%q: want stop or continue", s)
	}
}

// parseOnZombie reads whether zombies count; empty is the default.
func parseOnZombie(s string) (stintv1.OnZombie, error) {
	switch s {
	case "", "0", "default":
		return stintv1.OnZombie_ON_ZOMBIE_UNSPECIFIED, nil
	case "hold":
		return stintv1.OnZombie_ON_ZOMBIE_HOLD, nil
	case "release":
		return stintv1.OnZombie_ON_ZOMBIE_RELEASE, nil
	default:
		return 0, fmt.Errorf("%q: want hold or release", s)
	}
}
