package app

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
	"baton/internal/io/resource"
)

// checkGroups looks for what the groups of this node ask for that won't be as it looks in the file: the order of what
// comes up, an address that a program listens on, scripts with DOS line ends.
func checkGroups(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec) {
	listens := make(map[string]string) // by local port, the program that is taken to listen there
	for i := range spec.Groups {
		g := &spec.Groups[i]
		if g.Prefers(self.ID) < 0 {
			continue
		}
		checkReady(u, g, listens)
		name := "group " + string(g.ID)
		if front, behind := misplaced(g); front != "" {
			u.add(name, warning, "write "+front+" behind it, so that the file says what happens",
				"%s stands before %s in the file, and comes up behind it all the same: addresses come last, when all else is ready", front, behind)
		}
		for _, r := range g.Resources {
			command, _ := r.Fields["command"].([]string)
			dir, _ := r.Fields["directory"].(string)
			if len(command) == 0 {
				continue
			}
			_, missing := checkResource(r) // which is told already
			if script := resource.DOSScript(dir, command); script != "" && missing == nil {
				u.add(name, warning, "sed -i 's/\\r$//' "+script, "resource %s: %s has DOS line ends (CR LF), which no shell understands", r.ID, script)
			}
			if a, where := bindsOwn(g, &r); where != "" && !nonlocalBind(a) {
				u.add(name, warning, fmt.Sprintf("let it listen on all addresses and name its ports (ports: …), or sysctl net.%s.ip_nonlocal_bind=1 on every node of the group", familyName(a)),
					"resource %s: %s names %s, which comes up only once the program is ready: if it listens on that address, it can't (error 99)", r.ID, where, a)
			}
		}
	}
}

// checkReady tells of programs of two groups that count as ready by the same port of this node: where each listens there
// itself, one alone can, and the other counts as ready by the first one's answers. What `healthy` asks may be what both
// depend on, so it is not compared.
func checkReady(u *checkup, g *cluster.GroupSpec, listens map[string]string) {
	own := make(map[string]string)
	for _, r := range g.Resources {
		at := readyAt(&r)
		if at == "" {
			continue
		}
		program := fmt.Sprintf("%s of group %s", r.ID, g.ID)
		if other := listens[at]; other != "" {
			u.add("group "+string(g.ID), warning, "give each program a port of its own; if a third one answers for both there, it may stay",
				"%s and %s are ready once localhost:%s answers: on a node that runs both, one may count as ready by the other's answer", other, program, at)
		}
		own[at] = program
	}
	for at, program := range own {
		if listens[at] == "" {
			listens[at] = program
		}
	}
}

// readyAt is the port of this node by whose answer a program counts as ready; "": none.
func readyAt(r *cluster.ResourceSpec) string {
	ready, _ := r.Fields["ready"].(map[string]any)
	target, _ := ready["tcp"].(string)
	if text, ok := ready["http"].(string); ok {
		u, err := url.Parse(text)
		if err != nil {
			return ""
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		target = net.JoinHostPort(u.Hostname(), port)
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return ""
	}
	if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
		return ""
	}
	return port
}

// misplaced finds a front that stands in the file before something that comes up earlier all the same.
func misplaced(g *cluster.GroupSpec) (front, behind string) {
	for _, r := range g.Resources {
		switch {
		case r.Front && front == "":
			front = string(r.ID)
		case !r.Front && front != "":
			return front, string(r.ID)
		}
	}
	return "", ""
}

// configLook is the size up to which a file that a command names is looked at, in bytes.
const configLook = 256 << 10

// bindsOwn finds where a program's description, or a file that its command names, has an address of its own group.
func bindsOwn(g *cluster.GroupSpec, r *cluster.ResourceSpec) (a netip.Addr, where string) {
	command, _ := r.Fields["command"].([]string)
	environment, _ := r.Fields["environment"].(map[string]string)
	dir, _ := r.Fields["directory"].(string)
	for _, other := range g.Resources {
		if !other.Front {
			continue
		}
		for _, a := range other.Addresses {
			for _, word := range command {
				if namesAddress(word, a) {
					return a, "its command"
				}
			}
			for _, value := range environment {
				if namesAddress(value, a) {
					return a, "its environment"
				}
			}
			for _, file := range filesOf(dir, command) {
				if namesAddress(head(file, configLook), a) {
					return a, file
				}
			}
		}
	}
	return netip.Addr{}, ""
}

// filesOf lists the files that a command names behind the program, also as --option=FILE.
func filesOf(dir string, command []string) (files []string) {
	for _, word := range command[1:] {
		if _, value, ok := strings.Cut(word, "="); ok {
			word = value
		}
		if !strings.Contains(word, "/") {
			continue
		}
		if !filepath.IsAbs(word) {
			word = filepath.Join(dir, word)
		}
		if info, err := os.Stat(word); err == nil && info.Mode().IsRegular() && !slices.Contains(files, word) {
			files = append(files, word)
		}
	}
	return files
}

// head returns the beginning of a file; "" where it can't be read.
func head(file string, limit int) string {
	text, err := bounded.Head(file, limit)
	if err != nil {
		return ""
	}
	return string(text)
}

// namesAddress tells whether a text has an address in it, and not only as a part of a longer one.
func namesAddress(text string, a netip.Addr) bool {
	part := func(b byte) bool {
		return b >= '0' && b <= '9' || a.Is6() && (b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F' || b == ':')
	}
	name := a.String()
	for at := 0; ; {
		i := strings.Index(text[at:], name)
		if i < 0 {
			return false
		}
		begin, end := at+i, at+i+len(name)
		before := begin > 0 && (part(text[begin-1]) || a.Is4() && text[begin-1] == '.')
		after := end < len(text) && (part(text[end]) || a.Is4() && text[end] == '.' && end+1 < len(text) && part(text[end+1]))
		if !before && !after {
			return true
		}
		at = end
	}
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// nonlocalBind tells whether this host lets programs bind addresses of a family that it has not (ip(7)).
func nonlocalBind(a netip.Addr) bool {
	return strings.TrimSpace(head("/proc/sys/net/"+familyName(a)+"/ip_nonlocal_bind", 16)) == "1"
}
