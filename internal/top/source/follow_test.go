package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// fakeServer lists what it is told to, and sends what the test sends. Its calls take no time.
type fakeServer struct {
	stintv1.QueueServiceClient
	stintv1.WorkerServiceClient

	messages chan *stintv1.WatchEventsResponse

	mu       sync.Mutex
	away     error // What every call ends with.
	refused  error // What a watch ends with, once.
	pages    int   // How many pages of queues there are.
	limits   int
	lists    []time.Duration // When queues were listed, since the start.
	cursors  []string        // Where watches began.
	usages   []string        // Whose usage was read.
	began    time.Time
	watching int
}

func newFakeServer() *fakeServer {
	return &fakeServer{messages: make(chan *stintv1.WatchEventsResponse), pages: 1, began: time.Now()}
}

func (s *fakeServer) Queues() stintv1.QueueServiceClient   { return s }
func (s *fakeServer) Workers() stintv1.WorkerServiceClient { return s }

func (s *fakeServer) ListQueues(_ context.Context, m *stintv1.ListQueuesRequest, _ ...grpc.CallOption) (*stintv1.ListQueuesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	page := 0
	if m.GetPageToken() == "" {
		s.lists = append(s.lists, time.Since(s.began))
	} else if _, err := fmt.Sscan(m.GetPageToken(), &page); err != nil {
		return nil, err
	}
	answer := &stintv1.ListQueuesResponse{
		Queues: []*stintv1.Queue{{Name: fmt.Sprintf("q%d", page)}}, AsOf: fmt.Sprintf("list %d, page %d", len(s.lists), page),
	}
	if page++; page < s.pages {
		answer.NextPageToken = fmt.Sprint(page)
	}
	return answer, s.away
}

func (s *fakeServer) ListWorkers(context.Context, *stintv1.ListWorkersRequest, ...grpc.CallOption) (*stintv1.ListWorkersResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &stintv1.ListWorkersResponse{Workers: []*stintv1.Worker{{InstanceId: "w", Worker: "w", Connected: true}}}, s.away
}

func (s *fakeServer) ListLimits(context.Context, *stintv1.ListLimitsRequest, ...grpc.CallOption) (*stintv1.ListLimitsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &stintv1.ListLimitsResponse{}
	for i := range s.limits {
		answer.Limits = append(answer.Limits, &stintv1.Limit{Name: fmt.Sprintf("l%02d", i)})
	}
	return answer, s.away
}

func (s *fakeServer) GetLimitUsage(_ context.Context, m *stintv1.GetLimitUsageRequest, _ ...grpc.CallOption) (*stintv1.GetLimitUsageResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usages = append(s.usages, m.GetName())
	if m.GetName() == "l03" {
		return nil, refusal(codes.NotFound, "LIMIT_NOT_FOUND") // Deleted since it was listed.
	}
	return &stintv1.GetLimitUsageResponse{Keys: []*stintv1.KeyUsage{{Key: "k", LiveUnits: 1}}}, s.away
}

func (s *fakeServer) Watch(ctx context.Context, m *stintv1.WatchEventsRequest, fn func(*stintv1.WatchEventsResponse) error) error {
	s.mu.Lock()
	s.cursors = append(s.cursors, m.GetCursor())
	s.watching++
	err := s.refused
	s.refused = nil
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.watching--
		s.mu.Unlock()
	}()
	for err == nil {
		select {
		case sent := <-s.messages:
			err = fn(sent)
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
		if err == nil {
			err, s.refused = s.refused, nil
		}
		s.mu.Unlock()
	}
	return err
}

// set changes the fake.
func (s *fakeServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// asked is what it was asked for.
type asked struct {
	lists           []time.Duration
	cursors, usages []string
}

// asked waits until nothing goes on any more, and tells what it was asked for.
func (s *fakeServer) asked() asked {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return asked{slices.Clone(s.lists), slices.Clone(s.cursors), slices.Clone(s.usages)}
}

// refusal is an error as the server sends it.
func refusal(code codes.Code, reason string) error {
	st, err := status.New(code, "refused").WithDetails(&errdetails.ErrorInfo{Domain: "stint", Reason: reason})
	return errors.Join(err, st.Err())
}

// inBubble follows a fake server until the test has done; then all that was started must have ended.
func inBubble(t *testing.T, prepare func(*fakeServer), do func(s *fakeServer, b *Board, ended chan error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newFakeServer()
		if prepare != nil {
			prepare(s)
		}
		b := NewBoard(time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Follow(ctx, s, b) }()
		synctest.Wait()
		do(s, b, ended)
		cancel()
		synctest.Wait()
		if s.watching != 0 || len(ended) != 1 {
			t.Errorf("after the end %d watches go on, Follow has ended: %d", s.watching, len(ended))
		}
	})
}

func submitted(queue string) *stintv1.Event {
	return &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_JOB_SUBMITTED, Queue: queue, Time: timestamppb.Now()}
}

// TestListThenWatch: events are followed from before the first page, and lists come every second.
func TestListThenWatch(t *testing.T) {
	inBubble(t, func(s *fakeServer) { s.pages = 1 }, func(s *fakeServer, b *Board, _ chan error) {
		if !slices.Equal(s.asked().cursors, []string{"list 1, page 0"}) {
			t.Errorf("watched from %q", s.asked().cursors)
		}
		select {
		case <-b.Live():
			t.Error("complete before the first word of events")
		default:
		}
		s.messages <- &stintv1.WatchEventsResponse{Events: []*stintv1.Event{submitted("new")}, Live: true}
		<-b.Live()
		synctest.Wait()
		if got := b.Take("").Totals; got.Queues != 2 || got.Workers != 1 {
			t.Errorf("the totals are %+v", got)
		}
		time.Sleep(3500 * time.Millisecond)
		want := []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second}
		if !slices.Equal(s.asked().lists, want) {
			t.Errorf("listed at %v, want %v", s.asked().lists, want)
		}
	})
}

// TestManyPages: a long list is read less often, but at least twice a minute.
func TestManyPages(t *testing.T) {
	for pages, pace := range map[int]time.Duration{5: 5 * time.Second, 50: 30 * time.Second} {
		inBubble(t, func(s *fakeServer) { s.pages = pages }, func(s *fakeServer, b *Board, _ chan error) {
			time.Sleep(2*pace + time.Second)
			if want := []time.Duration{0, pace, 2 * pace}; !slices.Equal(s.asked().lists, want) {
				t.Errorf("%d pages: listed at %v, want %v", pages, s.asked().lists, want)
			}
			if n := len(b.Take("").Queues); n != pages {
				t.Errorf("%d pages: %d queues", pages, n)
			}
		})
	}
}

// TestLimitsTakeTurns: of many limits some are looked into with each list, and one that is deleted meanwhile does no harm.
func TestLimitsTakeTurns(t *testing.T) {
	inBubble(t, func(s *fakeServer) { s.limits = 15 }, func(s *fakeServer, b *Board, _ chan error) {
		time.Sleep(1500 * time.Millisecond)
		if len(s.asked().usages) != 20 || s.asked().usages[10] != "l10" || s.asked().usages[15] != "l00" {
			t.Errorf("looked into %q", s.asked().usages)
		}
		if l := b.Take("").Limits; len(l) != 15 || l[0].Key != "k" || l[3].Key != "" || l[14].Key != "k" {
			t.Errorf("the limits are %+v", l)
		}
	})
}

// TestResync: when events are not kept any more, everything is read anew.
func TestResync(t *testing.T) {
	inBubble(t, nil, func(s *fakeServer, b *Board, _ chan error) {
		s.messages <- &stintv1.WatchEventsResponse{Events: []*stintv1.Event{submitted("q0")}, Live: true}
		s.set(func() { s.refused = refusal(codes.OutOfRange, "RESYNC") })
		s.messages <- &stintv1.WatchEventsResponse{Live: true}
		time.Sleep(1100 * time.Millisecond)
		if len(s.asked().cursors) != 2 || s.asked().cursors[1] == s.asked().cursors[0] {
			t.Errorf("watched from %q", s.asked().cursors)
		}
		if got := b.Take(""); got.Rates.Events != 0 || got.Away != nil {
			t.Errorf("events from before the gap count: %+v, away %v", got.Rates, got.Away)
		}
		s.messages <- &stintv1.WatchEventsResponse{Events: []*stintv1.Event{submitted("q0")}, Live: true}
		synctest.Wait()
		if got := b.Take("").Rates.Events; got == 0 {
			t.Error("events from behind the gap do not count")
		}
	})
}

// TestBehind: what is too far behind is given up, at once.
func TestBehind(t *testing.T) {
	inBubble(t, nil, func(s *fakeServer, b *Board, _ chan error) {
		s.messages <- &stintv1.WatchEventsResponse{Events: []*stintv1.Event{submitted("q0")}, Live: true}
		old := submitted("q0")
		time.Sleep(behindMax)
		s.messages <- &stintv1.WatchEventsResponse{Events: []*stintv1.Event{old}}
		synctest.Wait()
		if len(s.asked().cursors) != 1 {
			t.Errorf("%s behind was too much", behindMax)
		}
		time.Sleep(time.Millisecond)
		s.messages <- &stintv1.WatchEventsResponse{Events: []*stintv1.Event{old}}
		synctest.Wait()
		if len(s.asked().cursors) != 2 || b.Take("").Behind != 0 {
			t.Errorf("watched from %q, %s behind", s.asked().cursors, b.Take("").Behind)
		}
	})
}

// TestServerGoesAway: it is said while it lasts, whether the watch has noticed or not.
func TestServerGoesAway(t *testing.T) {
	refused := status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:7707: connect: connection refused"`)
	inBubble(t, nil, func(s *fakeServer, b *Board, _ chan error) {
		s.set(func() { s.away = refused })
		time.Sleep(5500 * time.Millisecond)
		if got := b.Take(""); got.Away == nil || got.Away.Why != "connection refused" || time.Duration(got.AwayFor) != 4500*time.Millisecond {
			t.Errorf("while it is away: %+v for %s", got.Away, got.AwayFor)
		}
		s.set(func() { s.away = nil })
		time.Sleep(time.Second)
		if got := b.Take(""); got.Away != nil || len(s.asked().cursors) != 1 {
			t.Errorf("after it came back: %+v, watched from %q", got.Away, s.asked().cursors)
		}
	})
	// It is away when everything has to be read anew.
	inBubble(t, func(s *fakeServer) { s.away = refused }, func(s *fakeServer, b *Board, _ chan error) {
		time.Sleep(2500 * time.Millisecond)
		if got := b.Take(""); got.Away == nil || got.Listed {
			t.Errorf("while it is away: %+v", got)
		}
		s.set(func() { s.away = nil })
		time.Sleep(time.Second)
		if got := b.Take(""); got.Away != nil || !got.Listed || len(s.asked().cursors) != 1 {
			t.Errorf("after it came back: %+v", got)
		}
	})
}

// TestRefused: what does not pass by itself ends it, of lists and watches alike.
func TestRefused(t *testing.T) {
	no := status.Error(codes.Unimplemented, "unknown service")
	inBubble(t, func(s *fakeServer) { s.refused = no }, func(_ *fakeServer, _ *Board, ended chan error) {
		wantEnd(t, ended, no)
	})
	inBubble(t, nil, func(s *fakeServer, _ *Board, ended chan error) {
		s.set(func() { s.away = no })
		time.Sleep(2 * time.Second)
		wantEnd(t, ended, no)
	})
}

func wantEnd(t *testing.T, ended chan error, want error) {
	t.Helper()
	select {
	case got := <-ended:
		if status.Code(got) != status.Code(want) {
			t.Errorf("it ended with %v, want %v", got, want)
		}
		ended <- got // For the bubble.
	default:
		t.Error("it goes on")
	}
}
