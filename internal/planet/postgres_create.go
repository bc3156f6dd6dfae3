package planet

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ownConf is the file in the data folder that has our settings; postgresql.conf includes it.
const ownConf = "planet.conf"

// access lets the superuser in through the socket alone, and everybody else with a password.
const access = `# type  database         user          address        method
local   all              postgres                     trust
local   replication      postgres                     trust
local   all              all                          scram-sha-256
host    all,replication  postgres      127.0.0.1/32   reject
host    replication      replicator    127.0.0.1/32   scram-sha-256
host    all              all           127.0.0.1/32   scram-sha-256
`

// settings are those of a Postgres in a test or a planet: quick to notice that a peer is gone, ready for failovers and
// rewinds, small.
func settings(cfg PostgresConfig) map[string]string {
	all := map[string]string{
		"max_connections":                     "200",
		"shared_buffers":                      "32MB",
		"password_encryption":                 "scram-sha-256",
		"log_timezone":                        "UTC",
		"timezone":                            "UTC",
		"logging_collector":                   "off",
		"log_checkpoints":                     "off",
		"wal_level":                           "replica",
		"hot_standby":                         "on",
		"hot_standby_feedback":                "off", // a stale one would keep dead rows on the primary
		"max_standby_streaming_delay":         "1s",  // nodes ask again what is cancelled, and the feed waits for the replay
		"wal_log_hints":                       "on",  // for pg_rewind
		"synchronous_commit":                  "on",
		"max_wal_senders":                     "16",
		"max_replication_slots":               "16",
		"wal_keep_size":                       "64MB",
		"max_slot_wal_keep_size":              "512MB",
		"max_wal_size":                        "512MB",
		"wal_sender_timeout":                  "3s",
		"wal_receiver_timeout":                "3s",
		"wal_receiver_status_interval":        "1s",
		"wal_retrieve_retry_interval":         "200ms",
		"idle_in_transaction_session_timeout": "10s", // an open transaction stalls the feed
	}
	if cfg.NoFsync {
		all["fsync"] = "off"
		all["full_page_writes"] = "off"
	}
	maps.Copy(all, cfg.Settings)
	return all
}

// initdb makes the data folder of a primary.
func (p *Postgres) initdb(ctx context.Context) error {
	// The files are synced by the first checkpoint that touches them, or never: nothing in them is older than this process.
	cmd := p.command("initdb", "-D", p.Data(), "-U", Superuser, "--encoding=UTF8", "--locale=C",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "--no-instructions")
	if err := run(ctx, cmd, p.out); err != nil {
		return err
	}
	conf, err := os.OpenFile(filepath.Join(p.Data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conf, "\ninclude '%s'\n", ownConf)
	if closeErr := conf.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := p.writeData("pg_hba.conf", access); err != nil {
		return err
	}
	return p.writeSettings()
}

// backup makes the data folder of a standby.
func (p *Postgres) backup(ctx context.Context, primary *Postgres) error {
	cmd := p.command("pg_basebackup", "-D", p.Data(), "-d", primary.DSN(Superuser, Superuser), "-X", "stream",
		"-S", SlotName(p.name), "--checkpoint=fast", "--no-sync", "--no-manifest", "--no-password")
	if err := run(ctx, cmd, p.out); err != nil {
		return err
	}
	conninfo, err := primary.Conninfo(p.name, p.cfg.Via)
	if err != nil {
		return err
	}
	// In auto.conf, where ALTER SYSTEM can change them. What the primary had there was its own.
	auto := "primary_conninfo = " + quoteSetting(conninfo) + "\nprimary_slot_name = " + quoteSetting(SlotName(p.name)) + "\n"
	if err := p.writeData("postgresql.auto.conf", auto); err != nil {
		return err
	}
	if err := p.writeData("standby.signal", ""); err != nil {
		return err
	}
	return p.writeSettings()
}

func (p *Postgres) writeSettings() error {
	all := settings(p.cfg)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "%s = %s\n", name, quoteSetting(all[name]))
	}
	return p.writeData(ownConf, text.String())
}

// writeData writes a file in the data folder that the server may read and replace.
func (p *Postgres) writeData(name, text string) error {
	path := filepath.Join(p.Data(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return p.account.own(path)
}

// populate makes the roles and calls Init.
func (p *Postgres) populate(ctx context.Context) error {
	conn, err := p.Connect(ctx, Superuser, Superuser)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	password := "PASSWORD '" + strings.ReplaceAll(p.password, "'", "''") + "'"
	sql := []string{"CREATE ROLE " + ReplicationRole + " REPLICATION LOGIN " + password}
	for _, role := range p.cfg.Roles {
		sql = append(sql, "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN "+password)
	}
	for _, s := range sql {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("make the roles: %w", err)
		}
	}
	if p.cfg.Init != nil {
		if err := p.cfg.Init(ctx, conn); err != nil {
			return fmt.Errorf("set up the database: %w", err)
		}
	}
	return nil
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,50}$`)

// checkName refuses names that would have to be quoted somewhere on their way through settings and slots.
func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("the name %q is not of the form %s", name, nameForm)
	}
	return nil
}

// quoteSetting is for files of settings, and for ALTER SYSTEM with text that has no backslash: only the former know escapes.
func quoteSetting(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(s) + "'"
}

func quoteConninfo(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
