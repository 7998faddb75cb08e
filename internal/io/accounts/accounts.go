// Package accounts finds users and groups as the host knows them, without the C library: in /etc/passwd and
// /etc/group, and, where these lack somebody and /etc/nsswitch.conf names other sources (LDAP, SSSD, systemd), by
// asking getent(1), which is a program of that library. A directory that does not answer costs a limited time.
package accounts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"baton/internal/io/bounded"
)

// Account is a user as the host knows it.
type Account struct {
	Name, Home string
	UID, GID   uint32
	Groups     []uint32 // supplementary, each once, without GID
}

// ErrUnknown says that neither the files nor the other sources know the name or number.
var ErrUnknown = errors.New("no such user or group on this host")

const (
	// askLimit is how long getent may take: a directory that is away must not keep what is local from starting.
	askLimit = 2 * time.Second
	// keepFor is how long an answer of getent counts without asking anew; beyond that it counts where getent fails.
	keepFor   = 30 * time.Second
	maxAnswer = 1 << 20 // bytes of an answer: a group lists all its members in one line
	maxKept   = 1024    // answers
)

// host is where this host keeps its accounts.
var host = sources{passwd: "/etc/passwd", group: "/etc/group", nsswitch: "/etc/nsswitch.conf", limit: askLimit}

type sources struct {
	passwd, group, nsswitch string
	limit                   time.Duration

	mu   sync.Mutex
	kept map[string]answer // by what was asked
}

type answer struct {
	text string
	at   time.Time
}

// User finds a user by name or decimal uid. The error wraps [ErrUnknown] if nobody knows it.
func User(nameOrUID string) (Account, error) { return host.user(nameOrUID) }

// Group finds a group's number by its name. The error wraps [ErrUnknown] if nobody knows it.
func Group(name string) (uint32, error) { return host.groupNumber(name) }

func (s *sources) user(key string) (Account, error) {
	line, local, err := s.find(s.passwd, "passwd", key, 7)
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", key, err)
	}
	a := Account{Name: line[0], Home: line[5]}
	if a.UID, err = number(line[2]); err == nil {
		a.GID, err = number(line[3])
	}
	if err == nil {
		a.Groups, err = s.memberships(a.Name, local)
	}
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", key, err)
	}
	a.Groups = slices.DeleteFunc(a.Groups, func(g uint32) bool { return g == a.GID })
	return a, nil
}

func (s *sources) groupNumber(name string) (uint32, error) {
	line, _, err := s.find(s.group, "group", name, 4)
	if err == nil {
		var gid uint32
		if gid, err = number(line[2]); err == nil {
			return gid, nil
		}
	}
	return 0, fmt.Errorf("group %q: %w", name, err)
}

// find returns the fields of whoever has this name, or else this number: of the file, or of the other sources.
func (s *sources) find(file, database, key string, fields int) (line []string, local bool, err error) {
	text, err := bounded.ReadFile(file, bounded.Accounts)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, false, err
	}
	if line := pick(string(text), key, fields); line != nil {
		return line, true, nil
	}
	if !s.others(database, "files") {
		return nil, false, ErrUnknown
	}
	out, err := s.ask(database, key)
	if err != nil {
		return nil, false, err
	}
	if line := pick(out, key, fields); line != nil {
		return line, false, nil
	}
	return nil, false, ErrUnknown
}

// pick finds a line of passwd(5) or group(5). Names come first: one may consist of digits.
func pick(text, key string, fields int) (byNumber []string) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) < fields || f[0] == "" || strings.HasPrefix(f[0], "#") {
			continue
		}
		if f[0] == key {
			return f
		}
		if byNumber == nil && f[2] == key {
			byNumber = f
		}
	}
	return byNumber
}

// memberships returns a user's groups: those that /etc/group lists it in, and those of the other sources. One that
// is in the files is only in groups of files, as far as systemd is concerned; and it is not kept from its groups of
// the files by a directory that does not answer.
func (s *sources) memberships(name string, local bool) ([]uint32, error) {
	text, err := bounded.ReadFile(s.group, bounded.Accounts)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var groups []uint32
	add := func(text string) error {
		gid, err := number(text)
		if err == nil && !slices.Contains(groups, gid) {
			groups = append(groups, gid)
		}
		return err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) >= 4 && slices.Contains(strings.Split(f[3], ","), name) {
			if err := add(f[2]); err != nil {
				return nil, fmt.Errorf("%s: group %q: %w", s.group, f[0], err)
			}
		}
	}
	if local && !s.others("group", "files", "compat", "systemd") || !local && !s.others("group", "files") {
		return groups, nil
	}
	out, err := s.ask("initgroups", name)
	if err != nil {
		if local || errors.Is(err, ErrUnknown) {
			return groups, nil
		}
		return nil, err
	}
	for i, text := range strings.Fields(out) { // its name, then numbers
		if i == 0 {
			continue
		}
		if err := add(text); err != nil {
			return nil, fmt.Errorf("getent initgroups %s: %w", name, err)
		}
	}
	return groups, nil
}

// others tells whether nsswitch.conf(5) names sources beside these. Without the file there are none.
func (s *sources) others(database string, known ...string) bool {
	file, err := os.Open(s.nsswitch)
	if err != nil {
		return false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		name, services, found := strings.Cut(line, ":")
		if !found || strings.TrimSpace(name) != database {
			continue
		}
		for f := range strings.FieldsSeq(services) {
			if !strings.ContainsAny(f, "[]=") && !slices.Contains(known, f) { // [NOTFOUND=return] is an action
				return true
			}
		}
		return false
	}
	return false
}

// ask has getent look. An answer is kept for a while: a takeover starts many programs of one user.
func (s *sources) ask(database, key string) (string, error) {
	id := database + " " + key
	s.mu.Lock()
	kept, ok := s.kept[id]
	s.mu.Unlock()
	if ok && time.Since(kept.at) < keepFor {
		return kept.text, nil
	}
	out, err := s.getent(database, key)
	if err != nil {
		if ok && !errors.Is(err, ErrUnknown) {
			return kept.text, nil
		}
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil || len(s.kept) >= maxKept {
		s.kept = make(map[string]answer)
	}
	s.kept[id] = answer{out, time.Now()}
	return out, nil
}

func (s *sources) getent(database, key string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "getent", "--", database, key)
	cmd.WaitDelay = 100 * time.Millisecond // what it has started may hold its output open
	var out limited
	cmd.Stdout = &out
	err := cmd.Run()
	switch exit, exited := errors.AsType[*exec.ExitError](err); {
	case ctx.Err() != nil:
		return "", fmt.Errorf("getent %s %s gave no answer within %v: is the directory that %s names reachable?", database, key, s.limit, s.nsswitch)
	case errors.Is(err, exec.ErrNotFound):
		return "", ErrUnknown // a host without it has no sources but its files, whatever the file says
	case exited && exit.ExitCode() == 2: // getent(1): one of the keys was not found
		return "", ErrUnknown
	case err != nil:
		return "", fmt.Errorf("getent %s %s: %w", database, key, err)
	}
	return string(out), nil
}

// limited keeps the first maxAnswer bytes.
type limited []byte

func (l *limited) Write(b []byte) (int, error) {
	*l = append(*l, b[:min(len(b), maxAnswer-len(*l))]...)
	return len(b), nil
}

func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of a user or group", text)
	}
	return uint32(n), nil
}
