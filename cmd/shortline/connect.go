package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
)

const (
	defaultServer      = "http://127.0.0.1:8080"
	defaultAdminServer = "http://127.0.0.1:8081"
	defaultDataDir     = "shortline-data"
)

// target is which service a command talks to, and as whom.
type target struct {
	app                *app
	server, admin, key string
	forAdmin, writes   bool
}

// newTarget binds the flags of a command that talks to the public API. writes says that it needs a key.
func newTarget(a *app, flags *pflag.FlagSet, writes bool) *target {
	t := &target{app: a, writes: writes}
	flags.StringVar(&t.server, "server", defaultServer, "base `URL` of the service (SHORTLINE_SERVER)")
	t.keyFlag(flags)
	return t
}

// newAdminTarget binds the flags of a command that talks to the admin API.
func newAdminTarget(a *app, flags *pflag.FlagSet) *target {
	t := &target{app: a, writes: true, forAdmin: true, server: defaultServer}
	flags.StringVar(&t.admin, "admin-server", defaultAdminServer, "base `URL` of the admin API (SHORTLINE_ADMIN_SERVER)")
	t.keyFlag(flags)
	return t
}

func (t *target) keyFlag(flags *pflag.FlagSet) {
	usage := "API `key` (SHORTLINE_KEY)"
	if t.writes {
		usage += "; else the key in ./shortline-data/admin.key when the server is on this machine"
	}
	flags.StringVar(&t.key, "key", "", usage)
}

// client makes the client. change may adapt its configuration.
func (t *target) client(change func(*client.Config)) (*client.Client, error) {
	cfg := client.Config{Server: t.server, AdminServer: t.admin, Key: t.key, UserAgent: "shortline/" + t.app.version}
	if cfg.Key == "" && t.writes {
		cfg.Key = t.localKey()
	}
	if change != nil {
		change(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, &usageError{err: err}
	}
	return c, nil
}

// localKey returns the admin key that a node on this machine keeps in its data folder, or "". It is sent to this machine
// only.
func (t *target) localKey() string {
	base := t.server
	if t.forAdmin {
		base = t.admin
	}
	u, err := url.Parse(base)
	if err != nil || !isLoopback(u.Hostname()) {
		return ""
	}
	dir := t.app.getenv("SHORTLINE_DATA")
	if dir == "" {
		dir = defaultDataDir
	}
	key, err := os.ReadFile(filepath.Join(dir, "admin.key"))
	if err != nil {
		return ""
	}
	text := string(bytes.TrimSpace(key))
	if _, _, err := shortline.ParseKey(text); err != nil {
		return ""
	}
	return text
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// errInterrupted says that the user ended it.
var errInterrupted = errors.New("interrupted")

// explain adds to an error of a call what to do about it.
func (t *target) explain(err error) error {
	var unreachable *client.UnreachableError
	var p *client.Problem
	switch {
	case errors.Is(err, context.Canceled):
		return errInterrupted
	case errors.As(err, &unreachable) && t.forAdmin:
		return fmt.Errorf("%w; is `shortline serve` running? set --admin-server", err)
	case errors.As(err, &unreachable):
		return fmt.Errorf("%w; is `shortline serve` running? set --server", err)
	case !errors.As(err, &p):
		return err
	}
	switch {
	case p.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w; pass --key or set SHORTLINE_KEY", err)
	case p.Status == http.StatusForbidden:
		return fmt.Errorf("%w; use a key that may do this: shortline keys create --help", err)
	case p.OutcomeUnknown():
		return fmt.Errorf("%w; look at what is stored before you try again", err)
	case p.RetryAfter > 0:
		return fmt.Errorf("%w; try again in %v", err, p.RetryAfter.Round(time.Second))
	case p.Status == http.StatusInternalServerError && p.RequestID != "":
		return fmt.Errorf("%w; request %s", err, p.RequestID)
	}
	return err
}
