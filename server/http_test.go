package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/server"
)

// get asks the HTTP listener.
func (r *rig) get(path string) (code int, contentType, body string) {
	r.t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return r.http.DialContext(ctx) },
	}}
	request, err := http.NewRequestWithContext(r.ctx, http.MethodGet, "http://stint"+path, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), string(text)
}

// expectProbes asks for both probes.
func (r *rig) expectProbes(when string, live, ready int) {
	r.t.Helper()
	gotLive, _, _ := r.get("/livez")
	gotReady, _, _ := r.get("/readyz")
	if gotLive != live || gotReady != ready {
		r.t.Errorf("%s: /livez %d, /readyz %d; want %d, %d", when, gotLive, gotReady, live, ready)
	}
}

// TestProbes: /readyz says whether calls are served, in each phase; /livez only whether the process answers.
func TestProbes(t *testing.T) {
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		starting, err := server.New(r.store, r.matcher, server.Config{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]int{"/livez": 200, "/readyz": 503} {
			w := httptest.NewRecorder()
			starting.Handler().ServeHTTP(w, httptest.NewRequestWithContext(r.ctx, http.MethodGet, path, http.NoBody))
			if w.Code != want {
				t.Errorf("starting: %s %d, want %d", path, w.Code, want)
			}
		}
		r.expectProbes("serving", 200, 200)
		w := r.work()
		w.say(hello(newInstance()))
		done := r.shutdown(5 * time.Second)
		r.expectProbes("stopping", 200, 503)
		<-done
		if conn, err := r.http.DialContext(r.ctx); err == nil {
			conn.Close()
			t.Error("the HTTP listener is open after the shutdown")
		}
	})
	failed := make(chan struct{})
	faults = &faulty{failed: failed}
	inBubble(t, withFaults(faults), func(r *rig) {
		close(failed)
		r.expectProbes("disk failed", 200, 503)
	})
}

// TestHTTPOther: other paths and methods are not found or not allowed.
func TestHTTPOther(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for _, path := range []string{"/", "/livez/x", "/stint.v1.JobService/GetJob"} {
			if code, _, _ := r.get(path); code != http.StatusNotFound {
				t.Errorf("%s: %d", path, code)
			}
		}
	})
}

// series are the samples of an exposition, by name and labels.
type series map[string]float64

var (
	sampleLine = regexp.MustCompile(`^([a-z_]+)(\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*\})? (\S+)$`)
	helpLine   = regexp.MustCompile(`^# HELP ([a-z_]+) \S.*$`)
	typeLine   = regexp.MustCompile(`^# TYPE ([a-z_]+) (counter|gauge)$`)
)

// metrics reads /metrics by the rules of the Prometheus text format: HELP and TYPE once, before the samples of their
// family, which stand together; no sample twice; names of counters end in _total.
func (r *rig) metrics() series {
	r.t.Helper()
	code, contentType, text := r.get("/metrics")
	if code != http.StatusOK || contentType != "text/plain; version=0.0.4; charset=utf-8" {
		r.t.Fatalf("/metrics: %d, %s", code, contentType)
	}
	got, families, family := series{}, map[string]bool{}, ""
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if m := helpLine.FindStringSubmatch(line); m != nil {
			family = m[1]
			if families[family] {
				r.t.Errorf("the family %s comes twice", family)
			}
			families[family] = true
			continue
		}
		if m := typeLine.FindStringSubmatch(line); m != nil {
			if m[1] != family || strings.HasSuffix(family, "_total") != (m[2] == "counter") {
				r.t.Errorf("%q after the help of %s", line, family)
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || m[1] != family {
			r.t.Errorf("%q in the family %s", line, family)
			continue
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			r.t.Errorf("%q: %v", line, err)
		}
		if _, twice := got[m[1]+m[2]]; twice {
			r.t.Errorf("%q comes twice", line)
		}
		got[m[1]+m[2]] = value
	}
	return got
}

// expect compares samples; NaN-free and exact. A missing sample is -1.
func (s series) expect(t *testing.T, want series) {
	t.Helper()
	for name, value := range want {
		got, there := s[name]
		if !there {
			got = -1
		}
		if got != value {
			t.Errorf("%s is %g, want %g", name, got, value)
		}
	}
}

// TestMetrics: what happened is counted, and what there is is shown.
func TestMetrics(t *testing.T) {
	config := rigConfig{}
	config.server.Version = `1.2 "é"`
	inBubble(t, config, func(r *rig) {
		r.addStates()
		r.submitOne(&stintv1.JobSpec{Id: r.id("ready"), Queue: "s/ready"})
		r.submitOne(&stintv1.JobSpec{Queue: "Q"})
		r.submitOne(&stintv1.JobSpec{Queue: "Q"})
		r.pause("s/ready", "")
		r.retry(r.id("running"), newID())
		r.interrupt("succeeded", cancel, "")
		if _, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("running")}}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.queues.GetQueue(r.ctx, &stintv1.GetQueueRequest{Name: "none"}); err == nil {
			t.Fatal("a queue that is not there")
		}
		r.watch(nil)
		r.watch(nil).stop()
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(0))
		w.close()
		time.Sleep(90 * time.Second)
		got := r.metrics()
		got.expect(t, series{
			`stint_build_info{version="1.2 \"é\""}`:                                      1,
			`stint_storage_full`:                                                         0,
			`stint_jobs_submitted_total{status="created"}`:                               9,
			`stint_jobs_submitted_total{status="existing"}`:                              1,
			`stint_refusals_total{reason="INVALID_FIELD"}`:                               3,
			`stint_refusals_total{reason="RUN_ACTIVE"}`:                                  2,
			`stint_refusals_total{reason="JOB_NOT_FOUND"}`:                               1,
			`stint_refusals_total{reason="INTERRUPT_TOO_LATE"}`:                          1,
			`stint_refusals_total{reason="QUEUE_NOT_FOUND"}`:                             1,
			`stint_calls_total{method="stint.v1.JobService/RetryJobs",code="OK"}`:        1,
			`stint_calls_total{method="stint.v1.QueueService/GetQueue",code="NotFound"}`: 1,
			`stint_calls_total{method="stint.v1.WorkerService/Work",code="OK"}`:          1,
			`stint_queues`:                                            float64(len(states)),
			`stint_event_followers`:                                   1,
			`stint_queue_paused{queue="s/ready"}`:                     1,
			`stint_queue_paused{queue="s/running"}`:                   -1,
			`stint_queue_oldest_ready_age_seconds{queue="s/ready"}`:   90,
			`stint_queue_oldest_ready_age_seconds{queue="s/running"}`: -1,
			`stint_queue_jobs{queue="s/ready",state="ready"}`:         1,
			`stint_queue_jobs{queue="s/ready",state="running"}`:       0,
		})
		for _, state := range states {
			got.expect(t, series{`stint_jobs{state="` + state + `"}`: 1})
		}
		if got["stint_goroutines"] < 5 {
			t.Errorf("%g goroutines", got["stint_goroutines"])
		}
	})
}

// TestMetricsManyQueues: the series of queues are bounded; those with most unfinished jobs are shown, and the totals
// hold all.
func TestMetricsManyQueues(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.manyQueues(1500)
		r.add("zzz", "a", "b")
		got := r.metrics()
		got.expect(t, series{`stint_queues`: 1501, `stint_jobs{state="ready"}`: 1502, `stint_queue_jobs{queue="zzz",state="ready"}`: 2})
		shown := 0
		for name := range got {
			if strings.HasPrefix(name, "stint_queue_jobs{") && strings.HasSuffix(name, `state="ready"}`) {
				shown++
			}
		}
		if shown != 1000 {
			t.Errorf("%d queues are shown, want 1000", shown)
		}
	})
}

// TestMetricsFail: metrics that cannot be collected are an error, not half of them.
func TestMetricsFail(t *testing.T) {
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		faults.inject(func() error { return fmt.Errorf("%s", cause) })
		code, _, body := r.get("/metrics")
		if code != http.StatusServiceUnavailable || strings.Contains(body, "stint_") || strings.Contains(body, "sector") {
			t.Errorf("/metrics: %d, %s", code, body)
		}
		if !strings.Contains(r.log.String(), cause) {
			t.Error("the log does not hold the cause")
		}
	})
}

// services are those that health speaks of by name.
var services = []string{"stint.v1.EventService", "stint.v1.JobService", "stint.v1.QueueService", "stint.v1.WorkerService"}

// TestHealth: each service serves, until the server stops.
func TestHealth(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		health := healthv1.NewHealthClient(r.conn)
		watch, err := health.Watch(r.ctx, &healthv1.HealthCheckRequest{Service: services[0]})
		if err != nil {
			t.Fatal(err)
		}
		for _, service := range append([]string{""}, services...) {
			answer, err := health.Check(r.ctx, &healthv1.HealthCheckRequest{Service: service})
			if err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
				t.Errorf("%q: %v, %v", service, answer, err)
			}
		}
		if _, err := health.Check(r.ctx, &healthv1.HealthCheckRequest{Service: "x"}); ofCall(err).code != codes.NotFound {
			t.Errorf("a service that is not there: %v", err)
		}
		var told []healthv1.HealthCheckResponse_ServingStatus
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				m, err := watch.Recv()
				if err != nil {
					return
				}
				told = append(told, m.GetStatus())
			}
		}()
		synctest.Wait()
		<-r.shutdown(time.Second)
		<-ended
		want := []healthv1.HealthCheckResponse_ServingStatus{healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING}
		if !slices.Equal(told, want) {
			t.Errorf("who watches was told %v, want %v", told, want)
		}
	})
}

// TestReflection: both versions, whose messages are the same, list the services and know their files.
func TestReflection(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for _, version := range []string{"v1", "v1alpha"} {
			method := "/grpc.reflection." + version + ".ServerReflection/ServerReflectionInfo"
			stream, err := r.conn.NewStream(r.ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
			if err != nil {
				t.Fatal(err)
			}
			ask := func(m *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
				t.Helper()
				answer := &reflectionv1.ServerReflectionResponse{}
				if err := errors.Join(stream.SendMsg(m), stream.RecvMsg(answer)); err != nil {
					t.Fatal(err)
				}
				return answer
			}
			var names []string
			listed := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
			for _, s := range listed.GetListServicesResponse().GetService() {
				names = append(names, s.GetName())
			}
			want := append([]string{
				"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
			}, services...)
			if slices.Sort(names); !slices.Equal(names, want) {
				t.Errorf("%s lists %v, want %v", version, names, want)
			}
			file := ask(&reflectionv1.ServerReflectionRequest{
				MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "stint.v1.WorkRequest"},
			})
			if len(file.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
				t.Errorf("%s does not know WorkRequest: %v", version, file)
			}
			if err := stream.CloseSend(); err != nil {
				t.Error(err)
			}
		}
	})
}
