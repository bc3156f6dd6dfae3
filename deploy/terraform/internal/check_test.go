// Package internal checks the Terraform modules and examples with Terraform itself, and a provider that has the schemas of the
// AWS provider and nothing else.
package internal

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/deploy/terraform/internal/schema"
)

// root is deploy/terraform.
const root = ".."

// terraform runs Terraform where the provider's mirror is all there is.
type terraform struct {
	config string // CLI configuration
	home   string // a copy of deploy/terraform, for Terraform writes beside what it reads
}

// start builds the provider and lays a mirror with it. It skips where Terraform is missing, loudly, and fails there if CI is set.
func start(t *testing.T) *terraform {
	t.Helper()
	if _, err := exec.LookPath("terraform"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("terraform is missing in CI")
		}
		t.Skip("SKIPPED: terraform is not installed, so the modules in deploy/terraform are not checked: https://developer.hashicorp.com/terraform/install")
	}
	f, err := schema.Read()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	platform := runtime.GOOS + "_" + runtime.GOARCH
	plugin := filepath.Join(dir, "mirror", "registry.terraform.io", "hashicorp", "aws", f.Provider, platform, "terraform-provider-aws_v"+f.Provider+"_x5")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", plugin, "./provider")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the provider: %v\n%s", err, out)
	}
	tf := &terraform{config: filepath.Join(dir, "terraformrc"), home: filepath.Join(dir, "terraform")}
	write(t, tf.config, fmt.Sprintf("disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", filepath.Join(dir, "mirror")))
	for _, folder := range []string{"modules", "examples"} {
		if err := os.CopyFS(filepath.Join(tf.home, folder), os.DirFS(filepath.Join(root, folder))); err != nil {
			t.Fatal(err)
		}
	}
	return tf
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs Terraform in a folder of the copy and returns all that it said.
func (tf *terraform) run(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "terraform", args...)
	cmd.Dir = filepath.Join(tf.home, dir)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TF_") && !strings.HasPrefix(v, "AWS_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "TF_CLI_CONFIG_FILE="+tf.config, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1", "AWS_EC2_METADATA_DISABLED=true")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (tf *terraform) mustRun(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := tf.run(t, dir, args...)
	if err != nil {
		t.Fatalf("terraform %s in %s: %v\n%s", strings.Join(args, " "), dir, err, out)
	}
	return out
}

// folders are all modules and examples.
func folders(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"modules/*/versions.tf", "examples/*/versions.tf"} {
		found, err := fs.Glob(os.DirFS(root), pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			out = append(out, filepath.Dir(file))
		}
	}
	if len(out) < 7 {
		t.Fatalf("only %v found", out)
	}
	return out
}

// Every module and example is as terraform fmt writes it, is initialised, is valid, and passes its tests.
func TestModulesAndExamples(t *testing.T) {
	tf := start(t)
	if out, err := tf.run(t, ".", "fmt", "-check", "-recursive"); err != nil {
		t.Errorf("not as terraform fmt writes it (run: terraform fmt -recursive deploy/terraform):\n%s", out)
	}
	for _, dir := range folders(t) {
		t.Run(dir, func(t *testing.T) {
			tf.mustRun(t, dir, "init", "-backend=false", "-no-color", "-input=false")
			tf.mustRun(t, dir, "validate", "-no-color")
			if dir == "modules/peering" {
				return // the examples test it
			}
			out := tf.mustRun(t, dir, "test", "-no-color")
			if !strings.Contains(out, "0 failed.") || strings.Contains(out, " 0 passed") {
				t.Errorf("no test ran:\n%s", out)
			}
		})
	}
}

// What is checked can be found wrong: a misspelt argument, one that is missing, one of the wrong type, a block twice, an output
// that is not there, and a value that a variable refuses.
func TestFaultsAreFound(t *testing.T) {
	tf := start(t)
	const dir = "modules/peering"
	tf.mustRun(t, dir, "init", "-backend=false", "-no-color", "-input=false")
	file := filepath.Join(tf.home, dir, "main.tf")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string][2]string{
		`argument named "auto_acept" is not expected`: {"auto_accept               = true", "auto_acept                = true"},
		`"peer_vpc_id" is required`:                   {"  peer_vpc_id = var.to.vpc_id\n", ""},
		"a bool is required":                          {"auto_accept               = true", `auto_accept               = "perhaps"`},
		`does not support resource type`:              {`resource "aws_route" "from"`, `resource "aws_rout" "from"`},
		`This object has no argument, nested block`:   {"aws_vpc_peering_connection.this.id\n", "aws_vpc_peering_connection.this.ids\n"},
	} {
		bad := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(bad, good) {
			t.Fatalf("%q is not in %s", change[0], file)
		}
		write(t, file, string(bad))
		out, err := tf.run(t, dir, "validate", "-no-color")
		if err == nil || !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(out, "│", " ")), " "), want) {
			t.Errorf("with %q for %q: %v, want %q in\n%s", change[1], change[0], err, want, out)
		}
	}
	write(t, file, string(good))
	tf.mustRun(t, dir, "validate", "-no-color")
}

// Nobody takes this provider for the real one: it does not plan.
func TestProviderDoesNotPlan(t *testing.T) {
	tf := start(t)
	const dir = "examples/single"
	tf.mustRun(t, dir, "init", "-backend=false", "-no-color", "-input=false")
	out, err := tf.run(t, dir, "plan", "-no-color", "-input=false", "-var=account_id=123456789012", "-var=zone_id=Z1", "-var=domain=stores.example.org",
		"-var=certificate_arns={us-east=\"arn\"}", "-var=package_url=https://example.org/shortline.deb", "-var=package_sha256="+strings.Repeat("0", 64))
	if err == nil || !strings.Contains(out, "this provider has schemas and nothing else") {
		t.Errorf("%v\n%s", err, out)
	}
}
