package resource

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// processFaults tells what is wrong with a process's fields on whatever host; what one host lacks is for Check.
func processFaults(fields map[string]any) (out []cluster.FieldFault) {
	add := func(hint, value, text string, path ...string) {
		out = append(out, cluster.FieldFault{Path: path, Value: value, Text: text, Hint: hint})
	}
	command, _ := fields["command"].([]string)
	dir, placed := fields["directory"].(string)
	placed = placed && dir != "/"
	switch {
	case len(command) == 0 || command[0] == "":
		add("write the program and its arguments", "", "is empty", "command")
	case !placed && strings.Contains(command[0], "/") && !filepath.IsAbs(command[0]):
		add("write the whole path, beginning with /, or add directory: that it begins in", command[0], "is no absolute path", "command")
	}
	if placed && !filepath.IsAbs(dir) {
		add("write the whole path, beginning with /", dir, "is no absolute path", "directory")
	}
	if user, _ := fields["user"].(string); user == "" {
		add("the agent is root, so a process says whom it runs as", "", "is empty", "user")
	}
	if signal, given := fields["stop_signal"].(string); given && signalOf(signal) == 0 {
		add("write SIGTERM, SIGINT or another signal; kill -l lists them", signal, "is no signal", "stop_signal")
	}
	for _, name := range []string{"ready", "healthy"} {
		if sub, given := fields[name].(map[string]any); given {
			checkFaults(sub, func(hint, value, text string, path ...string) {
				add(hint, value, text, append([]string{name}, path...)...)
			})
		}
	}
	return out
}

// signalOf returns the signal of a name, with or without SIG; 0: there is none.
func signalOf(name string) syscall.Signal {
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	return unix.SignalNum(name)
}

// checkFaults tells what is wrong with a check.
func checkFaults(fields map[string]any, add func(hint, value, text string, path ...string)) {
	const way = `write one of tcp: "localhost:8080", http: "http://localhost:8080/" and command: PROGRAM`
	var ways []string
	for _, name := range []string{"http", "tcp", "command"} {
		if _, given := fields[name]; given {
			ways = append(ways, name)
		}
	}
	switch len(ways) {
	case 0:
		add(way, "", "says nothing to ask: it lacks http, tcp or command")
	case 1:
	default:
		add("keep one of them", "", "has both "+strings.Join(ways, " and "), ways[1])
	}
	if text, given := fields["http"].(string); given {
		if why := urlFault(text); why != "" {
			add("write it like http://localhost:8080/", text, why, "http")
		}
	}
	if text, given := fields["tcp"].(string); given {
		if why := targetFault(text); why != "" {
			add("write it like localhost:8080", text, why, "tcp")
		}
	}
	for _, name := range []string{"interval", "timeout"} {
		if d, given := fields[name].(time.Duration); given && d < time.Millisecond {
			add("write 1ms or more", "", fmt.Sprintf("is %s, less than the least, 1ms", d), name)
		}
	}
	if n, given := fields["failures"].(int64); given && n < 1 {
		add("write 1 or more", "", fmt.Sprintf("is %d, less than the least, 1", n), "failures")
	}
}

// urlFault tells why a check can't ask a URL; empty: it can.
func urlFault(text string) string {
	u, err := url.Parse(text)
	switch {
	case !strings.HasPrefix(text, "http://") && !strings.HasPrefix(text, "https://"):
		return "lacks http:// or https://"
	case err != nil:
		return "is no URL"
	case u.Hostname() == "":
		return "lacks its host"
	case u.Port() != "" && !goodPort(u.Port()):
		return "has no port from 1 to 65535"
	}
	return ""
}

// targetFault tells why a check can't connect to HOST:PORT; empty: it can.
func targetFault(text string) string {
	host, port, err := net.SplitHostPort(text)
	switch {
	case err != nil && strings.Count(text, ":") > 1:
		return "is not HOST:PORT; an IPv6 address stands in brackets, as in [::1]:8080"
	case err != nil || port == "":
		return "lacks its port"
	case host == "":
		return "lacks its host"
	case !goodPort(port):
		return "has no port from 1 to 65535"
	}
	return ""
}

func goodPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}
