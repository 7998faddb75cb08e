package accounts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// files makes a host's files and returns its sources.
func files(t *testing.T, passwd, group, nsswitch string) *sources {
	t.Helper()
	dir := t.TempDir()
	s := &sources{passwd: filepath.Join(dir, "passwd"), group: filepath.Join(dir, "group"), nsswitch: filepath.Join(dir, "nsswitch.conf"), limit: askLimit}
	for name, text := range map[string]string{s.passwd: passwd, s.group: group, s.nsswitch: nsswitch} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

const (
	passwd = "# comment\nroot:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\n1234:x:99:99::/:\nbroken:x\n"
	group  = "root:x:0:\nweb:x:33:web\nadm:x:4:other,web\nssl:x:7:web\nssl2:x:7:web\n"
)

func TestFiles(t *testing.T) {
	s := files(t, passwd, group, "passwd: files\ngroup: files # no more\n")
	for _, key := range []string{"web", "33"} {
		a, err := s.user(key)
		if err != nil || a.Name != "web" || a.Home != "/var/www" || a.UID != 33 || a.GID != 33 || !slices.Equal(a.Groups, []uint32{4, 7}) {
			t.Errorf("%s: %+v, %v", key, a, err)
		}
	}
	if a, err := s.user("1234"); err != nil || a.UID != 99 {
		t.Errorf("a name of digits: %+v, %v", a, err)
	}
	for _, key := range []string{"nobody-here", "4321", "broken", ""} {
		if a, err := s.user(key); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %+v, %v; want unknown", key, a, err)
		}
	}
	if gid, err := s.groupNumber("adm"); err != nil || gid != 4 {
		t.Errorf("adm: %d, %v", gid, err)
	}
	if _, err := s.groupNumber("nogroup-here"); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v; want unknown", err)
	}
}

func TestOtherSources(t *testing.T) {
	for text, want := range map[string]bool{
		"passwd: files":                       false,
		"passwd:files systemd":                true,
		"passwd: files [NOTFOUND=return] #x":  false,
		"passwd: files [!UNAVAIL=return] sss": true,
		"#passwd: files ldap":                 false,
		"group: ldap":                         false,
		"":                                    false,
	} {
		if got := files(t, "", "", text).others("passwd", "files"); got != want {
			t.Errorf("%q: other sources %v, want %v", text, got, want)
		}
	}
}

// What the files lack is asked of the host's own sources: here systemd's records, which stand for LDAP and SSSD.
func TestAsksGetent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to add a user to /run/userdb")
	}
	const dir = "/run/userdb"
	record := filepath.Join(dir, "baton-test-user.user")
	_, err := os.Stat(dir)
	if made := os.IsNotExist(err); made {
		t.Cleanup(func() { os.Remove(dir) })
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(record) })
	json := `{"userName":"baton-test-user","uid":61987,"gid":61987,"homeDirectory":"/srv/far","shell":"/bin/sh","disposition":"regular"}`
	if err := os.WriteFile(record, []byte(json), 0o644); err != nil {
		t.Fatal(err)
	}
	if exec.Command("getent", "passwd", "baton-test-user").Run() != nil {
		t.Skip("this host's nsswitch.conf has no systemd")
	}
	s := files(t, passwd, group+"far:x:55:baton-test-user\n", "passwd: files systemd\ngroup: files systemd\n")
	a, err := s.user("baton-test-user")
	if err != nil || a.UID != 61987 || a.GID != 61987 || a.Home != "/srv/far" || !slices.Contains(a.Groups, 55) {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := files(t, passwd, group, "passwd: files\n").user("baton-test-user"); !errors.Is(err, ErrUnknown) {
		t.Errorf("found though nsswitch.conf names only files: %v", err)
	}
	if _, err := s.user("baton-no-such-user"); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v; want unknown", err)
	}
	// Once known, it stays so while the directory is away.
	for id, kept := range s.kept {
		kept.at = kept.at.Add(-2 * keepFor)
		s.kept[id] = kept
	}
	s.limit = time.Nanosecond
	if b, err := s.user("baton-test-user"); err != nil || b.UID != a.UID {
		t.Errorf("while the directory is away: %+v, %v", b, err)
	}
}

// A directory that does not answer costs a limited time, and keeps nobody out whom the files know.
func TestDirectoryHangs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "getent"), []byte("#!/bin/sh\nsleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s := files(t, passwd, group, "passwd: files ldap\ngroup: files ldap\n")
	s.limit = 50 * time.Millisecond
	began := time.Now()
	if _, err := s.user("far"); err == nil || !strings.Contains(err.Error(), "no answer within") {
		t.Errorf("%v; want that it gave no answer", err)
	}
	if a, err := s.user("web"); err != nil || !slices.Equal(a.Groups, []uint32{4, 7}) {
		t.Errorf("%+v, %v", a, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
