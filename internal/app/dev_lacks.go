package app

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"baton/internal/core/cluster"
)

// devLack is what this machine lacks for a resource of a file of the user's.
type devLack struct {
	group    cluster.GroupID
	resource cluster.ResourceID
	text     string
	hint     string
	fatal    bool // it can't start without
}

// devLacks looks, before anything is made, for what the file's programs need: the hosts of the lab have this machine's
// users, programs and files, and networks of their own.
func devLacks(s *cluster.Spec) (lacks []devLack) {
	for _, g := range s.Groups {
		for _, r := range g.Resources {
			if r.Front {
				continue // the lab has its addresses
			}
			if hint, err := checkResource(r); err != nil {
				lacks = append(lacks, devLack{g.ID, r.ID, err.Error(), hint, true})
				continue
			}
			for _, path := range pathsOf(r) {
				if _, err := os.Stat(path); os.IsNotExist(err) {
					lacks = append(lacks, devLack{g.ID, r.ID, "its command names " + path + ", which is not here", "mkdir -p " + path + ", if it is to be a directory", false})
				}
			}
		}
	}
	return lacks
}

// pathsOf lists the absolute paths that a resource's command names behind the program, also as --option=PATH.
func pathsOf(r cluster.ResourceSpec) (paths []string) {
	command, _ := r.Fields["command"].([]string)
	for i, word := range command {
		if _, value, ok := strings.Cut(word, "="); ok && strings.HasPrefix(word, "-") {
			word = value
		}
		if i > 0 && filepath.IsAbs(word) && !strings.ContainsAny(word, " ;|&$*?'\"") && !slices.Contains(paths, word) {
			paths = append(paths, word)
		}
	}
	return paths
}

// startable lists the groups that lack nothing without which they can't start.
func startable(s *cluster.Spec, lacks []devLack) (groups []cluster.GroupID) {
	for _, g := range s.Groups {
		if !slices.ContainsFunc(lacks, func(l devLack) bool { return l.fatal && l.group == g.ID }) {
			groups = append(groups, g.ID)
		}
	}
	return groups
}

// tellDevLacks prints what is lacking, as one list, each with what to do.
func (k *console) tellDevLacks(file string, lacks []devLack) {
	if len(lacks) == 0 {
		return
	}
	fmt.Fprintf(k.err, "What %s needs, and this machine lacks:\n", file)
	for _, l := range lacks {
		fmt.Fprintf(k.err, "  group %s, %s: %s\n", l.group, l.resource, l.text)
		if l.hint != "" {
			fmt.Fprintf(k.err, "    hint: %s\n", l.hint)
		}
	}
}
