package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// oldest is the oldest version of PostgreSQL that has all that is used.
const oldest = 15

// programs have to lie in one folder. A wrapper such as Debian's /usr/bin/pg_basebackup chooses a version itself.
var programs = []string{"postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_waldump"}

// tools are PostgreSQL's programs and the user to run them as: nil for this process' own.
type tools struct {
	bin string
	as  *syscall.Credential
}

// findTools looks in the folder, or for "" in PATH and the usual places, where the newest version wins.
func findTools(bin string) (tools, error) {
	var t tools
	if os.Geteuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup(superuser)
		if err != nil {
			return t, fmt.Errorf("PostgreSQL does not run as root, and there is no user %s: make one, or start this as another user", superuser)
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return t, err
		}
		t.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	places := []string{bin}
	if bin == "" {
		places = usualPlaces()
	}
	for _, dir := range places {
		missing := slices.IndexFunc(programs, func(p string) bool { _, err := exec.LookPath(filepath.Join(dir, p)); return err != nil })
		if missing >= 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		cancel()
		if err == nil && lastNumber(string(out), 0) >= oldest {
			t.bin = dir
			return t, nil
		}
	}
	where := cmp.Or(bin, "this machine")
	return t, fmt.Errorf("PostgreSQL %d or newer with all its programs (%s) is not in %s: apt-get install postgresql, or name its folder", oldest, strings.Join(programs, ", "), where)
}

func usualPlaces() (places []string) {
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		places = append(places, filepath.Dir(path))
	}
	for _, glob := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", // Debian, Red Hat
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	} {
		found, _ := filepath.Glob(glob) // fails on a bad pattern only
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(lastNumber(b, -1), lastNumber(a, -1)) })
		places = append(places, found...)
	}
	return places
}

var digits = regexp.MustCompile(`\d+`)

// lastNumber is the number with that index in the text, -1 being the last.
func lastNumber(text string, index int) int {
	all := digits.FindAllString(text, -1)
	if index < 0 {
		index += len(all)
	}
	if index < 0 || index >= len(all) {
		return 0
	}
	n, _ := strconv.Atoi(all[index])
	return n
}

// command is one of the programs, out of reach of this process' PG* variables.
func (t tools) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(t.bin, program), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + t.bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: t.as}
	return cmd
}

// unsynced is the option that spares a program its fsyncs, where the server has none either.
func (a *Agent) unsynced(args []string) []string {
	if a.cfg.Settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	return args
}

// run runs a program to its end and returns what it printed; line gets each line of stderr as it comes (nil: nobody). If ctx
// ends first, or this process dies, it is killed.
func (t tools) run(ctx context.Context, cmd *exec.Cmd, line func(string)) (string, error) {
	var out bytes.Buffer
	lines := &lineWriter{line: line}
	cmd.Stdout, cmd.Stderr = &out, lines
	p, err := spawn(cmd, syscall.SIGKILL, nil)
	if err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		_ = syscall.Kill(-p.pid, syscall.SIGKILL) // the group: pg_basebackup has a child
		<-p.exited
		return "", fmt.Errorf("%s: %w", filepath.Base(cmd.Path), context.Cause(ctx))
	}
	if p.err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), p.err, strings.Join(lines.last, "; "))
	}
	return out.String(), nil
}

// lineWriter hands lines on, ended by \n or by the \r of a progress report, and remembers the last ones that are no progress.
type lineWriter struct {
	line func(string)
	part []byte
	last []string
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.part = append(w.part, p...)
	for {
		i := bytes.IndexAny(w.part, "\r\n")
		if i < 0 && len(w.part) < 64<<10 {
			return len(p), nil
		}
		if i < 0 {
			i = len(w.part) - 1
		}
		text := strings.TrimSpace(string(w.part[:i]))
		w.part = bytes.Clone(w.part[i+1:])
		if text == "" {
			continue
		}
		if w.line != nil {
			w.line(text)
		}
		if !progressLine.MatchString(text) {
			w.last = append(w.last, text)
			w.last = w.last[max(0, len(w.last)-6):]
		}
	}
}

// progressLine is how pg_basebackup and pg_rewind tell how far they are: "123/456 kB (26%) …".
var progressLine = regexp.MustCompile(`^\s*(\d+)/(\d+) kB \(`)

// own gives a file or folder to the user whom the server runs as.
func (t tools) own(path string) error {
	if t.as == nil {
		return nil
	}
	return os.Chown(path, int(t.as.Uid), int(t.as.Gid))
}

// folder makes a folder that only that user may enter, or checks that one is.
func (t tools) folder(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	uid := uint32(os.Geteuid())
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || ok && st.Uid != uid && (t.as == nil || st.Uid != t.as.Uid) {
		return fmt.Errorf("%s is not a folder of this user's", path)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return err
	}
	return t.own(path)
}

// reaches returns an error if the user may not enter the folder or one above it.
func (t tools) reaches(dir string) error {
	if t.as == nil {
		return nil
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		bit := os.FileMode(0o001)
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == t.as.Uid {
			bit = 0o100
		}
		if info.Mode().Perm()&bit == 0 {
			return fmt.Errorf("the user %s, whom PostgreSQL runs as when this is started by root, may not enter %s: choose a folder elsewhere, or chmod o+x it", superuser, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
