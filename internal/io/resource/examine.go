package resource

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"baton/internal/io/bounded"
)

// unfit is why a file can't be executed on this host, and what to do.
type unfit struct{ what, hint string }

func (u *unfit) Error() string { return u.what }

// told is both in one line.
func (u *unfit) told() string {
	if u.hint == "" {
		return u.what
	}
	return u.what + "; " + u.hint
}

// explained is an error of the kernel's in other words.
type explained struct {
	text  string
	cause error
}

func (e explained) Error() string { return e.text }
func (e explained) Unwrap() error { return e.cause }

// headSize is how much of a file execve(2) looks at (BINPRM_BUF_SIZE), in bytes.
const headSize = 256

// install is what to do about a program that is not here.
const install = "install it on every node of the group, or correct the file"

// examine looks for what keeps a file from being executed, whoever does; path is where scripts' interpreters are looked
// for that are named by env(1). nil: nothing is known against it.
func examine(file, path string) *unfit {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return &unfit{fmt.Sprintf("the program: %v", err), install}
	case info.IsDir():
		return &unfit{fmt.Sprintf("the program: %s is a directory", file), "name the program in it"}
	case info.Mode()&0o111 == 0:
		return &unfit{fmt.Sprintf("the program: %s is not executable", file), "chmod +x " + file}
	}
	var system unix.Statfs_t
	if unix.Statfs(file, &system) == nil && system.Flags&unix.ST_NOEXEC != 0 {
		return &unfit{fmt.Sprintf("the program: %s is on a file system that is mounted noexec", file), "move it, or mount that with exec"}
	}
	f, err := os.Open(file)
	if err != nil {
		return nil // who may execute it need not be able to read it
	}
	defer f.Close()
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, _ := strings.Cut(string(head[2:]), "\n")
		return examineScript(file, line, path)
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return examineELF(file, f)
	case handlersRegistered():
		return nil
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return &unfit{fmt.Sprintf("the program: %s begins with a byte order mark, and #! must be first", file), "sed -i '1s/^\\xEF\\xBB\\xBF//' " + file}
	case n == 0:
		return &unfit{fmt.Sprintf("the program: %s is empty", file), install}
	}
	return &unfit{fmt.Sprintf("the program: %s is neither a binary nor does it begin with #!", file), "make its first line #!/bin/sh, or name the interpreter in the command"}
}

// examineScript judges the line behind "#!".
func examineScript(file, line, path string) *unfit {
	if strings.HasSuffix(line, "\r") {
		return &unfit{fmt.Sprintf("the program: %s has DOS line ends (CR LF)", file), "sed -i 's/\\r$//' " + file}
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return &unfit{fmt.Sprintf("the program: %s names no interpreter behind #!", file), "make its first line #!/bin/sh"}
	}
	if _, err := os.Stat(words[0]); err != nil {
		return &unfit{fmt.Sprintf("the program: %s wants the interpreter %s, which is not here", file, words[0]), "install it, or correct the script's first line"}
	}
	if filepath.Base(words[0]) == "env" && len(words) == 2 && !strings.HasPrefix(words[1], "-") && !strings.ContainsAny(words[1], "=/") {
		for _, dir := range filepath.SplitList(path) {
			if info, err := os.Stat(filepath.Join(dir, words[1])); err == nil && info.Mode()&0o111 != 0 {
				return nil
			}
		}
		return &unfit{fmt.Sprintf("the program: %s wants %s, which is not in %s", file, words[1], path), "install it, or set PATH in environment"}
	}
	return nil
}

// machines are those that a kernel runs programs of, by Go's name of its own; an architecture that is missing is not judged.
var machines = map[string][]elf.Machine{
	"amd64":   {elf.EM_X86_64, elf.EM_386},
	"386":     {elf.EM_386},
	"arm64":   {elf.EM_AARCH64, elf.EM_ARM},
	"arm":     {elf.EM_ARM},
	"riscv64": {elf.EM_RISCV},
	"ppc64le": {elf.EM_PPC64},
	"s390x":   {elf.EM_S390},
}

// examineELF judges whom a binary is built for, and its loader.
func examineELF(file string, f *os.File) *unfit {
	e, err := elf.NewFile(f)
	if err != nil {
		return &unfit{fmt.Sprintf("the program: %s is a damaged binary: %v", file, err), install}
	}
	defer e.Close()
	known := machines[runtime.GOARCH]
	fits := known == nil || slices.Contains(known, e.Machine)
	if !fits && !handlersRegistered() {
		return &unfit{fmt.Sprintf("the program: %s is built for %s, and this machine is %s", file, e.Machine, runtime.GOARCH), "install the one for this machine"}
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > unix.PathMax {
			continue
		}
		name, err := bounded.ReadAll(p.Open(), unix.PathMax)
		loader := strings.TrimRight(string(name), "\x00")
		if err != nil || !fits {
			continue
		}
		if _, err := os.Stat(loader); err != nil {
			return &unfit{fmt.Sprintf("the program: %s wants the loader %s, which is not here: it is built for another system", file, loader), "install the one for this system"}
		}
	}
	return nil
}

// handlersRegistered tells whether the kernel hands other formats on (binfmt_misc), such as another machine's: then
// nothing is known against them.
func handlersRegistered() bool {
	entries, err := os.ReadDir("/proc/sys/fs/binfmt_misc")
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.Name() != "register" && e.Name() != "status" {
			return true
		}
	}
	return false
}

// closedTo finds what on the way to a file, the file included, is closed to a user by its mode; "": nothing is.
func closedTo(owner account, file string) string {
	var way []string
	for at := file; at != "/" && at != "."; at = filepath.Dir(at) {
		way = append(way, at)
	}
	for i := len(way) - 1; i >= 0; i-- {
		var s unix.Stat_t
		if unix.Stat(way[i], &s) != nil {
			return ""
		}
		need := uint32(0o001)
		switch {
		case s.Uid == owner.uid:
			need = 0o100
		case s.Gid == owner.gid, slices.Contains(owner.groups, s.Gid):
			need = 0o010
		}
		if owner.uid != 0 && s.Mode&need == 0 {
			return way[i]
		}
	}
	return ""
}

// explained says why a program did not start, where the kernel's word alone does not.
func (l launch) explained(err error) error {
	if !missing(err) {
		return err
	}
	file, bad := l.lookup()
	if bad != nil {
		return err // which says it already
	}
	file = l.absolute(file)
	if u := examine(file, l.path()); u != nil {
		return lacking(explained{u.told(), err})
	}
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	for _, at := range []string{l.dir, file} {
		if closed := closedTo(l.owner, at); closed != "" {
			return lacking(explained{fmt.Sprintf("%s is closed to user %s; chmod o+x it, or name another user or place", closed, l.owner.name), err})
		}
	}
	return err
}

// absolute is where a file that lookup has found lies.
func (l launch) absolute(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(l.dir, file)
}

// path is where the program itself looks for programs.
func (l launch) path() string {
	for _, v := range l.env {
		if rest, ok := strings.CutPrefix(v, "PATH="); ok {
			return rest
		}
	}
	return ""
}
