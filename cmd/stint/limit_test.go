package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestLimitCommands: limits are set in parts, bound what runs, and show who has what.
func TestLimitCommands(t *testing.T) {
	server := at(t)
	wantCode(t, stint(t, "", server, "limit", "put", "db"), 2, "db is new: --max, --rate or --circuit-breaker is needed")
	if out := squeeze(ok(t, server, "limit", "put", "db", "--max", "1", "--key", "a=b=3", "--on-zombie", "release")); !strings.HasPrefix(out, "Limit db\nMax 1\nMax of a=b 3\nOn zombie release\nJobs 0 unfinished\n") {
		t.Errorf("put printed:\n%s", out)
	}
	if out := squeeze(ok(t, server, "limit", "put", "db", "--max", "2", "--key", "a=b=", "--on-zombie", "default")); !strings.HasPrefix(out, "Limit db\nMax 2\nJobs 0 unfinished\n") {
		t.Errorf("put printed:\n%s", out)
	}
	wantCode(t, stint(t, "", server, "limit", "put", "db", "--max", "0"), 2, "INVALID_FIELD: policy.max_units: ")
	wantCode(t, stint(t, "", server, "limit", "put", "db", "--key", "a"), 2, `--key "a": want KEY=N`)
	wantCode(t, stint(t, "", server, "limit", "put", "db", "--key", "a=0"), 2, `--key "a=0": want a number`)
	wantCode(t, stint(t, "", server, "limit", "put", "db", "--on-zombie", "pray"), 2, `--on-zombie "pray": want hold or release`)

	id := submit(t, server, "q", "--limit", "db*2=main")
	if out := squeeze(ok(t, server, "job", "get", id)); !strings.Contains(out, "\nLimits db*2=main\n") {
		t.Errorf("job get printed:\n%s", out)
	}
	wantCode(t, stint(t, "", server, "submit", "q", "--limit", "nothing"), 3, `LIMIT_NOT_FOUND: limits: no limit has the name "nothing"`)
	wantCode(t, stint(t, "", server, "submit", "q", "--limit", "db*3"), 2, "UNITS_OVER_LIMIT: limits: ")
	for _, bad := range []string{"", "=k", "*2", "db*", "db*0=k", "db*x"} {
		wantCode(t, stint(t, "", server, "submit", "q", "--limit", bad), 2, "--limit ")
	}
	if out := squeeze(ok(t, server, "limit", "list")); !strings.Contains(out, "\ndb 2 - - 0 1") {
		t.Errorf("list printed:\n%s", out)
	}
	if out := squeeze(ok(t, server, "limit", "usage", "db")); !strings.Contains(out, "\nmain 2 0 0 1 - -") {
		t.Errorf("usage printed:\n%s", out)
	}
	if out := squeeze(ok(t, server, "limit", "usage", "db", "--key", "")); !strings.Contains(out, "\n(empty) 2 0 0 0 - -") {
		t.Errorf("usage of the empty key printed:\n%s", out)
	}
	var page struct {
		Keys []struct{ Key, WaitingJobs string }
	}
	if err := json.Unmarshal([]byte(ok(t, server, "limit", "usage", "db", "-o", "json")), &page); err != nil || len(page.Keys) != 1 || page.Keys[0].WaitingJobs != "1" {
		t.Errorf("usage as JSON: %+v, %v", page, err)
	}
	wantCode(t, stint(t, "", server, "limit", "usage", "nothing"), 3, "LIMIT_NOT_FOUND")
	wantCode(t, stint(t, "", server, "limit", "delete", "db"), 4, "LIMIT_IN_USE: the limit is named by 1 job not finished")
	if out := squeeze(ok(t, server, "limit", "delete", "db", "--force")); out != "db DELETED\n" && out != "db DELETED" {
		t.Errorf("delete printed %q", out)
	}
	wantCode(t, stint(t, "", server, "limit", "delete", "db"), 3, "LIMIT_NOT_FOUND")
	ok(t, server, "work", "q", "--until-empty", "--", "true")
	if out := squeeze(ok(t, server, "job", "get", id)); !strings.Contains(out, "SUCCEEDED") {
		t.Errorf("a job of a deleted limit:\n%s", out)
	}
}
