package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
)

func newQueueCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "queue", Short: "write, read and follow the lines of stores"}
	cmd.AddCommand(newQueueSetCommand(a), newQueueGetCommand(a), newQueueWatchCommand(a))
	return cmd
}

func newQueueSetCommand(a *app) *cobra.Command {
	var delta int
	var observed, key string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "set ID LENGTH",
		Short: "report how many people wait",
		Long: `Reports the number of people who wait at a store, or with --delta how many more
or fewer there are. A length that was observed before the one that is stored is
not applied; that is a failure.`,
		Example: `  shortline queue set 1001-100019 7
  shortline queue set 1001-100019 --delta -1`,
		Args: cobra.RangeArgs(1, 2),
	}
	flags := cmd.Flags()
	flags.IntVar(&delta, "delta", 0, "change the length by this `number` instead")
	flags.StringVar(&observed, "observed-at", "", "when it was seen, a `time` such as 2026-11-23T09:00:00Z (default: now)")
	flags.StringVar(&key, "idempotency-key", "", "`text` that makes repetitions of this report count once (default: a new one)")
	flags.BoolVar(&asJSON, "json", false, "print what the API answered")
	to := newTarget(a, flags, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		update, err := parseUpdate(args, cmd.Flags().Changed("delta"), delta, observed)
		if err != nil {
			return usagef(cmd, "%w", err)
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		answer, err := c.SetQueue(cmd.Context(), update, client.WriteOptions{IdempotencyKey: key})
		if err != nil {
			return fmt.Errorf("queue set %s: %w", update.ID, to.explain(err))
		}
		if asJSON {
			err = printRaw(a.stdout, answer.Raw)
		} else {
			_, err = fmt.Fprintln(a.stdout, queueLine(answer.Queue)+clampedNote(answer.Clamped))
		}
		if err == nil && !answer.Applied {
			err = fmt.Errorf("queue set %s: not applied: %s", update.ID, answer.Reason)
		}
		return err
	}
	return cmd
}

func clampedNote(clamped bool) string {
	if clamped {
		return fmt.Sprintf(" (brought back into 0 to %d)", shortline.MaxQueueLength)
	}
	return ""
}

// parseUpdate makes an update of the arguments of queue set.
func parseUpdate(args []string, withDelta bool, delta int, observed string) (shortline.QueueUpdate, error) {
	u := shortline.QueueUpdate{ID: shortline.StoreID(strings.TrimSpace(args[0]))}
	switch {
	case withDelta && len(args) == 2:
		return u, errors.New("give either LENGTH or --delta, not both")
	case withDelta:
		u.Delta = &delta
	case len(args) == 1:
		return u, errors.New("say how many people wait: a LENGTH after the ID, or --delta N")
	default:
		text := strings.TrimSpace(args[1])
		n, err := strconv.Atoi(text)
		if err != nil {
			return u, fmt.Errorf("the length %q is not a whole number", text)
		}
		if n < 0 || text[0] == '+' {
			return u, fmt.Errorf("the length %s is no number of people; to change the line by it, use --delta %s", text, text)
		}
		u.Length = &n
	}
	if observed != "" {
		at, err := time.Parse(time.RFC3339, observed)
		if err != nil {
			return u, fmt.Errorf("--observed-at %q is not a time such as 2026-11-23T09:00:00Z", observed)
		}
		u.ObservedAt = at
	}
	return u, u.Validate()
}

// queueLine says a queue in one line.
func queueLine(q client.Queue) string {
	if !q.Reported() {
		return printable(fmt.Sprintf("%s: has not reported yet", q.ID))
	}
	wait := "no wait"
	if q.WaitHighS > 0 {
		wait = "wait " + waitRange(q.WaitS, q.WaitHighS)
	}
	return printable(fmt.Sprintf("%s: %d in line, %s, updated %s", q.ID, q.Length, wait, ago(seconds(q.AgeS))))
}

func newQueueGetCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "get ID", Short: "how long is the line?", Args: cobra.ExactArgs(1)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what the API answered")
	to := newTarget(a, cmd.Flags(), false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ids, err := parseIDs(args)
		if err != nil {
			return usagef(cmd, "%w", err)
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		answer, err := c.Queue(cmd.Context(), ids[0], client.ReadOptions{})
		if err != nil {
			return fmt.Errorf("queue get %s: %w", ids[0], to.explain(err))
		}
		if asJSON {
			return printRaw(a.stdout, answer.Raw)
		}
		_, err = fmt.Fprintln(a.stdout, queueLine(answer.Queue))
		return err
	}
	return cmd
}

// parseIDs checks ids before anything is sent.
func parseIDs(args []string) ([]shortline.StoreID, error) {
	ids := make([]shortline.StoreID, len(args))
	for i, arg := range args {
		id, err := shortline.ParseStoreID(strings.TrimSpace(arg))
		if err != nil {
			return nil, fmt.Errorf("%q is no store: %w", arg, err)
		}
		ids[i] = id
	}
	return ids, nil
}

// watchAtOnce bounds how many stores a watch asks for at a time.
const watchAtOnce = 8

func newQueueWatchCommand(a *app) *cobra.Command {
	var interval time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "watch ID...",
		Short: "follow lines: print one whenever it changes, until Ctrl-C",
		Long: `Prints the lines of stores, and each one again whenever it changes. The service
sends the changes over a WebSocket; when it goes away the next region takes its
place. Where no WebSocket can be had (an older service, or a proxy in between),
or with --interval, it asks again and again instead.`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "ask this often, instead of following the live stream")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a line of JSON for each change")
	to := newTarget(a, cmd.Flags(), false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ids, err := parseIDs(args)
		if err != nil {
			return usagef(cmd, "%w", err)
		}
		if interval <= 0 {
			return usagef(cmd, "--interval must be greater than 0")
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		w := &watch{client: c, ids: ids, asJSON: asJSON, stdout: a.stdout, stderr: a.stderr, last: make([]client.Queue, len(ids))}
		if !cmd.Flags().Changed("interval") {
			if err = w.follow(cmd.Context()); !noLive(err) {
				return explainWatch(to, "queue watch", err)
			}
		}
		return explainWatch(to, "queue watch", w.run(cmd.Context(), interval))
	}
	return cmd
}

// watch follows queues and prints those that changed.
type watch struct {
	client         *client.Client
	ids            []shortline.StoreID
	asJSON         bool
	stdout, stderr io.Writer
	last           []client.Queue // as printed, by index of ids
	seen           bool           // the first round is done
	lost           bool           // the service did not answer the last time
}

// run polls until ctx ends, which is no error. What fails in the first round is an error; later the watch goes on, and
// says so once.
func (w *watch) run(ctx context.Context, interval time.Duration) error {
	for {
		err := w.round(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if w.lost {
				_, _ = fmt.Fprintln(w.stderr, "the service answers again")
			}
			w.seen, w.lost = true, false
		case !w.seen || isFinal(err):
			return err
		case !w.lost:
			w.lost = true
			_, _ = fmt.Fprintf(w.stderr, "%v; trying on\n", err)
		}
		pause := time.NewTimer(interval - interval/10 + rand.N(interval/5+1)) // not all watchers at the same moment
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

// isFinal tells errors that asking again will not mend.
func isFinal(err error) bool {
	var p *client.Problem
	return errors.As(err, &p) && p.Status < 500 && p.Status != 429 || errors.Is(err, errOutput)
}

// errOutput says that nobody reads what is printed.
var errOutput = errors.New("cannot write to stdout")

// round asks for every queue once, several at a time, and prints what changed in the order of the ids.
func (w *watch) round(ctx context.Context) error {
	answers := make([]*client.QueueAnswer, len(w.ids))
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(watchAtOnce)
	for i, id := range w.ids {
		g.Go(func() error {
			var err error
			if answers[i], err = w.client.Queue(groupCtx, id, client.ReadOptions{Consistency: client.Eventual}); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, answer := range answers {
		q := answer.Queue
		q.AgeS = 0 // it changes all the time
		if w.seen && q == w.last[i] {
			continue
		}
		w.last[i] = q
		if err := w.print(answer); err != nil {
			return fmt.Errorf("%w: %w", errOutput, err)
		}
	}
	return nil
}

func (w *watch) print(answer *client.QueueAnswer) error {
	if w.asJSON {
		var line bytes.Buffer
		if err := json.Compact(&line, answer.Raw); err != nil {
			return err
		}
		return printRaw(w.stdout, line.Bytes())
	}
	_, err := fmt.Fprintln(w.stdout, queueLine(answer.Queue))
	return err
}
