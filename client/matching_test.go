package client

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestMatching: the results of all pages come in one sequence, an error ends it, a caller that breaks off asks for no
// more pages, and each time it begins at the first page.
func TestMatching(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var asked []string
		pages := map[string]*stintv1.InterruptJobsResponse{
			"":  {Results: []*stintv1.InterruptResult{{Id: "a"}, {Id: "b"}}, ContinueToken: "1"},
			"1": {ContinueToken: "2"},
			"2": {Results: []*stintv1.InterruptResult{{Id: "c"}}, ContinueToken: "3"},
		}
		s.interrupt = func(req *stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error) {
			asked = append(asked, req.GetContinueToken()+req.GetFilter().GetSubject())
			if page := pages[req.GetContinueToken()]; page != nil {
				return page, nil
			}
			return nil, refusal(codes.InvalidArgument, "PAGE_TOKEN_INVALID")
		}
		all := c.InterruptMatching(t.Context(), &stintv1.InterruptJobsRequest{Filter: &stintv1.JobFilter{Subject: "s"}, ContinueToken: "7"})
		for _, test := range []struct{ last, ids, asked string }{
			{"c", "a b c", "s 1s 2s"}, {"", "a b c error", "s 1s 2s 3s"}, {"a", "a", "s"},
		} {
			var ids []string
			asked = nil
			for result, err := range all {
				if err != nil {
					if ReasonOf(err) != stintv1.Reason_REASON_PAGE_TOKEN_INVALID || result != nil {
						t.Errorf("ended with %v, %v", result, err)
					}
					ids = append(ids, "error")
					continue
				}
				if ids = append(ids, result.GetId()); result.GetId() == test.last {
					break
				}
			}
			if !slices.Equal(ids, strings.Fields(test.ids)) || !slices.Equal(asked, strings.Fields(test.asked)) {
				t.Errorf("up to %q: got %q from pages %q", test.last, ids, asked)
			}
		}
	})
}
