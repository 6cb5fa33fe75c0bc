package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func newLimitCommand(g *globals) *cobra.Command {
	return group("limit", "Bound what runs take, over all queues",
		newLimitPutCommand(g), newLimitListCommand(g), newLimitUsageCommand(g), newLimitOpenCommand(g), newLimitDeleteCommand(g))
}

// limitFlags are the parts of a limit's policy that flags set.
type limitFlags struct {
	most           uint32
	onZombie       string
	keys, keyRates []string
	rate, breaker  string
}

func newLimitPutCommand(g *globals) *cobra.Command {
	p := &limitFlags{}
	c := &cobra.Command{
		Use:   "put NAME",
		Short: "Set a limit, making it if there is none",
		Long: `Set parts of a limit; what no flag names stays as it is. A change acts at once: raised, waiting jobs start; lowered, no
run is stopped, and none starts until there is room again. Permits of a rate come evenly, and none are there when it is set.

Jobs name the limits that their runs take: see "stint submit --limit".`,
		Example: `  stint limit put db-connections --max 20
  stint limit put tenant --max 2 --key acme=10 --key trial=1
  stint limit put tenant --key acme=
  stint limit put mail-api --rate 100/1m --circuit-breaker 5,retry-in=1m`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeLimits(g),
	}
	f := c.Flags()
	f.Uint32Var(&p.most, "max", 0, "how many units of each key may be taken at once; 0: any number")
	f.StringArrayVar(&p.keys, "key", nil, "KEY=N: a key with a maximum of its own, KEY=: one without; may be repeated")
	f.StringVar(&p.rate, "rate", "", rateUsage)
	f.StringArrayVar(&p.keyRates, "key-rate", nil, "KEY=PERMITS/PERIOD: a key with a rate of its own, KEY=: one without; may be repeated")
	f.StringVar(&p.breaker, "circuit-breaker", "", breakerUsage)
	f.StringVar(&p.onZombie, "on-zombie", "", "whether the units of a run that was left behind at its hard deadline count until it is known to be gone: hold or release (default hold)")
	_ = c.RegisterFlagCompletionFunc("on-zombie", cobra.FixedCompletions([]string{"hold", "release"}, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(c *cobra.Command, args []string) error {
		if _, err := parseOnZombie(p.onZombie); err != nil {
			return usageError("--on-zombie %w", err)
		}
		maxima, err := parseKeyMaxima(p.keys)
		if err != nil {
			return usageError("%w", err)
		}
		if err := checkGating(p.rate, p.breaker); err != nil {
			return err
		}
		if _, err := parseRates(p.keyRates); err != nil {
			return usageError("%w", err)
		}
		return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
			return g.putLimit(ctx, c, args[0], p, maxima, f.Changed)
		})
	}
	return c
}

// putLimit reads the policy, changes what was asked for and writes it back; somebody else's change of a limit that was
// there is a conflict.
func (g *globals) putLimit(
	ctx context.Context, c *client.Client, name string, p *limitFlags, maxima map[string]uint32, changed func(string) bool,
) error {
	req := &stintv1.PutLimitRequest{Name: name, Policy: &stintv1.LimitPolicy{}}
	// Its usage shows a limit by its name; an empty key keeps the answer short.
	got, err := c.Queues().GetLimitUsage(ctx, &stintv1.GetLimitUsageRequest{Name: name, Key: new(string)})
	switch {
	case client.ReasonOf(err) == stintv1.Reason_REASON_LIMIT_NOT_FOUND:
	case err != nil:
		return err
	default:
		req.Etag, req.Policy = got.GetLimit().GetEtag(), got.GetLimit().GetPolicy()
	}
	if changed("max") {
		req.Policy.MaxUnits = p.most
	} else if req.Etag == "" && !changed("key") && !changed("rate") && !changed("key-rate") && !changed("circuit-breaker") {
		return usageError("%s is new: --max, --rate or --circuit-breaker is needed", name)
	}
	if changed("rate") {
		req.Policy.Rate, _ = parseRate(p.rate)
	}
	if changed("circuit-breaker") {
		req.Policy.CircuitBreaker, _ = parseBreaker(p.breaker)
	}
	rates, _ := parseRates(p.keyRates)
	applyRates(req.Policy, rates)
	if changed("on-zombie") {
		req.Policy.OnZombie, _ = parseOnZombie(p.onZombie)
	}
	for key, most := range maxima {
		if req.Policy.MaxUnitsOf == nil {
			req.Policy.MaxUnitsOf = map[string]uint32{}
		}
		if req.Policy.MaxUnitsOf[key] = most; most == 0 {
			delete(req.Policy.MaxUnitsOf, key)
		}
	}
	answer, err := c.Queues().PutLimit(ctx, req)
	if err != nil {
		return err
	}
	return g.printLimit(answer, answer.GetLimit())
}

// parseKeyMaxima and parseWeights read "KEY=N" pairs; N is 0 for a key that goes back to what all have.
func parseKeyMaxima(pairs []string) (map[string]uint32, error) { return parseNumbers("--key", pairs) }

func parseWeights(pairs []string) (map[string]uint32, error) { return parseNumbers("--weight", pairs) }

func parseNumbers(flag string, pairs []string) (map[string]uint32, error) {
	numbers := map[string]uint32{}
	for _, pair := range pairs {
		i := strings.LastIndexByte(pair, '=')
		if i < 0 {
			return nil, fmt.Errorf("%s %q: want KEY=N", flag, pair)
		}
		key, text := pair[:i], pair[i+1:]
		if text == "" {
			numbers[key] = 0
			continue
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%s %q: want a number from 1 on, or nothing, after the last =", flag, pair)
		}
		numbers[key] = uint32(n)
	}
	return numbers, nil
}

// parseUse reads what a job takes: NAME, then maybe *UNITS, then maybe =KEY.
func parseUse(s string) (*stintv1.LimitUse, error) {
	name, key, _ := strings.Cut(s, "=")
	name, units, several := strings.Cut(name, "*")
	use := &stintv1.LimitUse{Name: name, Key: key}
	if several {
		n, err := strconv.ParseUint(units, 10, 32)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q: want NAME, NAME=KEY, or NAME*UNITS=KEY with a number from 1 on", s)
		}
		use.Units = uint32(n)
	}
	if name == "" {
		return nil, fmt.Errorf("%q: want NAME, NAME=KEY, or NAME*UNITS=KEY", s)
	}
	return use, nil
}

func parseUses(texts []string) (uses []*stintv1.LimitUse, err error) {
	for _, s := range texts {
		use, err := parseUse(s)
		if err != nil {
			return nil, fmt.Errorf("--limit %w", err)
		}
		uses = append(uses, use)
	}
	return uses, nil
}

// useText is a use as parseUse reads it.
func useText(u *stintv1.LimitUse) string {
	text := u.GetName()
	if u.GetUnits() > 1 {
		text += "*" + fmt.Sprint(u.GetUnits())
	}
	if u.GetKey() != "" {
		text += "=" + u.GetKey()
	}
	return text
}

func usesText(uses []*stintv1.LimitUse) string {
	texts := make([]string, len(uses))
	for i, u := range uses {
		texts[i] = useText(u)
	}
	return strings.Join(texts, " ")
}

func (g *globals) printLimit(answer proto.Message, l *stintv1.Limit) error {
	return g.print(answer, []proto.Message{l}, func(w io.Writer) {
		row(w, "Limit", l.GetName())
		row(w, "Max", maxText(l.GetPolicy().GetMaxUnits()))
		for _, key := range slices.Sorted(maps.Keys(l.GetPolicy().GetMaxUnitsOf())) {
			row(w, "Max of "+keyText(key), fmt.Sprint(l.GetPolicy().GetMaxUnitsOf()[key]))
		}
		if r := l.GetPolicy().GetRate(); r != nil {
			row(w, "Rate", rateText(r))
		}
		for _, key := range slices.Sorted(maps.Keys(l.GetPolicy().GetRateOf())) {
			row(w, "Rate of "+keyText(key), rateText(l.GetPolicy().GetRateOf()[key]))
		}
		if b := l.GetPolicy().GetCircuitBreaker(); b != nil {
			row(w, "Circuit breaker", breakerText(b))
		}
		if z := l.GetPolicy().GetOnZombie(); z != 0 {
			row(w, "On zombie", strings.ToLower(name(z, "ON_ZOMBIE_")))
		}
		row(w, "Jobs", fmt.Sprintf("%d unfinished", l.GetJobs()))
		row(w, "Created", timeText(l.GetCreateTime()))
	})
}

// maxText is a maximum; 0 is none.
func maxText(most uint32) string {
	if most == 0 {
		return "any"
	}
	return fmt.Sprint(most)
}

func keyText(key string) string {
	if key == "" {
		return "(empty)"
	}
	return key
}

func newLimitListCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List limits",
		Example: "  stint limit list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				l := g.newList("limits", "NAME", "MAX", "RATE", "CIRCUIT BREAKER", "KEYS WITH THEIR OWN", "JOBS")
				token := ""
				for {
					page, err := c.Queues().ListLimits(ctx, &stintv1.ListLimitsRequest{PageSize: pageSize, PageToken: token})
					if err != nil {
						return l.abort(err)
					}
					for _, limit := range page.GetLimits() {
						err := l.add(limit, limitRow(limit)...)
						if err != nil {
							return err
						}
					}
					if token = page.GetNextPageToken(); token == "" {
						return l.end()
					}
				}
			})
		},
	}
}

func limitRow(l *stintv1.Limit) []string {
	p, rate, breaker := l.GetPolicy(), "", ""
	if p.GetRate() != nil {
		rate = rateText(p.GetRate())
	}
	if p.GetCircuitBreaker() != nil {
		breaker = breakerText(p.GetCircuitBreaker())
	}
	own := maps.Clone(p.GetRateOf())
	for key := range p.GetMaxUnitsOf() {
		if own == nil {
			own = map[string]*stintv1.Rate{}
		}
		own[key] = nil
	}
	return []string{l.GetName(), maxText(p.GetMaxUnits()), dash(rate), dash(breaker), fmt.Sprint(len(own)), fmt.Sprint(l.GetJobs())}
}

func newLimitUsageCommand(g *globals) *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:   "usage NAME",
		Short: "Show which keys of a limit are taken, by whom, and how many jobs wait for them",
		Example: `  stint limit usage db-connections
  stint limit usage tenant --key acme`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeLimits(g),
	}
	c.Flags().StringVar(&key, "key", "", "only this key (default: all that are taken or waited for)")
	c.RunE = func(c *cobra.Command, args []string) error {
		req := &stintv1.GetLimitUsageRequest{Name: args[0], PageSize: pageSize}
		if c.Flags().Changed("key") {
			req.Key = &key
		}
		return g.call(c.Context(), func(ctx context.Context, c *client.Client) error { return g.limitUsage(ctx, c, req) })
	}
	return c
}

func (g *globals) limitUsage(ctx context.Context, c *client.Client, req *stintv1.GetLimitUsageRequest) error {
	l := g.newList("keys", "KEY", "MAX", "RUNNING", "ZOMBIES", "WAITING", "GATE", "HELD BY")
	for {
		page, err := c.Queues().GetLimitUsage(ctx, req)
		if err != nil {
			return l.abort(err)
		}
		for _, k := range page.GetKeys() {
			err := l.add(k, keyText(k.GetKey()), maxText(k.GetMaxUnits()), fmt.Sprint(k.GetLiveUnits()), fmt.Sprint(k.GetZombieUnits()),
				fmt.Sprint(k.GetWaitingJobs()), dash(gateText(k.GetGate())), dash(holdersText(k)))
			if err != nil {
				return err
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return l.end()
		}
	}
}

// holdersText names the first holders of a key.
func holdersText(k *stintv1.KeyUsage) string {
	const enough = 3
	var texts []string
	for i, h := range k.GetHolders() {
		if i == enough {
			texts = append(texts, "…")
			break
		}
		text := h.GetJobId() + " on " + h.GetWorker()
		if h.GetZombie() {
			text += " (left behind)"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

func newLimitDeleteCommand(g *globals) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:               "delete NAME",
		Short:             "Delete a limit that no unfinished job names",
		Example:           "  stint limit delete db-connections --force",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeLimits(g),
		RunE: func(c *cobra.Command, args []string) error {
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.Queues().DeleteLimit(ctx, &stintv1.DeleteLimitRequest{Name: args[0], Force: force})
				if err != nil {
					return err
				}
				return g.print(answer, []proto.Message{answer}, func(w io.Writer) { row(w, args[0], "DELETED") })
			})
		},
	}
	c.Flags().BoolVar(&force, "force", false, "delete it although unfinished jobs name it; nothing bounds them any more")
	return c
}
