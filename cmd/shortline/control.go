package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/regions/control"
)

const controlHelp = `Keep and bring back what the regions agree on: which of them is primary, in which
epoch, and who confirms its writes.

Every node keeps the newest of it in its data folder, so a lost voter needs no
backup: give it an empty folder and start it, and it gets everything from the
others. A backup is for the loss of all of them.`

const controlRestoreHelp = `Let the control plane go on with one voter, after the majority is lost for good.

First stop every other voter's node, and make sure that it stays stopped: two
halves that both go on have two primaries. Then run this in the data folder of
the voter that goes on, with its node stopped; --from FILE takes the state of a
backup instead of the folder's own. A new epoch begins, at the region that was
primary unless --primary names another, and writes wait for no standby until
one has caught up.

After that start the node. Empty the folder "control" in the data folders of
the other voters before they start again: they are taken in as new ones, and
refused with what they had.`

func newControlCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "control", Short: "back up and restore what the regions agree on", Long: controlHelp, Args: cobra.NoArgs}
	cmd.AddCommand(newControlBackupCommand(a), newControlRestoreCommand(a))
	return cmd
}

func newControlBackupCommand(a *app) *cobra.Command {
	var data, out string
	cmd := &cobra.Command{
		Use: "backup", Short: "write the agreed state, as a node knows it, to a file", Args: cobra.NoArgs,
		Example: "  shortline control backup --data /var/lib/shortline --out control.json",
		RunE: func(*cobra.Command, []string) error {
			text, view, err := control.Backup(filepath.Join(data, "control"))
			if err != nil {
				return err
			}
			if out == "-" {
				_, err := a.stdout.Write(text)
				return err
			}
			if err := writeNew(out, text); err != nil {
				return fmt.Errorf("write the backup: %w", err)
			}
			_, err = fmt.Fprintf(a.stderr, "%s: cluster %s, epoch %d, primary %s, change %d\n", out, view.State.Cluster, view.State.Epoch, view.State.Primary, view.Index)
			return err
		},
	}
	cmd.Flags().StringVar(&data, "data", "shortline-data", "data `folder` of a node; it may run")
	cmd.Flags().StringVar(&out, "out", "-", "`file` to write, which must not exist; - is stdout")
	return cmd
}

// writeNew writes a file that was not there, for its owner alone.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func newControlRestoreCommand(a *app) *cobra.Command {
	var data, deployment, sole, primary, from, confirm, reason string
	var epoch uint64
	cmd := &cobra.Command{
		Use: "restore", Short: "go on with one voter, after the majority is lost for good", Long: controlRestoreHelp, Args: cobra.NoArgs,
		Example: "  shortline control restore --data /var/lib/shortline --sole-voter eu-west --reason 'two sites lost'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := regions.ParseID(sole)
			if err != nil {
				return &usageError{err: fmt.Errorf("--sole-voter: %w", err), command: "shortline control restore"}
			}
			cfg := control.RestoreConfig{Cluster: deployment, Dir: filepath.Join(data, "control"), Region: id, From: from, Primary: regions.ID(primary), Epoch: epoch,
				By: "operator " + a.getenv("USER"), Why: reason, Now: time.Now().UTC()}
			if err := a.confirmSoleVoter(cmd.Context(), id, confirm); err != nil {
				return err
			}
			before, after, aside, err := control.Restore(cfg)
			if err != nil {
				return fmt.Errorf("restore the control state: %w", err)
			}
			_, err = fmt.Fprintf(a.stderr, `epoch %d → %d, primary %s → %s, %s is the only voter
what was there before is in %s
now start this node; empty DATA/control of every other voter before you start it again
`, before.State.Epoch, after.State.Epoch, before.State.Primary, after.State.Operation.Target, id, aside)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "shortline-data", "data `folder` of the voter that goes on; its node must not run")
	f.StringVar(&deployment, "deployment", "shortline", "`name` of the deployment, as for serve")
	f.StringVar(&sole, "sole-voter", "", "`region` of the voter that goes on")
	f.StringVar(&primary, "primary", "", "`region` that is to be primary; default: the one that was")
	f.Uint64Var(&epoch, "epoch", 0, "begin at least this `epoch`: greater than any that a database knows, where the backup is older than the last failover")
	f.StringVar(&from, "from", "", "`file` with a backup; default: what the folder has")
	f.StringVar(&confirm, "confirm", "", "the `region` of --sole-voter again, which says that all other voters are stopped; asked for where it is missing")
	f.StringVar(&reason, "reason", "", "why, for the history")
	return cmd
}

// confirmSoleVoter returns nil once somebody has typed the region's name.
func (a *app) confirmSoleVoter(_ context.Context, id regions.ID, typed string) error {
	if typed == "" {
		_, _ = fmt.Fprintf(a.stderr, "This makes %[1]s decide alone. If another voter still runs, or is started with what it had, there can be two primaries.\nAre all other voters stopped for good? Type the name of the region that goes on (%[1]s): ", id)
		line, err := bufio.NewReader(a.stdin).ReadString('\n')
		if err != nil && line == "" {
			return errors.New("nothing was confirmed and nothing changed; type the region's name, or give it with --confirm")
		}
		typed = strings.TrimSpace(line)
	}
	if typed != string(id) {
		return fmt.Errorf("%q is not %s: nothing was changed", typed, id)
	}
	return nil
}
