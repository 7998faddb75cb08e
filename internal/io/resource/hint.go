package resource

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"baton/internal/io/bounded"
)

// leftBy counts what the program has left running at its end, in its cgroup; what we run there to ask for its health
// is not its own.
func (p *process) leftBy(r *run) (n int) {
	if p.group.dir == "" {
		return 0
	}
	text, err := bounded.ReadFile(filepath.Join(p.group.dir, "cgroup.procs"), bounded.Small)
	if err != nil {
		return 0
	}
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil || pid == r.pid {
			continue
		}
		if s, err := readStat(pid); err == nil && !s.zombie && s.parent != os.Getpid() {
			n++
		}
	}
	return n
}

// wentToBackground words the end of a program that has left others behind, as one does that makes itself a daemon.
func wentToBackground(left int) string {
	what := "a process"
	if left > 1 {
		what = fmt.Sprintf("%d processes", left)
	}
	return "went to the background (it exited with status 0 and left " + what + "): give it the option to stay in the foreground; it did so"
}

// outputHint says what a program's last words mean where they are about what surrounds it here; "": nothing is known.
func outputHint(output string) string {
	for line := range strings.Lines(strings.ToLower(output)) {
		has := func(parts ...string) bool {
			return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(line, p) })
		}
		switch {
		case has("cannot assign requested address", "can't assign requested address", "eaddrnotavail", "errno 99]") && !has("connect"):
			if nonlocalBind() {
				return "it binds an address that is not on this host"
			}
			return "it binds an address that is not here: addresses come up last; let it listen on all, or sysctl net.ipv4.ip_nonlocal_bind=1 (ipv6 alike)"
		case has("address already in use", "eaddrinuse", "errno 98]"):
			return "its port is taken: ss -tulpn says by whom"
		case has("\r: not found", "$'\\r'", "^m: bad interpreter", "\\r\u2019: no such file"):
			return "a script has DOS line ends (CR LF): sed -i 's/\\r$//' it"
		}
	}
	return ""
}

// nonlocalBind tells whether this host lets programs bind addresses that it has not (ip(7)).
func nonlocalBind() bool {
	text, err := bounded.ReadFile("/proc/sys/net/ipv4/ip_nonlocal_bind", bounded.Small)
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// scriptLook is how much of a script is looked at, in bytes.
const scriptLook = 64 << 10

// DOSScript finds a script among the words of a command whose lines end in CR LF, as DOS ends them: the program itself,
// or what a shell is given; "": there is none. Relative names are below dir.
func DOSScript(dir string, command []string) string {
	for i, word := range command {
		if i > 0 && !shells[filepath.Base(command[0])] {
			break
		}
		if !filepath.IsAbs(word) {
			if !strings.Contains(word, "/") && i == 0 {
				continue // found on the PATH: no script of the user's
			}
			word = filepath.Join(dir, word)
		}
		if info, err := os.Stat(word); err != nil || !info.Mode().IsRegular() {
			continue
		}
		head, err := bounded.Head(word, scriptLook)
		if err == nil && bytes.Contains(head, []byte("\r\n")) && (i > 0 || bytes.HasPrefix(head, []byte("#!"))) && !bytes.ContainsRune(head, 0) {
			return word
		}
	}
	return ""
}

// shells are programs of which an argument that is a file is a script.
var shells = map[string]bool{"sh": true, "bash": true, "dash": true, "ash": true, "ksh": true, "zsh": true, "busybox": true, "env": true}

// endHint says what the end of the program, whose output begins at from, means beyond its status; "": nothing more is known.
func (p *process) endHint(well bool, from int64) string {
	if script := DOSScript(p.dir, p.command); script != "" && !well {
		return fmt.Sprintf("%s has DOS line ends (CR LF): sed -i 's/\\r$//' %[1]s", script)
	}
	return outputHint(lastOutput(Output(p.env), from))
}
