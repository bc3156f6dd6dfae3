package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shortline/shortline/regions"
)

// Files in the data folder.
const (
	ownConf       = "shortline.conf" // our settings; postgresql.conf includes it
	autoConf      = "postgresql.auto.conf"
	standbySignal = "standby.signal"
	nobody        = "shortline_nobody" // a standby that does not exist: whoever waits for it waits for ever
	conninfo      = "primary_conninfo"
	slotName      = "primary_slot_name"
	syncNames     = "synchronous_standby_names"
	readOnly      = "default_transaction_read_only"
)

// access lets whoever may enter the socket's folder in as anybody, and everybody else with a password, but never as the superuser.
const access = `# type  database         user      address  method
local   all              all                trust
local   replication      all                trust
host    all,replication  postgres  all      reject
host    replication      all       all      scram-sha-256
host    all              all       all      scram-sha-256
`

// settings are what the regions' servers have in common: ready for failovers and rewinds, quick to notice that a peer is gone.
func settings(own map[string]string) map[string]string {
	all := map[string]string{
		"password_encryption":                 "scram-sha-256",
		"log_timezone":                        "UTC",
		"timezone":                            "UTC",
		"logging_collector":                   "off",
		"wal_level":                           "replica",
		"hot_standby":                         "on",
		"hot_standby_feedback":                "off", // a stale one would keep dead rows on the primary
		"max_standby_streaming_delay":         "1s",  // nodes ask again what is cancelled, and the feed waits for the replay
		"wal_log_hints":                       "on",  // for pg_rewind
		"synchronous_commit":                  "on",
		"max_connections":                     "200",
		"max_wal_senders":                     "16",
		"max_replication_slots":               "16",
		"wal_keep_size":                       "512MB",
		"max_slot_wal_keep_size":              "4GB", // what a region that is away may cost the primary
		"wal_sender_timeout":                  "3s",
		"wal_receiver_timeout":                "3s",
		"wal_receiver_status_interval":        "1s",
		"wal_retrieve_retry_interval":         "200ms",
		"idle_in_transaction_session_timeout": "10s", // an open transaction stalls the feed
	}
	maps.Copy(all, own)
	return all
}

// writeSettings brings the files in the data folder in line with the configuration and the role. The server must be down.
func (a *Agent) writeSettings(safe bool) error {
	var text strings.Builder
	all := settings(a.cfg.Settings)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "%s = %s\n", name, quoteSetting(all[name]))
	}
	if err := a.writeData(ownConf, text.String()); err != nil {
		return err
	}
	main, err := os.ReadFile(filepath.Join(a.cfg.Data, "postgresql.conf"))
	if err != nil {
		return err
	}
	if include := "include '" + ownConf + "'"; !strings.Contains(string(main), include) {
		if err := a.writeData("postgresql.conf", string(main)+"\n"+include+"\n"); err != nil {
			return err
		}
	}
	m := a.mem().get()
	change := map[string]string{conninfo: "", slotName: ""}
	switch {
	case !a.isStandby():
		if !m.Confirmed && a.cfg.mutant != mutantNoFence && !safe {
			change[readOnly], change[syncNames] = "on", nobody
		}
	case m.Role == regions.RoleStandby && m.Upstream != "":
		change[conninfo], change[slotName] = a.conninfo(m.Upstream), regionSlot(a.cfg.Region)
	}
	return a.editAuto(change)
}

// isStandby tells whether the server is, or would start as, a standby.
func (a *Agent) isStandby() bool {
	_, err := os.Stat(filepath.Join(a.cfg.Data, standbySignal))
	return err == nil
}

// writeData replaces a file in the data folder, durably.
func (a *Agent) writeData(name, text string) error {
	path := filepath.Join(a.cfg.Data, name)
	if err := writeSynced(path, []byte(text), 0o600); err != nil {
		return err
	}
	return a.tools.own(path)
}

// editAuto sets settings where ALTER SYSTEM keeps them; the others stay.
func (a *Agent) editAuto(change map[string]string) error {
	old, err := os.ReadFile(filepath.Join(a.cfg.Data, autoConf))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	return a.writeData(autoConf, editedAuto(string(old), change))
}

func editedAuto(old string, change map[string]string) string {
	var b strings.Builder
	for line := range strings.Lines(old) {
		name, _, _ := strings.Cut(line, "=")
		if _, changed := change[strings.TrimSpace(name)]; !changed {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(change)) {
		fmt.Fprintf(&b, "%s = %s\n", name, quoteSetting(change[name]))
	}
	return b.String()
}

// conninfo is how the server, or one of the programs, reaches a peer's.
func (a *Agent) conninfo(peer regions.ID) string {
	host, port, _ := splitAddr(a.cfg.Peers[peer])
	return fmt.Sprintf("host=%s port=%s user=%s passfile=%s dbname=%s application_name=%s sslmode=%s connect_timeout=2",
		quoteConninfo(host), port, RoleReplicator, quoteConninfo(a.passFile()), a.cfg.Database, a.cfg.Region, a.cfg.SSLMode)
}

// passFile is where the password of replication stands: PostgreSQL writes how it reaches a primary into its log, and programs show it in
// the list of processes.
func (a *Agent) passFile() string { return filepath.Join(a.cfg.Dir, "replication.pass") }

func (a *Agent) writePassFile() error {
	text := "*:*:*:" + RoleReplicator + ":" + strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(a.cfg.Password) + "\n"
	if err := writeSynced(a.passFile(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("keep the password of replication: %w", err)
	}
	return a.tools.own(a.passFile())
}

// regionSlot is the name of the slot of a region's server: its own, with underscores for dashes, which slots must not have.
func regionSlot(id regions.ID) string { return strings.ReplaceAll(string(id), "-", "_") }

// syncSetting is the setting with which any one of the standbys has to confirm a commit.
func syncSetting(ids []regions.ID) string {
	if len(ids) == 0 {
		return ""
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = `"` + string(id) + `"`
	}
	return "ANY 1 (" + strings.Join(names, ", ") + ")"
}

// parseSync is the inverse of syncSetting. ok is false for a setting that was not made by it.
func parseSync(text string) (ids []regions.ID, ok bool) {
	if text == "" {
		return nil, true
	}
	list, found := strings.CutPrefix(text, "ANY 1 (")
	if !found {
		return nil, false
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(list, ")"), ",") {
		ids = append(ids, regions.ID(strings.Trim(strings.TrimSpace(name), `"`)))
	}
	return ids, true
}

// sockets is the folder of the server's socket: in Dir, or elsewhere where that path is too long for a socket.
func (a *Agent) sockets() string {
	dir, err := filepath.Abs(filepath.Join(a.cfg.Dir, "run"))
	if err == nil && len(dir) <= 85 {
		return dir
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(os.TempDir(), "shortline-db-"+hex.EncodeToString(sum[:8]))
}

func splitAddr(addr string) (host, port string, err error) { return net.SplitHostPort(addr) }

// quoteSetting is for files of settings, quoteLiteral for SQL: the former know escapes.
func quoteSetting(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(s) + "'"
}

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func quoteConninfo(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
