package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

// unitName is the unit that `make install` puts here.
const unitName = "baton.service"

// unitFilesRead is how long systemd may take to answer the check: it reads all unit files anew.
const unitFilesRead = 20 * time.Second

// checkUnits asks systemd, where it runs, whether it starts the agent, and whether it starts what baton runs.
func checkUnits(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec) {
	if _, err := os.Stat("/run/systemd/system"); errors.Is(err, fs.ErrNotExist) {
		u.add("unit", pass, "", "systemd does not run here: what starts the agent must do so at boot, and again whenever it ends")
		return
	}
	shown, err := systemctl("show", "--property=LoadState,UnitFileState,RuntimeDirectoryPreserve", unitName)
	if err != nil {
		u.add("unit", warning, "run check as root", "systemd does not answer: %v", err)
		return
	}
	v, hint, text := judgeUnit(properties(shown))
	u.add("unit", v, hint, "%s", text)

	enabled, err := systemctl("list-unit-files", "--type=service", "--state=enabled", "--no-legend", "--plain")
	if err != nil {
		u.add("units", warning, "", "systemd does not say what it starts at boot: %v", err)
		return
	}
	names := []string{"show", "--property=Id,ExecStart"}
	for line := range strings.Lines(enabled) {
		// A template without an instance starts nothing.
		if name, _, _ := strings.Cut(line, " "); name != unitName && !strings.Contains(name, "@.") {
			names = append(names, name)
		}
	}
	if len(names) == 2 {
		return
	}
	services, err := systemctl(names...)
	if err != nil {
		u.add("units", warning, "", "systemd does not say what its services run: %v", err)
		return
	}
	for _, service := range strings.Split(services, "\n\n") {
		checkStarters(u, spec, self, properties(service))
	}
}

// systemctl asks systemd.
func systemctl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), unitFilesRead)
	defer cancel()
	out, err := bounded.Output(exec.CommandContext(ctx, "systemctl", args...), bounded.Answer)
	return string(out), err
}

// properties reads what `systemctl show` prints of one unit. Of a property that stands there more than once,
// all values are kept.
func properties(text string) map[string][]string {
	p := make(map[string][]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			p[name] = append(p[name], value)
		}
	}
	return p
}

// judgeUnit tells what the agent's unit lacks.
func judgeUnit(p map[string][]string) (v verdict, hint, text string) {
	is := func(name, value string) bool { return slices.Contains(p[name], value) }
	switch {
	case is("LoadState", "not-found"):
		return warning, "make install, or write one (docs/how-to.md)", "there is no unit " + unitName + ": nothing starts the agent"
	case !is("UnitFileState", "enabled") && !is("UnitFileState", "enabled-runtime"):
		return warning, "systemctl enable --now baton", unitName + " is not enabled: after a reboot this node takes no part"
	case !is("RuntimeDirectoryPreserve", "yes"):
		return warning, "RuntimeDirectoryPreserve=yes in the unit", unitName + " loses its run directory with each restart: what runs is not adopted"
	}
	return pass, "", unitName + " is enabled"
}

// interpreters run other programs: that two commands begin with one says nothing.
var interpreters = []string{"bash", "dash", "env", "java", "node", "perl", "php", "python", "ruby", "sh"}

// checkStarters warns if a service that systemd starts at boot runs what a group on this node runs.
func checkStarters(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec, service map[string][]string) {
	for _, g := range spec.Groups {
		if g.Prefers(self.ID) < 0 || len(service["Id"]) == 0 {
			continue
		}
		for _, r := range g.Resources {
			command, _ := r.Fields["command"].([]string)
			for _, start := range service["ExecStart"] {
				if sameProgram(command, start) {
					u.add("group "+string(g.ID), warning, "systemctl disable --now "+service["Id"][0],
						"resource %s: systemd starts %s at boot too (%s), and two starters fight", r.ID, command[0], service["Id"][0])
				}
			}
		}
	}
}

// sameProgram tells whether a command starts what a property ExecStart does: { path=… ; argv[]=… ; … }.
func sameProgram(command []string, start string) bool {
	_, rest, _ := strings.Cut(start, "path=")
	path, rest, _ := strings.Cut(rest, " ; ")
	_, rest, _ = strings.Cut(rest, "argv[]=")
	argv, _, _ := strings.Cut(rest, " ; ")
	if len(command) == 0 || path == "" {
		return false
	}
	found, err := exec.LookPath(command[0])
	if err != nil {
		return false
	}
	if resolved(found) != resolved(path) {
		return false
	}
	if slices.Contains(interpreters, strings.TrimRight(filepath.Base(resolved(path)), "0123456789.")) {
		return strings.Join(command[1:], " ") == strings.Join(strings.Fields(argv)[1:], " ")
	}
	return true
}

// resolved follows symbolic links, as far as they lead anywhere.
func resolved(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	return path
}
