package app

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/api"
	"baton/internal/io/disk"
	"baton/internal/io/identity"
)

// distant is a stage that answers over TLS to one token.
type distant struct {
	*stage
	id *identity.Identity
}

func (d *distant) Identity() *identity.Identity { return d.id }
func (d *distant) Tokens() []cluster.Token {
	return []cluster.Token{{Name: "ci", Role: "view", Hash: identity.Hash(distantSecret)}}
}

var (
	distantKey    = bytes.Repeat([]byte{4}, wire.KeySize)
	distantSecret = bytes.Repeat([]byte{5}, identity.SecretSize)
)

// serveDistant answers on a port of its own.
func serveDistant(t *testing.T) (address string, id *identity.Identity) {
	t.Helper()
	id, err := identity.New("alpha", [][]byte{distantKey})
	if err != nil {
		t.Fatal(err)
	}
	return serveAfar(t, &distant{healthy(), id}, id), id
}

// serveAfar answers on a port of its own.
func serveAfar(t *testing.T, b api.Backend, id *identity.Identity) (address string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "baton-cli-")
	if err != nil {
		t.Fatal(err)
	}
	server, err := api.Listen(filepath.Join(dir, "s"), b)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", id.Server())
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if conn := c.(*tls.Conn); conn.Handshake() == nil {
				server.Take(conn)
			} else {
				c.Close()
			}
		}
	})
	t.Cleanup(func() {
		ln.Close()
		accepting.Wait()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return ln.Addr().String()
}

// home makes a place for contexts.
func home(t *testing.T) (file string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("HOME", dir)
	return filepath.Join(dir, "baton", "contexts.yaml")
}

func TestContexts(t *testing.T) {
	file := home(t)
	address, id := serveDistant(t)
	pin, token := id.Fingerprint().String(), identity.FormatToken(distantSecret)
	local := serveStage(t, forming())
	run := func(want int, says string, args ...string) {
		t.Helper()
		code, out, errOut := baton(t, "", args...)
		if code != want || !strings.Contains(out+errOut, says) {
			t.Errorf("%v: exit %d, want %d and %q: %s%s", args, code, want, says, out, errOut)
		}
		if want != exitDone && strings.Count(errOut, "error: ") != 1 {
			t.Errorf("%v: not one line: %s", args, errOut)
		}
	}
	run(exitDone, "there is none", "context", "list")
	run(exitDone, "it reaches alpha of cluster ledger", "context", "add", "prod", "127.0.0.1:1", address, "--authority", pin, "--token", token)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	run(exitDone, "orders serves on alpha", "--context", "prod", "status")
	run(exitFailed, "token ci has the role view, and this needs operate", "--context", "prod", "switch", "orders")
	run(exitDone, "commands use context prod", "context", "use", "prod")
	run(exitDone, "orders serves on alpha", "status")
	run(exitDone, "orders serves on alpha", "--address", address, "status")
	run(exitUnreached, "no agent reached at context prod (127.0.0.1:1)", "--address", "127.0.0.1:1", "status")
	if code, out, _ := baton(t, local, "status"); code != exitDone || !strings.Contains(out, "gamma is not heard") {
		t.Errorf("a socket that is named counts more than a context in use: %s", out)
	}
	run(exitDone, "in use", "context", "list")
	run(exitDone, `"current": "prod"`, "--json", "context", "list")
	if _, out, _ := baton(t, "", "--json", "context", "list"); strings.Contains(out, token) {
		t.Error("the list shows the token")
	}
	run(exitUsage, "the contexts are: prod", "--context", "test", "status")
	run(exitDone, "saved, but not reached now", "context", "add", "away", "127.0.0.1:1", "--authority", pin, "--token", token)
	run(exitFailed, "its authority is "+pin, "context", "add", "false", address, "--authority", "sha256:"+strings.Repeat("0", 64), "--token", token)
	other := identity.FormatToken(distantKey)
	run(exitFailed, "it was revoked, or is another cluster's", "context", "add", "false", address, "--authority", pin, "--token", other)
	run(exitDone, "is forgotten", "context", "remove", "prod")
	run(exitUsage, "there is no context", "context", "remove", "prod")

	run(exitUsage, "nothing says which authority to believe", "--address", address, "status")
	t.Setenv(tokenVariable, token)
	t.Setenv(pinVariable, pin)
	run(exitDone, "orders serves on alpha", "--address", address, "status")
	t.Setenv(tokenVariable, token[:20])
	run(exitUsage, "the token was cut short or changed", "--address", address, "status")
}

// What is wrong with a context or its token is told in one line with a hint, before anything is sent.
func TestContextMistakes(t *testing.T) {
	file := home(t)
	token := identity.FormatToken(distantSecret)
	pin := "sha256:" + strings.Repeat("1", 64)
	secret := filepath.Join(filepath.Dir(filepath.Dir(file)), "token")
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	context := func(rest string) string {
		return "contexts:\n  - name: prod\n    addresses: [\"127.0.0.1:1\"]\n" + rest
	}
	for name, c := range map[string]struct{ text, says string }{
		"no yaml":       {"contexts: [", "contexts.yaml:"},
		"unknown word":  {context("    colour: red\n"), "unknown field"},
		"no token":      {context("    authority: [" + pin + "]\n"), "there is no token"},
		"cut":           {context("    authority: [" + pin + "]\n    token: " + token[:30] + "\n"), "cut short or changed"},
		"no token's":    {context("    authority: [" + pin + "]\n    token: secret\n"), "a token begins with bt1_"},
		"invitation":    {context("    authority: [" + pin + "]\n    token: " + identity.Invitation{Secret: distantSecret}.Format() + "\n"), "is for baton join"},
		"no authority":  {context("    token: " + token + "\n"), "nothing says which authority"},
		"bad authority": {context("    authority: [sha256:12]\n    token: " + token + "\n"), "is no fingerprint"},
		"no file":       {context("    authority: [" + pin + "]\n    token_file: /none/x\n"), "read the token"},
		"open file":     {context("    authority: [" + pin + "]\n    token_file: ~/token\n"), "has mode 0644"},
		"no address":    {"contexts:\n  - name: prod\n    authority: [" + pin + "]\n    token: " + token + "\n", "no address is known"},
		"unreached":     {context("    authority: [" + pin + "]\n    token: " + token + "\n"), "no agent reached at context prod (127.0.0.1:1)"},
	} {
		write(file, c.text, 0o600)
		write(secret, token, 0o644)
		code, _, errOut := baton(t, "", "--context", "prod", "status")
		if code == exitDone || !strings.Contains(errOut, c.says) || strings.Count(errOut, "\n") != 2 || !strings.Contains(errOut, "\nhint: ") {
			t.Errorf("%s: exit %d: %s", name, code, errOut)
		}
		if strings.Contains(errOut, token) {
			t.Errorf("%s: the token is shown: %s", name, errOut)
		}
	}
	write(file, context("    authority: ["+pin+"]\n    token: "+token+"\n"), 0o644)
	if code, _, errOut := baton(t, "", "--context", "prod", "status"); code != exitUsage || !strings.Contains(errOut, "others can read the secret") {
		t.Errorf("a file that others can read: exit %d: %s", code, errOut)
	}
}

func TestKeyring(t *testing.T) {
	dir := t.TempDir()
	real, file := filepath.Join(dir, "real"), filepath.Join(dir, "key")
	old, next := wire.Keys{First: bytes.Repeat([]byte{1}, wire.KeySize)}, bytes.Repeat([]byte{2}, wire.KeySize)
	if err := errors.Join(os.WriteFile(real, []byte(old.Format()), 0o600), os.Symlink("real", file)); err != nil {
		t.Fatal(err)
	}
	var used [][][]byte
	k := &keyring{file: file, keys: old, use: func(keys [][]byte) error { used = append(used, keys); return nil }}
	for i, step := range []string{"accept", "accept", "seal", "seal", "drop", "drop"} {
		if err := k.step(step, next); err != nil {
			t.Fatal(i, step, err)
		}
		there, err := readKeyFile(real)
		if err != nil || there.Format() != k.present().Format() {
			t.Errorf("%s: the file and the agent differ: %v", step, err)
		}
	}
	if len(used) != 3 || len(used[0]) != 2 || !bytes.Equal(used[1][0], next) || len(used[2]) != 1 {
		t.Errorf("taken into use: %v", used)
	}
	if info, err := os.Lstat(file); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.WriteFile(real, []byte(old.Format()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.step("accept", bytes.Repeat([]byte{3}, wire.KeySize)); !errors.Is(err, errKeyEdited) {
		t.Errorf("a file that was edited: %v", err)
	}
}

func TestInvitations(t *testing.T) {
	var i invitations
	says := func(secret []byte, use bool, node cluster.NodeID, reason string) {
		t.Helper()
		got, err := i.find(secret, use)
		if got != node || (err == nil) != (reason == "") || (err != nil && !strings.Contains(err.Error(), reason)) {
			t.Errorf("%q, %v; want %q, %q", got, err, node, reason)
		}
	}
	give := func(node cluster.NodeID, d time.Duration) []byte {
		t.Helper()
		s, _, err := i.make(node, d)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	beta := give("beta", time.Hour)
	says(beta, false, "beta", "")
	says(beta, true, "beta", "")
	says(beta, true, "", "used already")
	first, second := give("gamma", time.Hour), give("gamma", time.Hour)
	says(first, false, "", "has ended")
	says(second, false, "gamma", "")
	says(give("beta", -time.Second), false, "", "has ended, 1s ago")
	says(bytes.Repeat([]byte{1}, identity.SecretSize), false, "", "is not known to this agent")
	for range 3 * invitationsMax {
		give("beta", time.Hour)
	}
	if len(i.all) > invitationsMax {
		t.Errorf("%d are kept", len(i.all))
	}
}

// Where nodes stand at different steps of a change, the key that it leads to is told from the files.
func TestNextKey(t *testing.T) {
	a, b, c := bytes.Repeat([]byte{1}, wire.KeySize), bytes.Repeat([]byte{2}, wire.KeySize), bytes.Repeat([]byte{3}, wire.KeySize)
	alone, accepts, seals, other := wire.Keys{First: a}, wire.Keys{First: a, Second: b, Next: true}, wire.Keys{First: b, Second: a}, wire.Keys{First: a, Second: c, Next: true}
	dropped := wire.Keys{First: b}
	for name, nodes := range map[string][]wire.Keys{
		"first step":  {accepts, alone, alone},
		"second step": {accepts, seals, accepts},
		"last step":   {dropped, dropped, seals},
	} {
		var list []keyNode
		for _, k := range nodes {
			list = append(list, keyNode{keys: k})
		}
		if key, begun, err := nextKey(list); err != nil || !begun || !bytes.Equal(key, b) {
			t.Errorf("%s: %x, %v, %v", name, key, begun, err)
		}
	}
	if key, begun, err := nextKey([]keyNode{{keys: alone}, {keys: alone}}); err != nil || begun || bytes.Equal(key, a) {
		t.Errorf("nothing under way: %x, %v, %v", key, begun, err)
	}
	if _, _, err := nextKey([]keyNode{{keys: accepts}, {keys: other}}); err == nil || !strings.Contains(err.Error(), "two changes") {
		t.Errorf("two at once: %v", err)
	}
}

// What is wrong with an invitation is told before anything is asked for.
func TestJoinMistakes(t *testing.T) {
	home(t)
	good := identity.Invitation{Secret: distantSecret}.Format()
	for name, c := range map[string]struct {
		code int
		args []string
		says string
	}{
		"cut":       {exitUsage, []string{"127.0.0.1:1", good[:50]}, "cut short or changed"},
		"token":     {exitUsage, []string{"127.0.0.1:1", identity.FormatToken(distantSecret)}, "no invitation"},
		"nonsense":  {exitUsage, []string{"127.0.0.1:1", "let-me-in"}, "begins with bi1_"},
		"unreached": {exitUnreached, []string{"127.0.0.1:1", good}, "no agent reached at 127.0.0.1:1"},
	} {
		code, _, errOut := baton(t, "", append([]string{"join"}, c.args...)...)
		if code != c.code || !strings.Contains(errOut, c.says) || strings.Count(errOut, "\n") != 2 || !strings.Contains(errOut, "\nhint: ") {
			t.Errorf("%s: exit %d: %s", name, code, errOut)
		}
	}
	address, _ := serveDistant(t)
	code, _, errOut := baton(t, "", "join", address, good)
	if code != exitFailed || !strings.Contains(errOut, "its certificate is not of the cluster that is expected there") || !strings.Contains(errOut, "hint: ") {
		t.Errorf("another cluster answers: exit %d: %s", code, errOut)
	}
}

// A data directory is taken if it is empty, new, or this cluster's; never another's, nor one in use.
func TestJoinLooksAtTheData(t *testing.T) {
	founded := func(id string) (string, *disk.Store) {
		t.Helper()
		dir := t.TempDir()
		s, _, err := disk.Open(dir, disk.Options{})
		if err == nil && id != "" {
			err = s.Write(cluster.Persist{N: 1, Founding: (&cluster.Founding{ID: id}).Encode(), Sync: true})
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir, s
	}
	closed := func(id string) string {
		dir, s := founded(id)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, dir := range map[string]string{"none": "/none/x", "empty": t.TempDir(), "new": closed(""), "this cluster's": closed("ledger-1")} {
		if err := checkData(dir, "ledger", "ledger-1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, id := range []string{"ledger-1", ""} { // "": it forms still, so that no data can be its
		if err := checkData(closed("other-7"), "ledger", id); err == nil || !strings.Contains(err.Error(), "the data of another cluster (other-7)") {
			t.Errorf("another cluster's: %v", err)
		}
	}
	dir, s := founded("ledger-1")
	defer s.Close()
	if err := checkData(dir, "ledger", "ledger-1"); err == nil || !strings.Contains(err.Error(), "an agent runs on "+dir) {
		t.Errorf("in use: %v", err)
	}
}
