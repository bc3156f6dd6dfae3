package internal

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// cloudConfig is what of cloud-init's format the templates use; another key is an error.
type cloudConfig struct {
	PackageUpdate bool       `yaml:"package_update"`
	Packages      []string   `yaml:"packages"`
	BootCmd       []string   `yaml:"bootcmd"`
	RunCmd        [][]string `yaml:"runcmd"`
	WriteFiles    []struct {
		Path, Permissions, Content string
	} `yaml:"write_files"`
}

// render has Terraform fill in a template of modules/region.
func (tf *terraform) render(t *testing.T, template string, values map[string]any) string {
	t.Helper()
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := filepath.Abs(filepath.Join(tf.home, "modules/region/templates", template))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "values.json"), string(text))
	cmd := exec.CommandContext(t.Context(), "terraform", "console")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TF_CLI_CONFIG_FILE="+tf.config)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("base64encode(templatefile(%q, jsondecode(file(\"values.json\"))))\n", path))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("terraform console: %v\n%s", err, out)
	}
	var decoded []byte
	if err := json.Unmarshal(out, &decoded); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(decoded)
}

// What cloud-init gets can be read, its scripts are well-formed, and it installs and starts just what the units in deploy/systemd need.
func TestMachines(t *testing.T) {
	tf := start(t)
	install := tf.render(t, "install.sh.tftpl", map[string]any{"aws_region": "us-east-1", "package_url": "https://example.org/shortline.deb",
		"package_sha256": strings.Repeat("0", 64), "secret_arn": "arn:aws:secretsmanager:us-east-1:1:secret:x"})
	env := map[string]string{"SHORTLINE_REGION": "us-east", "SHORTLINE_DB_SETTING": "archive_command=pgbackrest --stanza=shortline archive-push %p,ssl=on"}
	for _, m := range []struct {
		template, unit, envFile, secrets string
		values                           map[string]any
		packages, wants                  string
	}{
		{"node.yaml.tftpl", "shortline", "/etc/shortline/shortline.env", "/etc/shortline/secrets.env", map[string]any{"database": "10.1.16.10:5432"},
			"awscli chrony curl jq", "SHORTLINE_POSTGRES=postgres://shortline_writer:"},
		{"node.yaml.tftpl", "shortline", "/etc/shortline/shortline.env", "/etc/shortline/secrets.env", map[string]any{"database": nil},
			"awscli chrony curl jq", "SHORTLINE_CLUSTER_KEY"},
		{"db.yaml.tftpl", "shortline-db", "/etc/shortline/db.env", "/etc/shortline/db-secrets.env",
			map[string]any{"aws_region": "us-east-1", "volume": "vol0abc", "bucket": "log", "backup_days": 14},
			"awscli chrony curl jq pgbackrest postgresql-15", `"${role}_password"`},
	} {
		m.values["install"], m.values["env"] = install, env
		text := tf.render(t, m.template, m.values)
		if !strings.HasPrefix(text, "#cloud-config\n") || len(text) > 16<<10 {
			t.Errorf("%s: %d bytes that cloud-init does not take for its own", m.template, len(text))
		}
		dec := yaml.NewDecoder(strings.NewReader(text))
		dec.KnownFields(true)
		var c cloudConfig
		if err := dec.Decode(&c); err != nil {
			t.Fatalf("%s: %v\n%s", m.template, err, text)
		}
		if got := strings.Join(c.Packages, " "); got != m.packages {
			t.Errorf("%s installs %s, want %s", m.template, got, m.packages)
		}
		files := map[string]string{}
		for _, f := range c.WriteFiles {
			files[f.Path] = f.Content
		}
		if want := "SHORTLINE_DB_SETTING=\"archive_command=pgbackrest --stanza=shortline archive-push %p,ssl=on\"\nSHORTLINE_REGION=\"us-east\"\n"; files[m.envFile] != want {
			t.Errorf("%s is %q", m.envFile, files[m.envFile])
		}
		script := files["/usr/local/sbin/shortline-install"]
		check := exec.CommandContext(t.Context(), "sh", "-n")
		check.Stdin = strings.NewReader(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s\n%s", m.template, err, out, script)
		}
		for _, want := range []string{"sha256sum -c -", "systemctl enable --now " + m.unit + ".service", m.secrets, m.wants} {
			if !strings.Contains(script, want) {
				t.Errorf("%s: no %q in\n%s", m.template, want, script)
			}
		}
		if len(c.RunCmd) != 1 || c.RunCmd[0][0] != "/usr/local/sbin/shortline-install" {
			t.Errorf("%s runs %v", m.template, c.RunCmd)
		}
		unit, err := os.ReadFile(filepath.Join(root, "..", "systemd", m.unit+".service"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{m.envFile, m.secrets} {
			if !regexp.MustCompile(`(?m)^EnvironmentFile=-?` + file + `$`).Match(unit) {
				t.Errorf("%s.service does not read %s", m.unit, file)
			}
		}
	}
}
