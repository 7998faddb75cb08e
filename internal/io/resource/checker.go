package resource

import (
	"errors"

	"baton/internal/core/cluster"
)

// Checker is a Kind that can tell what this host lacks for a resource before it is ever started.
type Checker interface {
	// Check looks for what a resource of the kind needs from this host: a user, a program, an interface.
	// It changes nothing. The hint says what to do; it is empty where the error says all.
	Check(spec cluster.ResourceSpec) (hint string, err error)
}

// Lacker is a Kind of which some of what it needs comes and goes, such as an interface that is down: that is no
// fault of the cluster file, so Check passes over it.
type Lacker interface {
	// Lacks tells what this host lacks at the moment for a resource of the kind: all that Check tells, and more. nil:
	// nothing. It changes nothing.
	Lacks(spec cluster.ResourceSpec) error
}

// Lacks tells what this host lacks at the moment for a resource of a kind; nil: nothing is known.
func Lacks(k Kind, spec cluster.ResourceSpec) error {
	if l, ok := k.(Lacker); ok {
		return l.Lacks(spec)
	}
	if c, ok := k.(Checker); ok {
		_, err := c.Check(spec)
		if u, ok := errors.AsType[*unfit](err); ok {
			return explained{u.told(), u}
		}
		return err
	}
	return nil
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
