package main

import (
	"bufio"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication/postgres"
)

const deployDir = "../../deploy"

// Every variable that something in deploy sets is a flag of the program: a setting that has another name does nothing.
func TestDeploySetsFlagsThatExist(t *testing.T) {
	known := map[string]bool{"SHORTLINE_CONFIG": true}
	eachFlag(newRootCommand(&app{}), func(f *pflag.Flag) { known[envName(f.Name)] = true })
	pattern := regexp.MustCompile(`\bSHORTLINE_[A-Z0-9_]+`)
	seen := map[string]bool{}
	err := filepath.WalkDir(deployDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range pattern.FindAllString(string(text), -1) {
			if seen[name] = true; !known[name] {
				t.Errorf("%s sets %s, which is no flag", path, name)
			}
		}
		return err
	})
	if err != nil || len(seen) < 20 {
		t.Errorf("%v; only %d variables are set in %s", err, len(seen), deployDir)
	}
}

// unit is a systemd unit as far as it says what runs.
type unit struct {
	t       *testing.T
	lines   map[string][]string
	root    string // stands for / of the paths in it
	started *process
}

// readUnit reads deploy/systemd/NAME.service.
func readUnit(t *testing.T, name, root string) *unit {
	t.Helper()
	u := &unit{t: t, lines: map[string][]string{}, root: root}
	f, err := os.Open(filepath.Join(deployDir, "systemd", name+".service"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), "="); ok && !strings.HasPrefix(name, "#") {
			u.lines[name] = append(u.lines[name], value)
		}
	}
	for _, dir := range u.lines["StateDirectory"] {
		if err := os.MkdirAll(filepath.Join(root, "var/lib", dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

// set writes a file of settings where the unit reads it; the unit must read it.
func (u *unit) set(file string, settings ...string) {
	u.t.Helper()
	found := false
	for _, f := range u.lines["EnvironmentFile"] {
		found = found || strings.TrimPrefix(f, "-") == file
	}
	if !found {
		u.t.Fatalf("the unit does not read %s but %v", file, u.lines["EnvironmentFile"])
	}
	path := filepath.Join(u.root, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// command is what systemd would execute: ExecStart with nothing in its environment but what the unit sets.
func (u *unit) command() *exec.Cmd {
	u.t.Helper()
	program, args, _ := strings.Cut(u.lines["ExecStart"][0], " ")
	if len(u.lines["ExecStart"]) != 1 || program != "/usr/bin/shortline" {
		u.t.Fatalf("ExecStart is %q", u.lines["ExecStart"])
	}
	cmd := command(u.t, strings.Fields(args)...)
	cmd.Env = []string{"SHORTLINE_TEST_MAIN=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG=C.UTF-8"}
	settings := u.lines["Environment"]
	for _, file := range u.lines["EnvironmentFile"] {
		text, err := os.ReadFile(filepath.Join(u.root, strings.TrimPrefix(file, "-")))
		if os.IsNotExist(err) && strings.HasPrefix(file, "-") {
			continue
		} else if err != nil {
			u.t.Fatal(err)
		}
		settings = append(settings, strings.Split(strings.TrimSpace(string(text)), "\n")...)
	}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		value = strings.Trim(value, `"`)
		if strings.HasPrefix(value, "/var/lib/") || strings.HasPrefix(value, "/etc/shortline/") {
			value = filepath.Join(u.root, value)
		}
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// start runs the unit until the program says that it is ready, and returns what it said.
func (u *unit) start() (ready string) {
	u.t.Helper()
	p := &process{t: u.t, cmd: u.command(), stderr: new(safeBuffer), exited: make(chan error, 1)}
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { p.exited <- p.cmd.Wait() }()
	u.t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	ready, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ok {
		u.t.Fatalf("first line %q, %v; stderr:\n%s", line, err, p.stderr)
	}
	u.started = p
	return ready
}

// stop ends it as systemd does: SIGTERM to the main process.
func (u *unit) stop() {
	u.t.Helper()
	if err := u.started.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		u.t.Fatal(err)
	}
	if err := <-u.started.exited; err != nil {
		u.t.Errorf("stopped with %v; stderr:\n%s", err, u.started.stderr)
	}
}

// The unit of the package starts a node with nothing else, and it is there again with its data after a restart.
func TestUnitStartsANode(t *testing.T) {
	u := readUnit(t, "shortline", t.TempDir())
	u.set("/etc/shortline/shortline.env", `SHORTLINE_LISTEN="127.0.0.1:0"`, "SHORTLINE_ADMIN_LISTEN=127.0.0.1:0", "SHORTLINE_REGION=here", "SHORTLINE_LOG_FORMAT=json")
	for range 2 {
		api := u.start()
		p := &process{t: t, api: api}
		if status, body := p.do("GET", "/v1/regions", "", ""); status != 200 || !strings.Contains(string(body), `"here"`) {
			t.Errorf("%d %s", status, body)
		}
		u.stop()
	}
	if _, err := os.Stat(filepath.Join(u.root, "var/lib/shortline", adminKeyFile)); err != nil {
		t.Error(err)
	}
}

// Both units together are one region, set up as cloud-init does it in deploy/terraform: the agent makes a database with roles and
// passwords, and a node writes to it.
func TestUnitsStartADatabaseAndANode(t *testing.T) {
	planet.Need(t)
	root, err := os.MkdirTemp("", "shortline-units")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil { // as root, PostgreSQL runs as somebody else
		t.Fatal(err)
	}
	addr := freeAddr(t)
	db := readUnit(t, "shortline-db", root)
	for _, dir := range []string{"var", "var/lib", "var/lib/shortline-db"} {
		if err := os.Chmod(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	db.set("/etc/shortline/db.env", "SHORTLINE_REGION=here", "SHORTLINE_POSTGRES_LISTEN="+addr, "SHORTLINE_AGENT_LISTEN=127.0.0.1:0", "SHORTLINE_DB_INIT=true", "SHORTLINE_DB_ALONE=true",
		"SHORTLINE_DB_INIT_SQL=/etc/shortline/roles.sql", `SHORTLINE_DB_SETTING="fsync=off,log_line_prefix=unit %p "`)
	db.set("/etc/shortline/db-secrets.env", "SHORTLINE_CLUSTER_KEY=0123456789abcdef0123456789abcdef", "SHORTLINE_DB_PASSWORD=0123456789abcdef")
	roles := postgres.Grants()
	for _, role := range []string{"owner", "writer", "reader"} {
		roles += "ALTER ROLE shortline_" + role + " PASSWORD 'secret" + role + "';\n"
	}
	if err := os.WriteFile(filepath.Join(root, "etc/shortline/roles.sql"), []byte(roles), 0o600); err != nil {
		t.Fatal(err)
	}
	db.start()
	node := readUnit(t, "shortline", root)
	node.set("/etc/shortline/shortline.env", "SHORTLINE_LISTEN=127.0.0.1:0", "SHORTLINE_ADMIN_LISTEN=127.0.0.1:0", "SHORTLINE_REGION=here")
	node.set("/etc/shortline/secrets.env", "SHORTLINE_CLUSTER_KEY=0123456789abcdef0123456789abcdef",
		"SHORTLINE_POSTGRES=postgres://shortline_writer:secretwriter@"+addr+"/shortline", "SHORTLINE_POSTGRES_OWNER=postgres://shortline_owner:secretowner@"+addr+"/shortline")
	p := &process{t: t, api: node.start()}
	key, err := os.ReadFile(filepath.Join(root, "var/lib/shortline", adminKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	p.key = strings.TrimSpace(string(key))
	if status, body := p.do("PUT", "/v1/stores/s1", "application/json", `{"id":"s1","name":"One","lat":1,"lng":2}`); status/100 != 2 {
		t.Errorf("%d %s", status, body)
	}
	node.stop()
	db.stop()
}

// What the units may do is bounded.
func TestUnitsAreHardened(t *testing.T) {
	for name, user := range map[string]string{"shortline": "shortline", "shortline-db": "postgres"} {
		u := readUnit(t, name, t.TempDir())
		for setting, want := range map[string]string{"User": user, "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes",
			"Restart": "always", "KillMode": "mixed", "UMask": "0077"} {
			if got := strings.Join(u.lines[setting], " "); got != want {
				t.Errorf("%s: %s is %q, want %q", name, setting, got, want)
			}
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("SKIPPED: systemd-analyze is not installed, so systemd itself has not read the units")
	}
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"shortline", "shortline-db"} {
		text, err := os.ReadFile(filepath.Join(deployDir, "systemd", name+".service"))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name+".service")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "/usr/bin/shortline", "/bin/true")), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, files...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// 100 is everything, 0 nothing; a change that opens the units has to be meant.
	if out, err := exec.Command("systemd-analyze", append([]string{"security", "--offline=true", "--threshold=20"}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// composeService is what of a service in compose.yaml is looked at.
type composeService struct {
	Image       string
	User        string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Ports       []string
	Volumes     []string
	Environment map[string]string
	Hostname    string
}

// The containers' own folders are read-only, they run as nobody in particular, and only this machine reaches them; what their settings
// name is there.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deployDir, "container/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Services map[string]composeService
		Volumes  map[string]any
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	hosts := regexp.MustCompile(`\b((?:us-east|eu-west|ap-southeast)-(?:node|db|redis))[:/]`)
	regions := 0
	for name, s := range c.Services {
		if name == "certificates" {
			continue // it gives files to their owners, and ends
		}
		if !s.ReadOnly || s.User == "" || s.User == "root" || strings.Join(s.CapDrop, "") != "ALL" || strings.Join(s.SecurityOpt, "") != "no-new-privileges:true" || s.Hostname != name {
			t.Errorf("%s is not bounded: %+v", name, s)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to others", name, p)
			}
		}
		for _, v := range s.Volumes {
			if volume, _, _ := strings.Cut(v, ":"); !strings.HasPrefix(v, ".") {
				if _, ok := c.Volumes[volume]; !ok {
					t.Errorf("%s: there is no volume %s", name, volume)
				}
			}
		}
		for key, value := range s.Environment {
			for _, m := range hosts.FindAllStringSubmatch(value, -1) {
				if _, ok := c.Services[m[1]]; !ok {
					t.Errorf("%s: %s names %s, which is no service", name, key, m[1])
				}
			}
		}
		if s.Environment["SHORTLINE_LISTEN"] != "" {
			regions++
		}
	}
	if regions != 3 || len(c.Services) != 10 {
		t.Errorf("%d nodes in %d services", regions, len(c.Services))
	}
}

// Images run the program as somebody without rights, and begin with something that has a version.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deployDir, "container/Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := exec.Command("go", "list", "-m", "-f", "{{.GoVersion}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	users := map[string]string{}
	stage := ""
	for line := range strings.Lines(string(text)) {
		switch f := strings.Fields(line); {
		case len(f) == 4 && f[0] == "FROM":
			stage = f[3]
			if !strings.Contains(f[1], ":") || strings.HasSuffix(f[1], ":latest") {
				t.Errorf("%s begins with %s, whatever that is today", stage, f[1])
			}
			if version, ok := strings.CutPrefix(f[1], "golang:"); ok && !strings.HasPrefix(strings.TrimSpace(string(want)), strings.TrimSuffix(version, "-bookworm")) {
				t.Errorf("%s is not the Go %s of go.mod", f[1], want)
			}
		case len(f) == 2 && f[0] == "USER":
			users[stage] = f[1]
		}
	}
	if users["node"] != "65532:65532" || users["db"] != "postgres" {
		t.Errorf("they run as %v", users)
	}
}

// What the package installs is there, with the paths that the units name.
func TestPackage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deployDir, "debian/nfpm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Contents []struct{ Src, Dst string }
		Scripts  map[string]string
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	installed := map[string]bool{}
	for _, f := range c.Contents {
		installed[f.Dst] = true
		if f.Src != "" && !strings.HasPrefix(f.Src, "dist/") {
			if _, err := os.Stat(filepath.Join("../..", f.Src)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, file := range c.Scripts {
		if out, err := exec.Command("sh", "-n", filepath.Join("../..", file)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
	units, err := filepath.Glob(filepath.Join(deployDir, "systemd/*.service"))
	if err != nil || len(units) < 3 {
		t.Fatalf("%v, %v", units, err)
	}
	for _, file := range units {
		if !installed["/usr/lib/systemd/system/"+filepath.Base(file)] {
			t.Errorf("%s is not in the package", file)
		}
		u := readUnit(t, strings.TrimSuffix(filepath.Base(file), ".service"), t.TempDir())
		if program := strings.Fields(u.lines["ExecStart"][0])[0]; !installed[program] {
			t.Errorf("%s runs %s, which is not in the package", file, program)
		}
	}
}
