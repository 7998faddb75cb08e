package resource

import (
	"debug/elf"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

// Checker is a Kind that can tell what this host lacks for a resource before it is ever started.
type Checker interface {
	// Check looks for what a resource of the kind needs from this host: a user, a program, an interface.
	// It changes nothing. The hint says what to do; it is empty where the error says all.
	Check(spec cluster.ResourceSpec) (hint string, err error)
}

// Doubter is a Kind that can tell what of a resource will do and is probably not what was meant, on this host.
type Doubter interface {
	// Doubt tells what is doubtful of a resource for which nothing is lacking, and what to do; "": nothing is. It changes
	// nothing.
	Doubt(spec cluster.ResourceSpec) (text, hint string)
}

// Lacker is a Kind of which some of what it needs comes and goes, such as an interface that is down: that is no
// fault of the cluster file, so Check passes over it.
type Lacker interface {
	// Lacks tells what this host lacks at the moment for a resource of the kind: all that Check tells, and more. nil:
	// nothing. It changes nothing.
	Lacks(spec cluster.ResourceSpec) error
}

// Blocker is a Kind that can tell, of a resource that does not run since it failed for what is around it, what keeps it
// from starting at the moment. Of one that runs the same would be no news.
type Blocker interface {
	Blocked(spec cluster.ResourceSpec) error
}

// Blocked tells what keeps a resource of a kind, which has failed for what is around it, from starting at the moment;
// nil: nothing is known.
func Blocked(k Kind, spec cluster.ResourceSpec) error {
	if b, ok := k.(Blocker); ok {
		return b.Blocked(spec)
	}
	return nil
}

// Lacks tells what this host lacks at the moment for a resource of a kind; nil: nothing is known.
func Lacks(k Kind, spec cluster.ResourceSpec) error {
	if l, ok := k.(Lacker); ok {
		return l.Lacks(spec)
	}
	if c, ok := k.(Checker); ok {
		return checked(c, spec)
	}
	return nil
}

// checked is what Check finds, with what is to be done about it.
func checked(c Checker, spec cluster.ResourceSpec) error {
	_, err := c.Check(spec)
	if u, ok := errors.AsType[*unfit](err); ok {
		return explained{u.told(), u}
	}
	return err
}

// Check implements Checker: the user, the working directory and the programs must be here.
func (Process) Check(spec cluster.ResourceSpec) (hint string, err error) {
	p := &process{env: Env{Spec: spec}}
	if err := p.configure(spec.Fields); err != nil {
		return "", err
	}
	owner, err := lookupAccount(p.user)
	if err != nil {
		return "useradd --system " + p.user + ", or name another user", err
	}
	commands := [][]string{p.command}
	for _, c := range []*check{p.ready, p.healthy} {
		if c != nil && len(c.command) > 0 {
			commands = append(commands, c.command)
		}
	}
	for _, c := range commands {
		l := launch{dir: p.dir, argv: c, env: p.environment(owner, 0)}
		file, err := l.lookup()
		if err != nil {
			return install, err
		}
		if u := examine(l.absolute(file), l.path()); u != nil {
			return u.hint, u
		}
	}
	return "", nil
}

// Blocked implements Blocker: the ports that it listens on must be free.
func (Process) Blocked(spec cluster.ResourceSpec) error {
	p := &process{env: Env{Spec: spec}}
	if err := p.configure(spec.Fields); err != nil {
		return err
	}
	return p.portTaken()
}

// accountFiles are where users are known by.
var accountFiles = []string{"/etc/passwd", "/etc/group", "/etc/nsswitch.conf"}

// Awaits implements Awaiter: the user, the working directory, the programs and what they are interpreted by, and ports.
func (Process) Awaits(spec cluster.ResourceSpec) Awaited {
	p := &process{env: Env{Spec: spec}}
	if err := p.configure(spec.Fields); err != nil {
		return Awaited{}
	}
	a := Awaited{Files: append(slices.Clone(accountFiles), p.dir), Ports: p.listens()}
	commands := [][]string{p.command}
	for _, c := range []*check{p.ready, p.healthy} {
		if c != nil && len(c.command) > 0 {
			commands = append(commands, c.command)
		}
	}
	for _, c := range commands {
		l := launch{dir: p.dir, argv: c, env: p.environment(account{}, 0)}
		for _, file := range l.candidates(c[0]) {
			a.Files = append(a.Files, file)
			for _, interpreter := range interpreters(file) {
				a.Files = append(a.Files, l.candidates(interpreter)...)
			}
		}
	}
	return a
}

// candidates lists where a program is looked for.
func (l launch) candidates(name string) (out []string) {
	if strings.Contains(name, "/") {
		return []string{l.absolute(name)}
	}
	for _, dir := range filepath.SplitList(l.path()) {
		out = append(out, l.absolute(filepath.Join(dir, name)))
	}
	return out
}

// interpreters names what a script's first line names, and what the loader of a binary is; nil: nothing, or it is not
// known.
func interpreters(file string) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, headSize)
	n, _ := io.ReadFull(f, head)
	if line, script := strings.CutPrefix(string(head[:n]), "#!"); script {
		line, _, _ = strings.Cut(line, "\n")
		return strings.Fields(line)[:min(2, len(strings.Fields(line)))]
	}
	if e, err := elf.NewFile(f); err == nil {
		for _, p := range e.Progs {
			if p.Type == elf.PT_INTERP && p.Filesz <= unix.PathMax {
				name, _ := bounded.ReadAll(p.Open(), unix.PathMax)
				return []string{strings.TrimRight(string(name), "\x00")}
			}
		}
	}
	return nil
}
