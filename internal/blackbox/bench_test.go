//go:build blackbox

package blackbox

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// benchReport is what `stint bench -o json` promises to say.
type benchReport struct {
	Environment struct {
		FS      string    `json:"fs"`
		Fsync   float64   `json:"fsync_us"`
		CPUs    int       `json:"cpus"`
		Go      string    `json:"go"`
		OS      string    `json:"os"`
		Version string    `json:"version"`
		Payload int       `json:"payload"`
		Batch   int       `json:"batch"`
		Streams int       `json:"streams"`
		Workers int       `json:"workers"`
		Date    time.Time `json:"date"`
	} `json:"environment"`
	Results []struct {
		Name      string   `json:"name"`
		Runs      int      `json:"runs"`
		Jobs      int      `json:"jobs"`
		Rate      float64  `json:"jobs_per_s"`
		LeastRate float64  `json:"jobs_per_s_min"`
		MostRate  float64  `json:"jobs_per_s_max"`
		Server    *float64 `json:"server_cpu_us_per_job"`
		Client    *float64 `json:"client_cpu_us_per_job"`
		Wall      float64  `json:"wall_s"`
		Latency   *struct {
			P50  float64 `json:"p50"`
			P90  float64 `json:"p90"`
			P99  float64 `json:"p99"`
			P999 float64 `json:"p99_9"`
			Max  float64 `json:"max"`
		} `json:"latency_ms"`
		Watched *struct {
			Followers    int     `json:"followers"`
			EventsPerJob float64 `json:"events_per_job"`
			Behind       float64 `json:"behind_s"`
		} `json:"watched"`
		Errors int `json:"errors"`
	} `json:"results"`
	Blocked struct {
		Jobs      int       `json:"jobs"`
		Drained   int       `json:"drained"`
		Alone     float64   `json:"alone_jobs_per_s"`
		Behind    float64   `json:"behind_jobs_per_s"`
		Ratios    []float64 `json:"ratios"`
		Ratio     float64   `json:"ratio"`
		AloneRSS  int64     `json:"alone_rss_bytes"`
		BehindRSS int64     `json:"behind_rss_bytes"`
		Errors    int       `json:"errors"`
	} `json:"blocked"`
	Events struct {
		Rate       float64            `json:"events_per_s"`
		Events     int                `json:"events"`
		Queues     int                `json:"queues"`
		Followers  int                `json:"followers"`
		Unfiltered int                `json:"unfiltered"`
		Lag        map[string]float64 `json:"lag_ms"`
		Stopped    int                `json:"stopped"`
		Cut        int                `json:"cut"`
		Wrong      int                `json:"wrong"`
		IdleRSS    int64              `json:"idle_rss_bytes"`
		RSS        int64              `json:"rss_bytes"`
	} `json:"events"`
}

// TestBenchEvents has a hundred followers of a thousand events a second, some of which do not read, over a kill -9 of the
// server: each has every event once, and those that do not read are cut off.
func TestBenchEvents(t *testing.T) {
	t.Parallel()
	cmd := stint(t, "bench", "latency", "--jobs", "10", "--runs", "1", "--events", "1000", "-o", "json")
	cmd.Dir = t.TempDir()
	r := run(t, cmd)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("bench ended with %d: %s", r.code, r.stderr)
	}
	var report benchReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	e := report.Events
	if e.Events < 5000 || e.Rate <= 0 || e.Queues != 10 || e.Followers != 100 || e.Unfiltered != 5 || e.Lag["p50"] <= 0 || e.Lag["p99"] < e.Lag["p50"] ||
		e.Stopped != 10 || e.Cut != 10 || e.Wrong != 0 || e.IdleRSS <= 0 || e.RSS <= 0 {
		t.Errorf("events: %+v", e)
	}
}

// TestBenchWatchers: followers of all events have the five of each life, those of ends one.
func TestBenchWatchers(t *testing.T) {
	t.Parallel()
	for flags, want := range map[string]float64{"--watchers=3": 5, "--watchers=3 --watch-ends": 1} {
		cmd := stint(t, append([]string{"bench", "life", "--jobs", "5000", "--runs", "1", "-o", "json"}, strings.Fields(flags)...)...)
		cmd.Dir = t.TempDir()
		r := run(t, cmd)
		var report benchReport
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != 0 {
			t.Fatalf("bench ended with %d, %v: %s%s", r.code, err, r.stdout, r.stderr)
		}
		w := report.Results[0].Watched
		if w == nil || w.Followers != 3 || w.EventsPerJob < want || w.EventsPerJob > want+0.01 || w.Behind < 0 {
			t.Errorf("%s: %+v", flags, w)
		}
	}
}

// TestBench runs all scenarios on few jobs: each must come to its end, without faults and with all its figures, and
// leave nothing behind. How fast it was is not looked at here.
func TestBench(t *testing.T) {
	cmd := stint(t, "bench", "--jobs", "2000", "--runs", "1", "--blocked", "10000", "-o", "json")
	cmd.Dir = t.TempDir()
	r := run(t, cmd)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("bench ended with %d: %s", r.code, r.stderr)
	}
	var report benchReport
	decoder := json.NewDecoder(strings.NewReader(r.stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	e := report.Environment
	if e.FS == "" || e.FS == "unknown" || e.Fsync <= 0 || e.CPUs < 1 || e.Go != runtime.Version() || e.OS == "" || e.Version == "" ||
		e.Payload != 100 || e.Batch != 50 || e.Streams != 4 || e.Workers != 8 || time.Since(e.Date) > time.Hour {
		t.Errorf("the environment is %+v; a part of it is missing", e)
	}
	var names []string
	for _, result := range report.Results {
		names = append(names, result.Name)
		if result.Runs != 1 || result.Jobs != 2000 || result.Errors != 0 || result.Rate <= 0 || result.Wall <= 0 ||
			result.LeastRate != result.Rate || result.MostRate != result.Rate || result.Server == nil || result.Client == nil {
			t.Errorf("the result of %s is %+v; a part of it is missing", result.Name, result)
		}
		q := result.Latency
		if (q != nil) != (result.Name == "latency" || result.Name == "interrupt") {
			t.Errorf("the result of %s has the latency %v", result.Name, q)
		} else if q != nil && (q.P50 <= 0 || q.P90 < q.P50 || q.P99 < q.P90 || q.P999 < q.P99 || q.Max < q.P999) {
			t.Errorf("the latencies are %+v; they must grow", *q)
		}
	}
	want := "submit drain life latency interrupt single-submit single-drain single-life unary-submit unary-drain"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the results are %s, want %s", got, want)
	}
	if b := report.Blocked; b.Jobs != 10_000 || b.Drained != 10_000 || b.Alone <= 0 || b.Behind <= 0 || len(b.Ratios) != 1 || b.Ratio != b.Ratios[0] ||
		b.AloneRSS <= 0 || b.BehindRSS <= 0 || b.Errors != 0 {
		t.Errorf("behind blocked jobs: %+v; a part of it is missing", b)
	}
	if left := contents(t, cmd.Dir); len(left) > 0 {
		t.Errorf("bench has left %v behind", left)
	}
}

// TestVersion is for scripts and for people.
func TestVersion(t *testing.T) {
	t.Parallel()
	var said map[string]string
	r := run(t, stint(t, "version", "-o", "json"))
	if err := json.Unmarshal([]byte(r.stdout), &said); err != nil || r.code != 0 {
		t.Fatalf("version -o json: %+v: %v", r, err)
	}
	if said["version"] == "" || said["go"] != runtime.Version() || said["os"] != runtime.GOOS || said["arch"] != runtime.GOARCH {
		t.Errorf("version -o json says %v", said)
	}
	if r := run(t, stint(t, "version")); r.code != 0 || !strings.HasPrefix(r.stdout, "stint "+said["version"]+" ") || lines(r.stdout) != 1 {
		t.Errorf("version: %+v, want a line with %s", r, said["version"])
	}
}

// TestCompletion produces a script for each shell; bash, where it is installed, can read its own. What they ask for is
// answered by the program: the names of queues come from the server.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for shell, word := range map[string]string{
		"bash": "complete -o", "zsh": "#compdef stint", "fish": "complete -c stint", "powershell": "Register-ArgumentCompleter",
	} {
		r := run(t, stint(t, "completion", shell))
		if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, word) {
			t.Errorf("completion %s ended with %d: %q, want a script with %q", shell, r.code, r.stderr, word)
		}
		if path, err := exec.LookPath(shell); err == nil && shell != "powershell" {
			check := exec.Command(path, "-n")
			check.Stdin = bytes.NewReader([]byte(r.stdout))
			if r := run(t, check); r.code != 0 {
				t.Errorf("%s does not accept its completion script: %s", shell, r.stderr)
			}
		}
	}

	s := serve(t, t.TempDir())
	s.submit("media/images", "x")
	s.submit("media/sound", "x")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"work", ""}, "media/images\nmedia/sound\n:4\n"},
		{[]string{"work", "media/images", "media/s"}, "media/sound\n:4\n"},
		{[]string{"queue", "get", "media/i"}, "media/images\n:4\n"},
		{[]string{"job", "list", "--state", ""}, "backoff\ncancelled\nexpired\nfailed\nparked\nready\nrunning\nscheduled\nsucceeded\n:4\n"},
		{[]string{"job", "interrupt", "--level", ""}, "retry\ncancel\n:4\n"},
		{[]string{"queue", "list", "-o", ""}, "table\njson\njsonl\n:4\n"},
	} {
		if got := s.must(append([]string{"__complete"}, test.args...)...); got != test.want {
			t.Errorf("completing %q gives %q, want %q", test.args, got, test.want)
		}
	}
}
