//go:build blackbox

package blackbox

import (
	"context"
	"fmt"
	"strings"
	"testing"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestNumbers is the first example of the README: five thousand lines become five thousand jobs, done by a program that
// knows nothing of Stint. A server that is killed in the middle of either step loses none and doubles none.
func TestNumbers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name                   string
		killSubmit, killWorker bool
	}{
		{name: "undisturbed"},
		{name: "killed during the submit", killSubmit: true},
		{name: "killed during the work", killWorker: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, t.TempDir())
			s, ids := submitNumbers(s, 5000, test.killSubmit)
			worker := start(t, s.stint("work", "numbers", "--concurrency", "8", "--until-empty", "--", "sh", "-c", "cat >/dev/null"))
			if test.killWorker {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if _, err := s.client().Wait(ctx, ids[1500]); err != nil {
					t.Fatal(err)
				}
				s.kill()
				s = s.again()
			}
			if code := worker.end(patience); code != 0 {
				t.Fatalf("the worker ended with %d", code)
			}
			if !strings.HasSuffix(worker.stderr.String(), " 5000 outcomes recorded\n") {
				t.Errorf("the worker says %q, want 5000 outcomes recorded", tail(worker.stderr.String()))
			}
			s.wantCounts("numbers", &stintv1.JobCounts{Succeeded: 5000})
		})
	}
}

// submitNumbers submits the numbers from 1 as lines, and returns their ids in order. With kill the server dies while
// half of the lines are still to come, at the first answer, when many are under way; it returns the one that runs then.
func submitNumbers(s *server, count int, kill bool) (*server, []string) {
	s.t.Helper()
	cmd := s.stint("submit", "numbers", "--lines")
	stdin := feed(s.t, cmd)
	submit := start(s.t, cmd)
	write := func(from, to int) {
		for n := from; n <= to; n++ {
			if _, err := fmt.Fprintln(stdin, n); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	write(1, count/2)
	if kill {
		submit.await(submit.stdout, "an id", func(text string) bool { return lines(text) > 0 })
		s.kill()
		write(count/2+1, count*3/4)
		s = s.again()
		write(count*3/4+1, count)
	} else {
		write(count/2+1, count)
	}
	if err := stdin.Close(); err != nil {
		s.t.Fatal(err)
	}
	if code := submit.end(patience); code != 0 {
		s.t.Fatalf("the submit ended with %d", code)
	}
	ids := strings.Fields(submit.stdout.String())
	distinct := make(map[string]bool)
	for _, id := range ids {
		distinct[id] = true
	}
	if len(ids) != count || len(distinct) != count {
		s.t.Fatalf("%d ids were printed, %d of them distinct, want %d", len(ids), len(distinct), count)
	}
	return s, ids
}
