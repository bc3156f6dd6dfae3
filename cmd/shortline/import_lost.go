package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions/agent"
	"github.com/shortline/shortline/replication"
)

const importLostHelp = `Bring back writes that only a former primary had when another region took over.

The database agent saves them in DIR/lost before it makes the old primary a
standby (see "shortline db --help"). The file is NDJSON, a transaction a line:
look through it, remove the lines that should stay lost, try --dry-run, and then
import it.

Writes go to nodes of the primary region (--forward-to, their --cluster-listen
addresses) as writes of other regions do, in the order of their first commit,
with absolute values and with the idempotency keys of their first time. So

  - a queue that has been reported since stays as it is,
  - a request that its client has repeated since is not applied a second time,
  - and the same file may be imported again.

Stores and API keys are put back as they were in the file, over what has become
of them since: leave them out with --only queues where that is not wanted.`

// importLostSettings are the flags of import-lost.
type importLostSettings struct {
	forwardTo   []string
	clusterKeys []string
	deployment  string
	identity    identitySettings
	only        []string
	stores      []string
	dryRun      bool
	timeout     time.Duration
}

// lostKinds are the values of --only, with the kinds of changes that each stands for.
var lostKinds = map[string][]string{"queues": {"queue"}, "stores": {"store", "store-deleted"}, "keys": {"key"}}

func newImportLostCommand(a *app) *cobra.Command {
	var s importLostSettings
	cmd := &cobra.Command{
		Use: "import-lost FILE", Short: "bring back writes that a failover lost", Long: importLostHelp, Args: cobra.ExactArgs(1),
		Example: "  shortline import-lost us-east-epoch-4-20261123T090000Z.ndjson --dry-run\n" +
			"  shortline import-lost us-east-epoch-4-20261123T090000Z.ndjson --only queues --forward-to 10.2.0.7:8082",
	}
	f := cmd.Flags()
	f.StringSliceVar(&s.forwardTo, "forward-to", nil, "cluster `addresses` of the primary region's nodes")
	bindClusterKey(f, &s.clusterKeys)
	f.StringVar(&s.deployment, "deployment", "shortline", "`name` of the deployment, as nodes have it; looked at with --cluster-tls-cert")
	s.identity.bind(f)
	f.StringSliceVar(&s.only, "only", nil, "import nothing but these `kinds`: queues, stores, keys (default: all)")
	f.StringSliceVar(&s.stores, "only-store", nil, "import nothing but what is about the stores with these `ids`")
	f.BoolVar(&s.dryRun, "dry-run", false, "print what would be imported and change nothing")
	f.DurationVar(&s.timeout, "timeout", 30*time.Second, "how long one write may take; one that takes longer ends the import, which can be started again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := s.validate(); err != nil {
			return usagef(cmd, "%w", err)
		}
		return a.importLost(cmd.Context(), &s, args[0])
	}
	return cmd
}

func (s *importLostSettings) validate() error {
	var faults []error
	for _, kind := range s.only {
		if lostKinds[kind] == nil {
			faults = append(faults, fmt.Errorf("--only %q is not queues, stores or keys", kind))
		}
	}
	if err := s.identity.validate(); err != nil {
		faults = append(faults, err)
	}
	if !s.dryRun {
		if len(s.forwardTo) == 0 {
			faults = append(faults, errors.New("--forward-to is missing: name the cluster addresses of nodes of the primary region, or try --dry-run"))
		}
		if err := peer.Keys(s.clusterKeys).Check(); err != nil {
			faults = append(faults, err)
		}
	}
	for _, addr := range s.forwardTo {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			faults = append(faults, fmt.Errorf("--forward-to %q is not an address such as 10.0.0.5:8082", addr))
		}
	}
	return joinFaults(faults)
}

// wanted tells whether a change is to be imported.
func (s *importLostSettings) wanted(c agent.LostChange) bool {
	if len(s.only) > 0 && !slices.ContainsFunc(s.only, func(kind string) bool { return slices.Contains(lostKinds[kind], c.Kind) }) {
		return false
	}
	return len(s.stores) == 0 || c.Kind != "key" && slices.Contains(s.stores, c.ID)
}

// lostCounts is what became of the changes in a file.
type lostCounts struct{ restored, settled, older, unchanged, gone, left int }

func (a *app) importLost(ctx context.Context, s *importLostSettings, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("import-lost: %w", err)
	}
	defer func() { _ = f.Close() }()
	if s.dryRun {
		return a.showLost(s, f)
	}
	peers := make([]edge.PeerNode, len(s.forwardTo))
	for i, addr := range s.forwardTo {
		peers[i] = edge.PeerNode{Name: addr, Addr: addr}
	}
	id, err := s.identity.load(s.deployment, "", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	forwarder, err := edge.NewForwarder(edge.ForwarderConfig{Peers: func() []edge.PeerNode { return peers }, ClusterKeys: s.clusterKeys, Identity: id, Timeout: s.timeout})
	if err != nil {
		return fmt.Errorf("import-lost: %w", err)
	}
	group, sending := errgroup.WithContext(ctx)
	sending, stop := context.WithCancel(sending)
	group.Go(func() error { return forwarder.Run(sending) })
	var n lostCounts
	_, ends, err := agent.ReadLost(f, func(_ int, tx agent.LostTransaction) error {
		writes, left, err := lostWrites(tx, s.wanted)
		n.left += left
		if err != nil {
			return err
		}
		for _, w := range writes {
			res, _, err := forwarder.Submit(ctx, w)
			if err == nil {
				err = n.count(res, w)
			}
			if err != nil {
				return fmt.Errorf("transaction %d: %w", tx.XID, err)
			}
		}
		return nil
	})
	stop()
	if runErr := group.Wait(); err == nil {
		err = runErr
	}
	_, printErr := fmt.Fprintf(a.stdout, "restored %d, unchanged %d, settled by their clients since %d, older than what is there %d, of stores that are gone %d, left out %d\n",
		n.restored, n.unchanged, n.settled, n.older, n.gone, n.left)
	if err != nil {
		return fmt.Errorf("import-lost: %s: %w; what was imported stays, and the file may be imported again", path, err)
	}
	if !ends {
		_, _ = fmt.Fprintln(a.stderr, "shortline: the file has no last line; was it cut off?")
	}
	return printErr
}

// count adds what became of a write. An idempotency key that has another body now was used anew by its client.
func (n *lostCounts) count(res replication.Result, w replication.Write) error {
	switch {
	case errors.Is(res.Err, replication.ErrIdempotencyMismatch), res.Replayed:
		n.settled += len(w.Items)
		return nil
	case res.Err != nil:
		return res.Err
	}
	for _, it := range res.Items {
		switch {
		case it.Status == replication.StatusNotFound:
			n.gone++
		case it.Queue != nil && !it.Queue.Applied:
			n.older++
		case it.Status == replication.StatusUnchanged:
			n.unchanged++
		default:
			n.restored++
		}
	}
	return nil
}

// lostWrites makes the writes that bring a transaction's changes back: one for each request of a client of which all is known, with
// its key, and one for what is left. The answer to a client that repeats its request has to have an item for each of
// its own, so a request of which a part is not wanted goes without its key.
func lostWrites(tx agent.LostTransaction, wanted func(agent.LostChange) bool) (writes []replication.Write, left int, err error) {
	items := make([]*replication.Item, len(tx.Changes))
	for i, c := range tx.Changes {
		if !wanted(c) {
			left++
			continue
		}
		it, err := lostItem(c)
		if err != nil {
			return nil, left, fmt.Errorf("%s %s: %w", c.Kind, c.ID, err)
		}
		items[i] = &it
	}
	done := make([]bool, len(items))
	for _, r := range tx.Requests {
		w := replication.Write{Idempotency: &replication.Idempotency{Scope: r.Scope, Key: r.Key, TTL: max(time.Until(r.Expires), time.Hour)}}
		copy(w.Idempotency.BodyHash[:], r.BodyHash)
		for _, i := range r.Changes {
			if i < 0 || i >= len(items) || items[i] == nil || done[i] {
				w.Items = nil
				break
			}
			w.Items = append(w.Items, *items[i])
		}
		if len(w.Items) == 0 {
			continue
		}
		for _, i := range r.Changes {
			done[i] = true
		}
		writes = append(writes, w)
	}
	for i, it := range items {
		if it == nil || done[i] {
			continue
		}
		body, _ := json.Marshal(tx.Changes[i]) // of plain fields
		writes = append(writes, replication.Write{Items: []replication.Item{*it}, Idempotency: &replication.Idempotency{
			Scope: "import-lost", Key: fmt.Sprintf("%d.%d.%d", tx.Epoch, tx.XID, i), BodyHash: sha256.Sum256(body), TTL: 24 * time.Hour}})
	}
	return writes, left, nil
}

// lostItem makes a write of a change: the state that it left.
func lostItem(c agent.LostChange) (it replication.Item, err error) {
	switch c.Kind {
	case "queue":
		if c.Length == nil || c.ObservedAt == nil {
			return it, errors.New("it has no length or no time")
		}
		it.Queue = &shortline.QueueUpdate{ID: shortline.StoreID(c.ID), Length: c.Length, ObservedAt: *c.ObservedAt}
	case "store":
		it.Put = new(shortline.Store)
		if err := json.Unmarshal(c.Body, it.Put); err != nil {
			return it, err
		}
		it.Put.Normalize()
		return it, it.Put.Validate()
	case "store-deleted":
		it.Delete = shortline.StoreID(c.ID)
	case "key":
		it.Key = new(shortline.Key)
		if err := json.Unmarshal(c.Body, it.Key); err != nil {
			return it, err
		}
		if len(c.Hash) != sha256.Size {
			return it, errors.New("it has no hash")
		}
		copy(it.Key.Hash[:], c.Hash)
	default:
		return it, fmt.Errorf("the kind %q is not known", c.Kind)
	}
	return it, nil
}

// showLost prints what would be imported.
func (a *app) showLost(s *importLostSettings, f *os.File) error {
	t := table{head: []string{"COMMITTED", "KIND", "ID", "VALUE", "BY", "TRANSACTION"}, right: make([]bool, 6)}
	left, count := 0, 0
	h, ends, err := agent.ReadLost(f, func(_ int, tx agent.LostTransaction) error {
		by := map[int]string{}
		for _, r := range tx.Requests {
			for _, i := range r.Changes {
				by[i] = r.By
			}
		}
		for i, c := range tx.Changes {
			if _, err := lostItem(c); err != nil {
				return fmt.Errorf("%s %s: %w", c.Kind, c.ID, err)
			}
			if !s.wanted(c) {
				left++
				continue
			}
			count++
			value := "-"
			if c.Length != nil {
				value = strconv.Itoa(*c.Length)
			} else if len(c.Body) > 0 {
				value = string(c.Body[:min(len(c.Body), 60)])
			}
			who := by[i]
			if who == "" {
				who = "-"
			}
			t.add(tx.At.Format(time.RFC3339), c.Kind, c.ID, strings.ToValidUTF8(value, ""), who, strconv.FormatUint(tx.XID, 10))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("import-lost: %w", err)
	}
	if err := t.print(a.stdout, terminalWidth(a.stdout), a.bold); err != nil {
		return err
	}
	note := ""
	if !ends {
		note = "; the file has no last line: was it cut off?"
	}
	_, err = fmt.Fprintf(a.stdout, "\n%d changes of %s in epoch %d past %s would be imported, %d left out%s\n", count, h.Region, h.Epoch, h.Fork, left, note)
	return err
}
