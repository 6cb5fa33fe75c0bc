package main

import (
	"strings"
	"testing"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestGateCommands: rates and circuit breakers are set by texts that are shown again, parts of a policy at a time; a closed
// gate is shown and can be opened.
func TestGateCommands(t *testing.T) {
	server := at(t)
	out := squeeze(ok(t, server, "limit", "put", "api", "--rate", "100/1m,burst=5", "--key-rate", "a=b=1/500ms", "--key-rate", "=2/s,burst=3", "--circuit-breaker", "5,retry-in=1m"))
	if !strings.HasPrefix(out, "Limit api\nMax any\nRate 100/1m,burst=5\nRate of (empty) 2/1s,burst=3\nRate of a=b 1/500ms\nCircuit breaker 5,retry-in=1m\nJobs") {
		t.Errorf("put printed:\n%s", out)
	}
	if out := squeeze(ok(t, server, "limit", "list")); !strings.Contains(out, "\napi any 100/1m,burst=5 5,retry-in=1m 2 0") {
		t.Errorf("list printed:\n%s", out)
	}
	out = squeeze(ok(t, server, "limit", "put", "api", "--max", "2", "--rate", "none", "--key-rate", "a=b=", "--key-rate", "=", "--circuit-breaker", "none"))
	if !strings.HasPrefix(out, "Limit api\nMax 2\nJobs") {
		t.Errorf("put printed:\n%s", out)
	}
	for flag, texts := range map[string][]string{
		"--rate":            {"5", "0/s", "5/0s", "x/s", "5/x", "5/s,burst=0", "5/s,burst=", "5/s,x"},
		"--key-rate":        {"k", "k=5", "k=5/s,burst=x"},
		"--circuit-breaker": {"0", "x", "5,retry-in=", "5,retry-in=x", "5,1m"},
	} {
		for _, text := range texts {
			wantCode(t, stint(t, "", server, "limit", "put", "api", flag, text), 2, flag)
		}
	}
	wantCode(t, stint(t, "", server, "limit", "put", "api", "--circuit-breaker", "5,retry-in=1ms"), 2, "INVALID_FIELD: policy.circuit_breaker.retry_in: ")

	out = ok(t, server, "queue", "set", "q", "--rate", "10/s", "--circuit-breaker", "1,retry-in=1h", "--weight", "acme=3", "--weight", "=2")
	if !strings.Contains(out, "rate 10/1s, circuit breaker 1,retry-in=1h, weight 2 of (empty), weight 3 of acme\n") {
		t.Errorf("queue set printed:\n%s", out)
	}
	if out := ok(t, server, "queue", "set", "q", "--rate", "none", "--weight", "acme="); !strings.Contains(out, "circuit breaker 1,retry-in=1h, weight 2 of (empty)\n") {
		t.Errorf("queue set printed:\n%s", out)
	}
	wantCode(t, stint(t, "", server, "queue", "set", "q", "--weight", "acme=0"), 2, `--weight "acme=0": want a number`)

	c := dial(t, server)
	id := submit(t, server, "q", "--limit", "api=k", "--fairness-key", "acme")
	token := claim(t, c, "q")
	end(t, c, token, &stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: "refused"}}})
	if out := squeeze(ok(t, server, "queue", "get", "q")); !strings.Contains(out, "\nGate 1 failure in a row, one run tries at ") {
		t.Errorf("queue get printed:\n%s", out)
	}
	if out := squeeze(ok(t, server, "queue", "open", "q")); !strings.HasPrefix(out, "q OPEN\nWas 1 failure in a row, one run tries at ") {
		t.Errorf("queue open printed:\n%s", out)
	}
	if out := ok(t, server, "queue", "get", "q"); strings.Contains(out, "Gate") {
		t.Errorf("queue get printed:\n%s", out)
	}
	if out := squeeze(ok(t, server, "job", "get", id)); !strings.Contains(out, "\nFairness key acme\n") {
		t.Errorf("job get printed:\n%s", out)
	}
	ok(t, server, "job", "retry", id)
	throttled := &stintv1.Released{Reason: "429", Kind: &stintv1.Released_Throttled{Throttled: &stintv1.Throttled{Limit: "api", Key: "k"}}}
	end(t, c, claim(t, c, "q"), &stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: throttled}})
	if out := squeeze(ok(t, server, "limit", "usage", "api", "--key", "k")); !strings.Contains(out, "\nk 2 0 0 0 throttled until ") {
		t.Errorf("limit usage printed:\n%s", out)
	}
	if out := squeeze(ok(t, server, "limit", "open", "api", "--key", "k")); !strings.HasPrefix(out, "api OPEN\nWas throttled until ") || !strings.Contains(out, " (429)") {
		t.Errorf("limit open printed:\n%s", out)
	}
	if out := squeeze(ok(t, server, "limit", "open", "api")); out != "api OPEN" && out != "api OPEN\n" {
		t.Errorf("limit open printed:\n%s", out)
	}
	wantCode(t, stint(t, "", server, "limit", "open", "none"), 3, "LIMIT_NOT_FOUND")
	wantCode(t, stint(t, "", server, "queue", "open", "none"), 3, "QUEUE_NOT_FOUND")
}
