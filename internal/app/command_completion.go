package app

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	batonv1 "baton/api/v1"
)

// completionCmd is `baton completion`.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints a script that makes a shell ask `baton complete`, so that commands, flags, and the names of
// groups and nodes complete.
func (c *completionCmd) Run(k *console) error {
	_, err := fmt.Fprint(k.out, completionScripts[c.Shell])
	return err
}

// filesWord stands where file names are to be completed.
const filesWord = ":files"

// completionScripts ask with the words up to the cursor; each line of the answer is a word, a tab, what it is.
var completionScripts = map[string]string{
	"bash": `# bash completion of baton: source <(baton completion bash)
_baton() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        if [ "$line" = "` + filesWord + `" ]; then compopt -o default; return; fi
        COMPREPLY+=("${line%%$'\t'*}")
    done < <("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _baton baton
`,
	"zsh": `#compdef baton
# zsh completion of baton: source <(baton completion zsh)
_baton() {
    local line
    local -a found
    for line in "${(@f)$("$words[1]" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ "$line" == "` + filesWord + `" ]]; then _files; return; fi
        [[ -n "$line" ]] && found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe baton found
}
compdef _baton baton
`,
	"fish": `# fish completion of baton: baton completion fish | source
function __baton_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (command $words[1] complete -- $words[2..-1] 2>/dev/null)
        if test "$line" = "` + filesWord + `"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c baton -f -a '(__baton_complete)'
`,
}

// completeCmd is what shells ask: baton complete -- WORDS.
type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

// completionPatience is how long an agent may take to name groups and nodes.
const completionPatience = 500 * time.Millisecond

// candidate is a word that may stand where the cursor is.
type candidate struct{ word, about string }

// Run prints the candidates.
func (c *completeCmd) Run(k *console, app *kong.Kong) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, x := range (&completer{k: k, root: app.Model.Node}).complete(words) {
		if x.word == filesWord {
			fmt.Fprintln(k.out, filesWord)
			continue
		}
		about, _, _ := strings.Cut(x.about, "\n")
		fmt.Fprintf(k.out, "%s\t%s\n", x.word, about)
	}
	return nil
}

// completer walks the command line by its model.
type completer struct {
	k    *console
	root *kong.Node
}

// complete returns what may stand in place of the last word.
func (c *completer) complete(words []string) (out []candidate) {
	// Shells that break words at = hand it over as a word of its own.
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "=" })
	if len(words) == 0 {
		words = []string{""}
	}
	at, nth := c.root, 0
	var waiting *kong.Flag // its value is the next word
	last := words[len(words)-1]
	for _, w := range words[:len(words)-1] {
		switch {
		case waiting != nil:
			c.note(waiting, w)
			waiting = nil
		case strings.HasPrefix(w, "-"):
			name, value, has := strings.Cut(w, "=")
			f := findFlag(at, name)
			if f != nil && has {
				c.note(f, value)
			}
			if f != nil && !has && !f.IsBool() {
				waiting = f
			}
		default:
			if child := findCommand(at, w); child != nil {
				at, nth = child, 0
			} else {
				nth++
			}
		}
	}
	switch name, value, has := strings.Cut(last, "="); {
	case waiting != nil:
		return c.values(waiting.Value, waiting.PlaceHolder, last, "")
	case strings.HasPrefix(last, "-") && has:
		if f := findFlag(at, name); f != nil {
			return c.values(f.Value, f.PlaceHolder, value, name+"=")
		}
		return nil
	case strings.HasPrefix(last, "-"):
		return flagCandidates(at, last)
	}
	for _, child := range at.Children {
		if !child.Hidden && strings.HasPrefix(child.Name, last) {
			out = append(out, candidate{child.Name, child.Help})
		}
	}
	if len(at.Positional) > 0 {
		p := at.Positional[min(nth, len(at.Positional)-1)]
		if nth < len(at.Positional) || p.IsCumulative() {
			out = append(out, c.values(p, "", last, "")...)
		}
	}
	return out
}

// note takes the value of a flag that completion itself heeds.
func (c *completer) note(f *kong.Flag, value string) {
	if f.Name == "socket" {
		c.k.socket = value
	}
}

func findCommand(at *kong.Node, name string) *kong.Node {
	for _, child := range at.Children {
		if child.Name == name || slices.Contains(child.Aliases, name) {
			return child
		}
	}
	return nil
}

// allFlags are those of a command and of what stands above it.
func allFlags(at *kong.Node) (out []*kong.Flag) {
	for _, group := range at.AllFlags(false) {
		out = append(out, group...)
	}
	return out
}

func findFlag(at *kong.Node, name string) *kong.Flag {
	for _, f := range allFlags(at) {
		if name == "--"+f.Name || f.Short != 0 && name == "-"+string(f.Short) {
			return f
		}
	}
	return nil
}

func flagCandidates(at *kong.Node, prefix string) (out []candidate) {
	for _, f := range allFlags(at) {
		if name := "--" + f.Name; !f.Hidden && strings.HasPrefix(name, prefix) {
			out = append(out, candidate{name, f.Help})
		}
	}
	slices.SortFunc(out, func(a, b candidate) int { return strings.Compare(a.word, b.word) })
	return slices.Compact(out)
}

// values returns what an argument or flag may be, by its choices, or by what its name says that it is.
func (c *completer) values(v *kong.Value, placeholder, prefix, before string) (out []candidate) {
	var all []candidate
	what := strings.ToUpper(v.Name + " " + placeholder)
	switch {
	case v.Enum != "":
		for _, word := range v.EnumSlice() {
			all = append(all, candidate{word, ""})
		}
	case strings.Contains(what, "FILE"), strings.Contains(what, "DIR"), strings.Contains(what, "PATH"):
		return []candidate{{word: filesWord}}
	case strings.Contains(what, "GROUP"), strings.Contains(what, "NODE"), strings.EqualFold(v.Name, "to"):
		if v.Target.Kind() == reflect.String || v.IsCumulative() {
			all = c.names(what)
		}
	}
	for _, x := range all {
		if strings.HasPrefix(x.word, prefix) {
			out = append(out, candidate{before + x.word, x.about})
		}
	}
	return out
}

// names asks the agent for groups, their resources where these are meant too, or nodes.
func (c *completer) names(what string) (out []candidate) {
	ctx, cancel := context.WithTimeout(c.k.ctx, completionPatience)
	defer cancel()
	agent := c.k.agent()
	defer agent.Close()
	s, err := agent.Status(ctx, &batonv1.StatusRequest{})
	if err != nil {
		return nil // a shell has no place for errors
	}
	if !strings.Contains(what, "GROUP") {
		for _, n := range s.Nodes {
			out = append(out, candidate{n.Name, n.Role})
		}
		return out
	}
	for _, g := range s.Groups {
		about := "on " + nobody(g.Owner)
		out = append(out, candidate{g.Name, about})
		if strings.Contains(what, "RESOURCE") {
			for _, r := range g.Resources {
				out = append(out, candidate{g.Name + "/" + r.Name, r.Kind})
			}
		}
	}
	return out
}
