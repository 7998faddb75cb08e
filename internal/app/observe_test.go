package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/io/api"
)

func TestServiceInWords(t *testing.T) {
	first := timestamppb.New(time.Date(2026, 3, 1, 6, 10, 0, 0, time.UTC))
	for _, c := range []struct {
		s    *batonv1.Service
		want string
	}{
		{nil, ""},
		{&batonv1.Service{}, ""},
		{&batonv1.Service{First: first, Availability: 1}, "100 % available since 2026-03-01 06:10, no outage on record"},
		{&batonv1.Service{First: first, Availability: 0.99998, Planned: durationpb.New(24 * ms), Unplanned: durationpb.New(976 * ms)},
			"99.9980 % available since 2026-03-01 06:10, 1s down in all, 24ms of it planned"},
		{&batonv1.Service{First: first, Availability: 0.5, Down: durationpb.New(90 * time.Second)}, "down for 1m30s, 50.00 % available since 2026-03-01 06:10, no outage on record"},
	} {
		if got := (statusView{}).service(&batonv1.Group{Service: c.s}); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	for share, want := range map[float64]string{1: "100 %", 0: "0.00 %", 0.9999999999: "99.999999 %", 0.998: "99.80 %", 0.9997: "99.970 %", 0.9876: "98.76 %"} {
		if got := percent(share); got != want {
			t.Errorf("%v: got %s, want %s", share, got, want)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{"10m": "11:50:00", "2026-02-28 06:10:43": "2026-02-28 06:10:43", "06:10": "06:10:00", "06:10:43": "06:10:43", "2026-03-01T06:10:43+01:00": "05:10:43", "2026-02-28": "2026-02-28 00:00:00"} {
		got, err := parseSince(text, now)
		if err != nil || !strings.HasSuffix(got.UTC().Format("2006-01-02 15:04:05"), want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"yesterday", "-5m", "10", "25:00"} {
		if at, err := parseSince(text, now); err == nil {
			t.Errorf("%q is %v", text, at)
		}
	}
}

// TestOutputOfJournal: what journalctl is asked, and what is made of its answer.
func TestOutputOfJournal(t *testing.T) {
	dir := t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
printf '%%s\n' "$@" > %s/args
cat <<'END'
{"MESSAGE":"hello","SYSLOG_IDENTIFIER":"baton-web-app","__REALTIME_TIMESTAMP":"1772345443120000"}
no JSON
{"MESSAGE":[104,105,255],"SYSLOG_IDENTIFIER":"baton-web-db","__REALTIME_TIMESTAMP":"1772345444000000"}
END
case "$*" in *--follow*) exec sleep 60;; esac
`, dir)
	if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	q := api.OutputQuery{Group: "web", Lines: 50, Since: time.Unix(1772345000, 0)}
	for _, follow := range []bool{false, true} {
		q.Follow = follow
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		var got []string
		err := outputOfJournal(ctx, q, []cluster.ResourceID{"app", "db"}, func(lines []api.OutputLine) error {
			for _, l := range lines {
				got = append(got, fmt.Sprintf("%s %s %s", l.Resource, l.Time.UTC().Format("15:04:05.000"), l.Text))
			}
			if follow && len(got) == 2 {
				cancel() // as who follows does in the end
			}
			return nil
		})
		if want := "app 06:10:43.120 hello; db 06:10:44.000 hi\uFFFD"; strings.Join(got, "; ") != want || err != nil {
			t.Errorf("follow %v: got %q, %v, want %q", follow, got, err, want)
		}
		if ctx.Err() == context.DeadlineExceeded {
			t.Error("journalctl was not ended")
		}
		cancel()
		args, err := os.ReadFile(filepath.Join(dir, "args"))
		text := strings.ReplaceAll(string(args), "\n", " ")
		for _, want := range []string{"--identifier=baton-web-app", "--identifier=baton-web-db", "--lines=50", "--since=@1772345000", "--output=json"} {
			if !strings.Contains(text, want) {
				t.Errorf("journalctl was asked %q, without %s (%v)", text, want, err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte("#!/bin/sh\necho no journal >&2; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	q.Follow = false
	if err := outputOfJournal(t.Context(), q, []cluster.ResourceID{"app"}, nil); err == nil || !strings.Contains(err.Error(), "no journal") {
		t.Errorf("what journalctl complained of is lost: %v", err)
	}
}
