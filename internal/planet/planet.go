// Package planet starts real PostgreSQL and Redis servers on this machine, proxies that put an ocean between them, and from
// these whole regions with their nodes (Start), for tests and for `shortline planet`.
//
// It promises that whatever it started ends with the process that started it, also when that process is killed, and that
// the folders it made go too unless they are to be kept. Servers listen on loopback only (with Options.Separate each region has a
// network namespace of its own), on ports that they keep over a restart. Faults are real: Kill, Pause, Cut and Drop do to a server,
// a connection or a network what a crash, a frozen machine and a cut cable do. It knows how to run servers and which flags a node wants, not what Shortline keeps in them: grants come from
// the caller, and everything else goes through the nodes' own API.
package planet

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Oldest versions that Shortline runs on.
const (
	minPostgres = 15
	minRedis    = 7
)

const defaultTimeout = time.Minute

// Available returns nil if this machine can run what the package starts; else it says in one line what is missing and how
// to get it.
func Available() error {
	_, postgres := findPostgres()
	_, redis := findRedis()
	_, account := serverAccount()
	var missing error
	for _, err := range []error{postgres, redis, account} {
		switch {
		case missing == nil:
			missing = err
		case err != nil:
			missing = fmt.Errorf("%w; %w", missing, err)
		}
	}
	return missing
}

// TB is what Need asks of a test; *testing.T and *testing.B have it.
type TB interface {
	Helper()
	Name() string
	Skip(args ...any)
	Fatal(args ...any)
}

// Need skips the test, with a line on stderr, where a server is missing. With SHORTLINE_REQUIRE_SERVERS=1, as in CI, it
// fails the test instead.
func Need(t TB) {
	t.Helper()
	need(t, Available(), os.Getenv("SHORTLINE_REQUIRE_SERVERS") == "1", os.Stderr)
}

func need(t TB, missing error, required bool, loud io.Writer) {
	t.Helper()
	switch {
	case missing == nil:
	case required:
		t.Fatal(missing)
	default:
		fmt.Fprintf(loud, "SKIPPED %s: %s\n", t.Name(), missing)
		t.Skip(missing)
	}
}

// postgresTools have to lie in one folder. A wrapper such as Debian's /usr/bin/pg_basebackup chooses a version itself.
var postgresTools = []string{"postgres", "initdb", "pg_basebackup"}

// findPostgres returns the folder of PostgreSQL's programs: that in PATH if it is new enough, else the newest of the usual
// places.
func findPostgres() (string, error) {
	var places []string
	if path, err := exec.LookPath("postgres"); err == nil {
		places = append(places, realFolder(path))
	}
	for _, glob := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", // Debian, Red Hat
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
		"/opt/homebrew/opt/postgresql/bin", "/usr/local/opt/postgresql/bin",
	} {
		found, _ := filepath.Glob(glob) // fails on a bad pattern only
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(lastNumber(b), lastNumber(a)) })
		places = append(places, found...)
	}
	seen := ""
	for _, dir := range places {
		if slices.ContainsFunc(postgresTools, func(tool string) bool { _, err := exec.LookPath(filepath.Join(dir, tool)); return err != nil }) {
			continue
		}
		version, err := versionOf(filepath.Join(dir, "postgres"))
		if err == nil && version >= minPostgres {
			return dir, nil
		}
		seen = cmp.Or(seen, fmt.Sprintf(" (%s has version %d)", dir, version))
	}
	return "", fmt.Errorf("PostgreSQL %d or newer is not installed%s: apt-get install postgresql, or brew install postgresql@17", minPostgres, seen)
}

func findRedis() (string, error) {
	const remedy = "apt-get install redis-server, or brew install redis"
	path, err := exec.LookPath("redis-server")
	if err != nil {
		for _, p := range []string{"/opt/homebrew/bin/redis-server", "/usr/local/bin/redis-server", "/home/linuxbrew/.linuxbrew/bin/redis-server"} {
			if found, err := exec.LookPath(p); err == nil {
				path = found
				break
			}
		}
	}
	if path == "" {
		return "", fmt.Errorf("Redis %d or newer is not installed: %s", minRedis, remedy)
	}
	if version, err := versionOf(path); err != nil || version < minRedis {
		return "", fmt.Errorf("Redis %d or newer is not installed (%s has version %d): %s", minRedis, path, version, remedy)
	}
	return path, nil
}

var digits = regexp.MustCompile(`\d+`)

// versionOf is the major version that a program tells of itself.
func versionOf(program string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("%s --version: %w", program, err)
	}
	return strconv.Atoi(digits.FindString(string(out)))
}

func lastNumber(path string) int {
	all := digits.FindAllString(path, -1)
	if len(all) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(all[len(all)-1])
	return n
}

func realFolder(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return filepath.Dir(path)
}

// account is the user whom a server runs as that refuses to run as root.
type account struct {
	name     string
	uid, gid uint32
}

// serverAccount is nil for an ordinary user: the server then runs as that user.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	return lookupAccount("postgres")
}

func lookupAccount(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root, and there is no user %s to run it as: "+
			"make one (useradd --system %s), or run as an ordinary user: %w", name, name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
}

// attr makes a command run as the account.
func (a *account) attr() *syscall.SysProcAttr {
	if a == nil {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
}

// own gives a file or folder to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// reaches returns an error if the account may not enter the folder or one above it.
func (a *account) reaches(dir string) error {
	if a == nil {
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
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			switch {
			case st.Uid == a.uid:
				bit = 0o100
			case st.Gid == a.gid:
				bit = 0o010
			}
		}
		if info.Mode().Perm()&bit == 0 {
			return fmt.Errorf("the user %s, whom PostgreSQL runs as when started by root, may not enter %s: "+
				"choose a folder elsewhere, or chmod o+x it", a.name, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// makeFolder makes the folder for a server, or a temporary one for dir "". One that exists must be empty.
func makeFolder(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "shortline-planet-")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("the folder %s is not empty: name one that is, or that does not exist yet", dir)
	}
	return dir, nil
}

// await polls until ready returns nil, ctx ends, or gone is closed; then the error has the last reason.
func await(ctx context.Context, gone <-chan struct{}, ready func(ctx context.Context) error) error {
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-gone:
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
