package trial

import (
	"debug/elf"
	"strings"
	"testing"
)

// "One static binary" needs neither an interpreter nor a library of the host: it starts on every distribution, old
// and new, and from an initramfs.
func TestBinaryIsStatic(t *testing.T) {
	t.Parallel()
	path, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_DYNAMIC || p.Type == elf.PT_INTERP {
			t.Errorf("%s has a segment %v: it is linked dynamically", path, p.Type)
		}
	}
	if libraries, _ := f.ImportedLibraries(); len(libraries) > 0 {
		t.Errorf("%s needs %v", path, libraries)
	}
}

// A user that /etc/passwd lacks, because it comes from a directory: systemd's records stand for LDAP and SSSD here.
func TestUserOfADirectory(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Cold: true})
	const record = `{"userName":"far-user","uid":61988,"gid":61988,"homeDirectory":"/","shell":"/bin/sh","disposition":"regular"}`
	for _, n := range Nodes[:2] {
		c.shell(n, "mkdir -p /run/userdb && echo '"+record+"' > /run/userdb/far-user.user")
		if out := c.shell(n, "getent passwd far-user || true"); out == "" {
			t.Skip("nsswitch.conf has no systemd here")
		}
	}
	const far = "  far:\n    nodes: [alpha, beta]\n    resources:\n      - process: { name: idle, command: sleep 1000000, user: far-user }\n      - vip: 10.77.0.60/24\n"
	c.apply(c.text(Alpha) + far)
	c.eventually("the program runs as that user", func() bool {
		return strings.Contains(c.shell(Alpha, "ps -eo uid,args"), "61988 sleep 1000000")
	})
}
