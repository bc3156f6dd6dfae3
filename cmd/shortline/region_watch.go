package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/regions"
)

func newRegionWatchCommand(a *app) *cobra.Command {
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "follow the regions on the whole screen, until Ctrl-C",
		Long: `Shows the regions, what is under way, and the latest of the history, and again
whenever something changes. Where the output is no terminal it prints a line for
each change of what matters instead.`,
		Args: cobra.NoArgs,
	}
	to := newAdminTarget(a, cmd.Flags())
	cmd.Flags().DurationVar(&interval, "interval", 500*time.Millisecond, "how often to ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if interval <= 0 {
			return usagef(cmd, "--interval must be greater than 0")
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		w := &regionWatch{client: c, app: a, interval: interval, explain: to.explain}
		if a.isTerminal(a.stdout) {
			err = w.screen(cmd.Context())
		} else {
			err = w.lines(cmd.Context())
		}
		if err != nil && cmd.Context().Err() == nil {
			return fmt.Errorf("region watch: %w", err)
		}
		return nil
	}
	return cmd
}

// regionWatch asks again and again, and shows what it hears.
type regionWatch struct {
	client   *client.Client
	app      *app
	interval time.Duration
	explain  func(error) error
}

// seen is one answer, or why there was none.
type seen struct {
	cluster regions.Cluster
	history []regions.Entry
	err     error
}

func (w *regionWatch) look(ctx context.Context) (s seen) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, s.err = w.client.AdminGet(ctx, "cluster", &s.cluster); s.err != nil {
		return s
	}
	var h struct {
		History []regions.Entry `json:"history"`
	}
	_, s.err = w.client.AdminGet(ctx, "history", &h)
	s.history = h.History
	return s
}

// rest waits for the next look, or less where the screen changed its size.
func (w *regionWatch) rest(ctx context.Context, resized func() bool) bool {
	for end := time.Now().Add(w.interval); ; {
		left := time.Until(end)
		if left <= 0 || resized() {
			return true
		}
		t := time.NewTimer(min(left, 100*time.Millisecond))
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
	}
}

// lines prints a line for each change.
func (w *regionWatch) lines(ctx context.Context) error {
	last, first := "", true
	for {
		s := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case s.err != nil && first:
			return w.explain(s.err)
		}
		line := summary(s)
		if line != last {
			if _, err := fmt.Fprintln(w.app.stdout, time.Now().UTC().Format(time.RFC3339), printable(line)); err != nil {
				return errOutput
			}
		}
		last, first = line, false
		if !w.rest(ctx, func() bool { return false }) {
			return nil
		}
	}
}

// summary is what matters, in one line without what moves all the time.
func summary(s seen) string {
	if s.err != nil {
		return "no answer: " + s.err.Error()
	}
	c := s.cluster
	parts := []string{fmt.Sprintf("primary %s epoch %d %s", c.Primary, c.PrimaryEpoch, c.Durability.Mode)}
	for _, r := range c.Regions {
		text := fmt.Sprintf("%s %s %s", r.Name, r.Role, r.State)
		if r.Held {
			text += " held"
		}
		if r.Silent > 2 {
			text += " silent"
		}
		if r.Sync {
			text += " confirms"
		}
		parts = append(parts, text)
	}
	if op := c.Operation; op != nil {
		parts = append(parts, fmt.Sprintf("%s to %s step %s", op.Kind, orAny(string(op.Target), string(op.To)), op.Step))
	}
	if c.Risk != nil && c.Risk.Barred != "" {
		parts = append(parts, "a failover would need an operator: "+string(c.Risk.Barred))
	}
	return strings.Join(parts, "; ")
}

// screen draws the whole screen, on the terminal's other one, and leaves the first as it was.
func (w *regionWatch) screen(ctx context.Context) (err error) {
	out := w.app.stdout.(*os.File) // it is a terminal
	if _, err := io.WriteString(out, "\x1b[?1049h\x1b[?25l"); err != nil {
		return errOutput
	}
	defer func() {
		if _, e := io.WriteString(out, "\x1b[?25h\x1b[?1049l"); e != nil && err == nil {
			err = errOutput
		}
	}()
	for {
		s := w.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		width, height := size(out)
		if _, err := out.Write(frame(s, width, height, w.app.bold, time.Now())); err != nil {
			return errOutput
		}
		if !w.rest(ctx, func() bool {
			nw, nh := size(out)
			return nw != width || nh != height
		}) {
			return nil
		}
	}
}

func size(f *os.File) (width, height int) {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// frame is one picture: no line is longer or more than the screen holds.
func frame(s seen, width, height int, bold func(string) string, now time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n", bold(runewidth.Truncate("Shortline regions  "+now.Format("15:04:05")+"  Ctrl-C ends", width, "…")))
	if s.err != nil {
		fmt.Fprintf(&b, "no answer: %s\n", printable(s.err.Error()))
	} else {
		_ = printCluster(&b, s.cluster, width, bold) // a buffer takes everything
		if op := s.cluster.Operation; op != nil {
			b.WriteString("\n")
			for _, m := range op.Marks {
				fmt.Fprintf(&b, "  %-10s %7.0f ms  %s\n", m.Step, m.TookMS, printable(m.Note))
			}
		}
		b.WriteString("\n")
		_ = printHistory(&b, s.history[:min(len(s.history), 20)], width, bold)
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	lines = lines[:min(len(lines), height)]
	var out bytes.Buffer
	out.WriteString("\x1b[H")
	for i, line := range lines {
		if !strings.Contains(line, "\x1b") { // what is bold is short or was cut already
			line = runewidth.Truncate(line, width, "…")
		}
		out.WriteString(line + "\x1b[K")
		if i < len(lines)-1 {
			out.WriteString("\r\n")
		}
	}
	out.WriteString("\x1b[J")
	return out.Bytes()
}
