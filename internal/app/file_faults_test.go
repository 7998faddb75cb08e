package app

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"baton/internal/core/config"
)

// TestFieldFaults: what is wrong with a field wherever the group runs is an error of the file, with its place and what to
// write instead.
func TestFieldFaults(t *testing.T) {
	const head = "cluster: web\nnodes: { a: { address: 10.0.0.11 }, b: { address: 10.0.0.12 }, c: { address: 10.0.5.13, role: witness } }\n" +
		"groups: { web: { resources: [ process: {\n"
	const way = `write one of tcp: "localhost:8080", http: "http://localhost:8080/" and command: PROGRAM`
	const whole = "write the whole path, beginning with /"
	for _, c := range []struct{ fields, place, text, hint string }{
		{"command: x, user: nobody, ready: { tcp: localhost }", "4:41", `ready.tcp of process of group web: "localhost" lacks its port`, "write it like localhost:8080"},
		{`command: x, user: nobody, ready: { tcp: "localhost:" }`, "4:41", `ready.tcp of process of group web: "localhost:" lacks its port`, "write it like localhost:8080"},
		{`command: x, user: nobody, ready: { tcp: "localhost:http" }`, "4:41", `ready.tcp of process of group web: "localhost:http" has no port from 1 to 65535`, "write it like localhost:8080"},
		{`command: x, user: nobody, ready: { tcp: "localhost:82820" }`, "4:41", `ready.tcp of process of group web: "localhost:82820" has no port from 1 to 65535`, "write it like localhost:8080"},
		{"command: x, user: nobody, healthy: { command: w, failures: -1 }", "4:60", "failures of healthy of process of group web is -1, less than the least, 0", ""},
		{`command: x, user: nobody, ready: { tcp: ":80" }`, "4:41", `ready.tcp of process of group web: ":80" lacks its host`, "write it like localhost:8080"},
		{`command: x, user: nobody, ready: { tcp: "::1:80" }`, "4:41", `ready.tcp of process of group web: "::1:80" is not HOST:PORT; an IPv6 address stands in brackets, as in [::1]:8080`, "write it like localhost:8080"},
		{`command: x, user: nobody, healthy: { http: "localhost:8080/" }`, "4:44", `healthy.http of process of group web: "localhost:8080/" lacks http:// or https://`, "write it like http://localhost:8080/"},
		{`command: x, user: nobody, healthy: { http: "http://localhost:99999/" }`, "4:44", `healthy.http of process of group web: "http://localhost:99999/" has no port from 1 to 65535`, "write it like http://localhost:8080/"},
		{`command: x, user: nobody, healthy: { http: "http:///x" }`, "4:44", `healthy.http of process of group web: "http:///x" lacks its host`, "write it like http://localhost:8080/"},
		{"command: x, user: nobody, healthy: { command: w, failures: 0 }", "4:60", "healthy.failures of process of group web is 0, less than the least, 1", "write 1 or more"},
		{"command: x, user: nobody, healthy: { command: w, interval: 0s }", "4:60", "healthy.interval of process of group web is 0s, less than the least, 1ms", "write 1ms or more"},
		{"command: x, user: nobody, ready: { command: w, timeout: 0s }", "4:57", "ready.timeout of process of group web is 0s, less than the least, 1ms", "write 1ms or more"},
		{"command: x, user: nobody, ready: {}", "4:34", "ready of process of group web says nothing to ask: it lacks http, tcp or command", way},
		{`command: x, user: nobody, ready: { tcp: "localhost:80", http: "http://localhost/" }`, "4:41", "ready.tcp of process of group web has both http and tcp", "keep one of them"},
		{"command: x, user: nobody, stop_signal: SIGFOO", "4:40", `stop_signal of process of group web: "SIGFOO" is no signal`, "write SIGTERM, SIGINT or another signal; kill -l lists them"},
		{"command: x, user: nobody, directory: www", "4:38", `directory of process of group web: "www" is no absolute path`, whole},
		{"command: bin/x, user: nobody", "4:10", `command of process of group web: "bin/x" is no absolute path`, whole + ", or add directory: that it begins in"},
		{"command: bin/x, user: nobody, directory: /srv", "", "", ""},
		{`command: x, user: nobody, stop_signal: HUP, ready: { tcp: "[::1]:80" }, healthy: { http: "https://[::1]/", failures: 1, interval: 1ms }`, "", "", ""},
	} {
		_, err := config.Parse("f", []byte(head+c.fields+"\n} ] } }\n"), Kinds())
		var wrong config.Errors
		if c.place == "" {
			if err != nil {
				t.Errorf("%s: %v", c.fields, err)
			}
			continue
		}
		if !errors.As(err, &wrong) || len(wrong) != 1 {
			t.Errorf("%s: %v", c.fields, err)
			continue
		}
		w := wrong[0]
		if place := fmt.Sprintf("%d:%d", w.Line, w.Column); place != c.place || w.Message != c.text || w.Hint != c.hint || !strings.Contains(w.SourceLine, c.fields) {
			t.Errorf("%s:\n  %s %s\n  hint %s", c.fields, place, w.Message, w.Hint)
		}
	}
}

// TestPrefixOfNoNetwork: a prefix that no network has would have the kernel look for all the rest of the world on that one
// wire.
func TestPrefixOfNoNetwork(t *testing.T) {
	const file = "cluster: web\nnodes: { a: { address: 10.0.0.11 }, b: { address: 10.0.0.12 }, c: { address: 10.0.5.13, role: witness } }\n" +
		"groups: { web: { resources: [ vip: %q ] } }\n"
	for address, want := range map[string]string{
		"10.0.0.50/0":  "address of vip of group web: \"10.0.0.50/0\" has a prefix of 0 bits, and no network has fewer than 8",
		"10.0.0.50/7":  "has a prefix of 7 bits",
		"fd00::50/0":   "has a prefix of 0 bits",
		"10.0.0.50/8":  "",
		"fd00::50/8":   "",
		"10.0.0.50/32": "",
	} {
		_, err := config.Parse("f", fmt.Appendf(nil, file, address), Kinds())
		var wrong config.Errors
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", address, err)
		case want == "":
		case !errors.As(err, &wrong) || len(wrong) != 1 || !strings.Contains(wrong[0].Message, want) || wrong[0].Line != 3 || !strings.HasPrefix(wrong[0].Hint, "write "+strings.Split(address, "/")[0]+"/"):
			t.Errorf("%s: %v", address, err)
		}
	}
}
