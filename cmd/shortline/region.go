package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/regions"
)

const regionHelp = `Shows the regions and moves them: which takes writes, which are in service.

Each verb first asks the control plane what would happen, shows it, and asks
before it acts; --yes does not ask, --dry-run only shows. A verb that a rule
speaks against is refused with the rule's name. Some rules can be overridden
with --force RULE and a --reason; then the region's name has to be typed out,
or given as --confirm. All of it is in the history.`

func newRegionCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "region", Short: "show regions, and move the primary", Long: regionHelp}
	verbs := []verbSpec{
		{verb: regions.VerbDrain, use: "drain REGION", short: "take a region out of service", arg: true,
			long: "Sends the region's clients elsewhere, takes it out of the sync set, and then it is\ndrained. The primary is not drained: switch over first. One region stays on."},
		{verb: regions.VerbUndrain, use: "undrain REGION", short: "put a region back into service", arg: true,
			long: "Puts a drained region back into service, and lets one that came back from a\nfailure become primary again."},
		{verb: regions.VerbSwitchover, use: "switchover --to REGION", short: "move the primary, without loss", to: true,
			long: "Moves the primary to another region that is caught up. Writes wait for less than a\nsecond, plus some round trips between the regions; nothing is lost. A step that\ntakes too long rolls back."},
		{verb: regions.VerbFailover, use: "failover --to REGION", short: "make another region primary, the old one being gone", to: true,
			long: "Makes another region primary without the old one. Every standby that may have\nconfirmed a write has to answer, and the one with the most becomes primary.\n--allow-data-loss goes on without those that are silent: acknowledged writes may\nbe lost, and the region's name has to be typed out."},
		{verb: regions.VerbPause, use: "pause", short: "let no failover happen by itself", long: "Stops automatic failovers and practice switchovers until \"shortline region resume\"."},
		{verb: regions.VerbResume, use: "resume", short: "let failovers happen by themselves again", long: "Ends what \"shortline region pause\" began."},
		{verb: regions.VerbAck, use: "ack", short: "acknowledge the last automatic failover", long: "Says that people know of the last automatic failover. Until then, and for an hour,\nno other happens by itself."},
	}
	cmd.AddCommand(newRegionListCommand(a), newRegionExplainCommand(a), newRegionHistoryCommand(a), newRegionWatchCommand(a))
	for _, v := range verbs {
		cmd.AddCommand(v.command(a))
	}
	return cmd
}

// outputFlag binds -o.
func outputFlag(f *pflag.FlagSet, out *string) {
	f.StringVarP(out, "output", "o", "table", "`form` of the answer: table or json")
}

func checkOutput(cmd *cobra.Command, out string) error {
	if out != "table" && out != "json" {
		return usagef(cmd, "-o must be table or json, not %q", out)
	}
	return nil
}

// verbSpec is one of the verbs as a command.
type verbSpec struct {
	verb             regions.VerbName
	use, short, long string
	arg, to          bool // its region is an argument, or --to
}

// verbRun is a verb as it was asked for.
type verbRun struct {
	verbSpec
	a                        *app
	target                   *target
	region                   string
	reason, output, confirm  string
	force                    []string
	dryRun, yes, wait, lossy bool
	timeout                  time.Duration
}

func (v verbSpec) command(a *app) *cobra.Command {
	r := &verbRun{verbSpec: v, a: a}
	cmd := &cobra.Command{Use: v.use, Short: v.short, Long: v.long, Args: cobra.NoArgs}
	if v.arg {
		cmd.Args = cobra.ExactArgs(1)
	}
	f := cmd.Flags()
	r.target = newAdminTarget(a, f)
	outputFlag(f, &r.output)
	f.StringVar(&r.reason, "reason", "", "`why`, for the history")
	f.BoolVar(&r.dryRun, "dry-run", false, "show what would happen, and change nothing")
	f.BoolVar(&r.yes, "yes", false, "do not ask before acting")
	f.BoolVar(&r.wait, "wait", true, "wait until it is done; --wait=false returns once it has begun")
	f.DurationVar(&r.timeout, "timeout", 2*time.Minute, "how long to wait")
	if v.arg || v.to {
		f.StringSliceVar(&r.force, "force", nil, "`rule` to override, by its name; may be given several times")
		f.StringVar(&r.confirm, "confirm", "", "the region's `name`, instead of typing it for what is forced")
	}
	if v.to {
		f.StringVar(&r.region, "to", "", "`region` that becomes primary")
	}
	if v.verb == regions.VerbFailover {
		f.BoolVar(&r.lossy, "allow-data-loss", false, "go on without those that may have confirmed writes and are silent")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if v.arg {
			r.region = args[0]
		}
		if err := r.check(cmd); err != nil {
			return err
		}
		if err := r.run(cmd.Context()); err != nil {
			return fmt.Errorf("region %s: %w", strings.TrimSpace(string(v.verb)+" "+r.region), err)
		}
		return nil
	}
	return cmd
}

func (r *verbRun) check(cmd *cobra.Command) error {
	if err := checkOutput(cmd, r.output); err != nil {
		return err
	}
	if r.arg || r.to {
		if r.region == "" {
			return usagef(cmd, "--to is missing: name the region that is to become primary")
		}
		if _, err := regions.ParseID(r.region); err != nil {
			return usagef(cmd, "%w", err)
		}
	}
	for _, rule := range r.force {
		if !regions.Rule(rule).Forceable() {
			return usagef(cmd, "--force %s: that rule cannot be overridden; those that can: %s", rule, joinRules(regions.Forceables()))
		}
	}
	if len(r.force) > 0 && r.reason == "" {
		return usagef(cmd, "--force needs a --reason, for the history")
	}
	if r.timeout <= 0 {
		return usagef(cmd, "--timeout must be greater than 0")
	}
	return nil
}

func joinRules(rules []regions.Rule) string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

// path and body of the request.
func (r *verbRun) request(dryRun bool) (string, map[string]any) {
	body := map[string]any{}
	set := func(name string, value any, on bool) {
		if on {
			body[name] = value
		}
	}
	set("reason", r.reason, r.reason != "")
	set("dry_run", true, dryRun)
	set("force", r.force, len(r.force) > 0)
	set("confirm", r.confirm, r.confirm != "")
	set("to", r.region, r.to)
	set("allow_data_loss", true, r.lossy)
	if r.arg {
		return "regions/" + url.PathEscape(r.region) + "/" + string(r.verb), body
	}
	return string(r.verb), body
}

// run asks what would happen, shows it, asks, acts, and waits.
func (r *verbRun) run(ctx context.Context) error {
	c, err := r.target.client(nil)
	if err != nil {
		return err
	}
	var plan regions.Outcome
	path, body := r.request(true)
	answer, err := c.AdminPost(ctx, path, body, &plan)
	if err != nil {
		return r.target.explain(err)
	}
	switch {
	case r.dryRun && r.output == "json":
		if err := printRaw(r.a.stdout, answer.Raw); err != nil {
			return err
		}
		return refusedBy(plan)
	case r.dryRun:
		if err := printPlan(r.a.stdout, plan); err != nil {
			return err
		}
		return refusedBy(plan)
	case !plan.Accepted:
		return refusedBy(plan)
	}
	if err := r.ask(plan); err != nil {
		return err
	}
	var out regions.Outcome
	path, body = r.request(false)
	if answer, err = c.AdminPost(ctx, path, body, &out); err != nil {
		return r.target.explain(err)
	}
	if r.wait {
		waiting, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		return r.await(waiting, c, out, answer.Raw)
	}
	if r.output == "json" {
		return printRaw(r.a.stdout, answer.Raw)
	}
	return r.say("%s is under way", strings.TrimSpace(string(r.verb)+" "+r.region))
}

func (r *verbRun) say(format string, args ...any) error {
	_, err := fmt.Fprintf(r.a.stdout, format+"\n", args...)
	return err
}

// refusedBy is the error for a verb that rules speak against, nil where none does.
func refusedBy(out regions.Outcome) error {
	if out.Accepted {
		return nil
	}
	var text []string
	for _, b := range out.Blockers {
		line := b.Error()
		if b.Rule.Forceable() {
			line += ", which --force " + string(b.Rule) + " overrides"
		}
		text = append(text, line)
	}
	return errors.New(printable(strings.Join(text, "; ")))
}

// ask has people confirm. What is forced needs the region's name, with --yes as well.
func (r *verbRun) ask(plan regions.Outcome) error {
	forced := len(r.force) > 0 || r.lossy
	if forced && r.confirm != "" && r.confirm != r.region {
		return fmt.Errorf("--confirm says %q, the region is %q", r.confirm, r.region)
	}
	if r.yes && !forced || forced && r.confirm != "" && r.yes {
		return nil
	}
	in, ok := r.a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		if forced {
			return errors.New("nobody is there to type the region's name; give it as --confirm, with --yes")
		}
		return errors.New("nobody is there to ask; say --yes")
	}
	if err := printPlan(r.a.stderr, plan); err != nil {
		return err
	}
	want, prompt := "y", fmt.Sprintf("%s? [y/N] ", strings.TrimSpace(string(r.verb)+" "+r.region))
	if forced {
		want, prompt = r.region, fmt.Sprintf("This breaks rules. Type the region's name to go on (%s): ", strings.TrimSpace(string(r.verb)+" "+r.region))
	}
	if _, err := fmt.Fprint(r.a.stderr, prompt); err != nil {
		return err
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if typed := strings.TrimSpace(line); err != nil && typed == "" || typed != want && !(want == "y" && strings.EqualFold(typed, "yes")) {
		return errors.New("nothing was done")
	}
	if forced {
		r.confirm = r.region
	}
	return nil
}

// await waits for the end of what was begun.
func (r *verbRun) await(ctx context.Context, c *client.Client, out regions.Outcome, raw []byte) error {
	said := ""
	for {
		var cluster regions.Cluster
		_, err := c.AdminGet(ctx, "cluster", &cluster)
		if err == nil {
			if done, end := r.done(ctx, c, out, cluster); done {
				if end != nil && r.output == "json" {
					return r.finish(end)
				}
				if r.output == "json" {
					return printRaw(r.a.stdout, raw)
				}
				return r.finish(end)
			}
			if op := cluster.Operation; op != nil && string(op.Step) != said {
				said = string(op.Step)
				_, _ = fmt.Fprintf(r.a.stderr, "… %s\n", printable(said))
			}
		}
		t := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("it is still under way after %v; shortline region watch shows how far it is", r.timeout)
			}
			return errInterrupted
		case <-t.C:
		}
	}
}

// done tells whether a verb has come to its end, and the entry of the history that says which.
func (r *verbRun) done(ctx context.Context, c *client.Client, out regions.Outcome, cluster regions.Cluster) (bool, *regions.Entry) {
	switch r.verb {
	case regions.VerbDrain:
		i := slices.IndexFunc(cluster.Regions, func(x regions.ClusterRegion) bool { return string(x.Name) == r.region })
		return i >= 0 && cluster.Regions[i].State == regions.Drained, nil
	case regions.VerbSwitchover, regions.VerbFailover:
		if cluster.Operation != nil || cluster.PrimaryEpoch < out.Epoch {
			return false, nil
		}
		var h struct {
			History []regions.Entry `json:"history"`
		}
		if _, err := c.AdminGet(ctx, "history", &h); err != nil {
			return false, nil
		}
		for i, e := range h.History { // newest first
			if e.Epoch >= out.Epoch && e.PauseMS > 0 {
				return true, &h.History[i]
			}
		}
		return false, nil
	}
	return true, nil
}

// finish says what became of it. An operation that ended elsewhere than it was meant to is an error.
func (r *verbRun) finish(end *regions.Entry) error {
	if end == nil {
		return r.say("%s: done", strings.TrimSpace(string(r.verb)+" "+r.region))
	}
	if r.output == "json" {
		text, err := json.Marshal(end)
		if err != nil {
			return err
		}
		if err := printRaw(r.a.stdout, text); err != nil {
			return err
		}
	} else if err := printEntry(r.a.stdout, *end); err != nil {
		return err
	}
	if string(end.To) != r.region {
		return fmt.Errorf("%s is primary in epoch %d, not %s; shortline region history says why", end.To, end.Epoch, r.region)
	}
	return nil
}

func newRegionListCommand(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "list", Short: "list the regions, and what would happen if the primary failed now", Args: cobra.NoArgs}
	to := newAdminTarget(a, cmd.Flags())
	outputFlag(cmd.Flags(), &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.show(cmd, to, output, "cluster", func(raw []byte) error {
			var c regions.Cluster
			if err := json.Unmarshal(raw, &c); err != nil {
				return err
			}
			return printCluster(a.stdout, c, terminalWidth(a.stdout), a.bold)
		})
	}
	return cmd
}

func newRegionExplainCommand(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "explain REGION", Short: "say why a region can or cannot be primary now", Args: cobra.ExactArgs(1)}
	to := newAdminTarget(a, cmd.Flags())
	outputFlag(cmd.Flags(), &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := regions.ParseID(args[0]); err != nil {
			return usagef(cmd, "%w", err)
		}
		return a.show(cmd, to, output, "regions/"+url.PathEscape(args[0])+"/explain", func(raw []byte) error {
			var e regions.Explanation
			if err := json.Unmarshal(raw, &e); err != nil {
				return err
			}
			return printExplanation(a.stdout, e, a.bold)
		})
	}
	return cmd
}

func newRegionHistoryCommand(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "history", Short: "list what happened, newest first: who, why, and how long writes waited", Args: cobra.NoArgs}
	to := newAdminTarget(a, cmd.Flags())
	outputFlag(cmd.Flags(), &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.show(cmd, to, output, "history", func(raw []byte) error {
			var h struct {
				History []regions.Entry `json:"history"`
			}
			if err := json.Unmarshal(raw, &h); err != nil {
				return err
			}
			return printHistory(a.stdout, h.History, terminalWidth(a.stdout), a.bold)
		})
	}
	return cmd
}

// show reads one thing and prints it.
func (a *app) show(cmd *cobra.Command, to *target, output, path string, table func([]byte) error) error {
	if err := checkOutput(cmd, output); err != nil {
		return err
	}
	c, err := to.client(nil)
	if err != nil {
		return err
	}
	answer, err := c.AdminGet(cmd.Context(), path, nil)
	switch {
	case err != nil:
		return fmt.Errorf("region %s: %w", cmd.Name(), to.explain(err))
	case output == "json":
		return printRaw(a.stdout, answer.Raw)
	}
	if err := table(answer.Raw); err != nil {
		return fmt.Errorf("region %s: %w", cmd.Name(), err)
	}
	return nil
}

// printPlan says what a verb would do.
func printPlan(w io.Writer, out regions.Outcome) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:\n", strings.TrimSpace(string(out.Verb)+" "+string(out.Region)))
	for _, step := range out.Plan.Steps {
		fmt.Fprintf(&b, "  - %s\n", step)
	}
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-16s %s\n", name, fmt.Sprintf(format, args...))
	}
	if out.Plan.PauseS > 0 {
		line("writes wait", "about %.1f s", out.Plan.PauseS)
		line("target behind", "%s", byteCount(out.Plan.BehindBytes))
		if out.Plan.BytesAtRisk > 0 {
			line("at risk", "%s, about %d acknowledged writes", byteCount(out.Plan.BytesAtRisk), out.Plan.WritesAtRisk)
		} else {
			line("at risk", "nothing")
		}
	}
	if used := out.Plan.CapacityUsed; used != nil {
		line("capacity", "the others would use %.0f %% of what they have left", 100**used)
	}
	if d := out.Plan.Durability; d.Mode != "" {
		line("durability", "%s", strings.TrimSuffix(string(d.Mode)+", "+d.Why, ", "))
	}
	if len(out.Overridden) > 0 {
		line("breaks by force", "%s", joinRules(out.Overridden))
	}
	for _, blocker := range out.Blockers {
		line("refused", "%s", blocker.Error())
	}
	_, err := io.WriteString(w, mapLines(b.String()))
	return err
}

// mapLines makes each line printable.
func mapLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

func byteCount(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// printCluster is region list.
func printCluster(w io.Writer, c regions.Cluster, width int, bold func(string) string) error {
	t := table{head: []string{"REGION", "ROLE", "STATE", "CONFIRMS", "LAG", "DATABASE"}, right: []bool{false, false, false, false, true, false}}
	for _, r := range c.Regions {
		state := string(r.State)
		if r.Held {
			state += ", held"
		}
		if r.Rebuild {
			state += ", rebuild"
		}
		confirms, lag, db := "-", "-", "-"
		if r.Sync {
			confirms = "yes"
		}
		if r.LagBytes != nil {
			lag = byteCount(*r.LagBytes)
		}
		switch d := r.Database; {
		case r.Silent > 0:
			db = fmt.Sprintf("silent for %.0f s", r.Silent)
		case d != nil:
			db = string(d.Role)
			if d.Role == regions.RoleStandby && d.Streaming {
				db = "streams from " + string(d.Upstream)
			}
			if d.Rejoin != nil && d.Role == regions.RoleRejoin {
				db += ": " + d.Rejoin.Step
			}
			if d.ReadOnly {
				db += ", read-only"
			}
		}
		t.add(string(r.Name), r.Role, state, confirms, lag, db)
	}
	if err := t.print(w, width, bold); err != nil {
		return err
	}
	_, err := io.WriteString(w, mapLines(clusterText(c)))
	return err
}

// clusterText is what stands below the table.
func clusterText(c regions.Cluster) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s: epoch %d, durability %s", c.Cluster, c.PrimaryEpoch, c.Durability.Mode)
	if c.Durability.Why != "" {
		fmt.Fprintf(&b, " (%s)", c.Durability.Why)
	}
	b.WriteString("\n")
	if r := c.Risk; r != nil {
		switch {
		case r.Barred != "":
			fmt.Fprintf(&b, "fail now: %s at risk, and it would need an operator: %s (rule %s)\n", byteCount(r.Bytes), r.Why, r.Barred)
		default:
			fmt.Fprintf(&b, "fail now: %s at risk, writes would wait for about %.0f s, %s would take over\n", byteCount(r.Bytes), r.PauseS, r.To)
		}
	}
	if op := c.Operation; op != nil {
		fmt.Fprintf(&b, "under way: %s from %s to %s in epoch %d, last step %s, since %s\n", op.Kind, op.From, orAny(string(op.Target), string(op.To)), op.Epoch, op.Step, ago(c.At.Sub(op.Begun)))
	}
	for _, blocked := range c.Blocked {
		fmt.Fprintf(&b, "barred: %s\n", blocked.Error())
	}
	if c.Paused != nil {
		fmt.Fprintf(&b, "automation paused by %s: %s\n", c.Paused.By, c.Paused.Why)
	}
	if last := c.LastAutomatic; last != nil && last.Acknowledged == nil {
		fmt.Fprintf(&b, "not acknowledged: the failover from %s to %s, %s; shortline region ack\n", last.From, last.To, ago(c.At.Sub(last.At)))
	}
	if !c.Complete {
		b.WriteString("this node could not ask the control leader; it tells what it knew\n")
	}
	return b.String()
}

func orAny(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return "whoever has the most"
}

func printExplanation(w io.Writer, e regions.Explanation, bold func(string) string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", e.Summary)
	for _, part := range []struct {
		name   string
		checks []regions.Check
	}{{"switchover to it", e.Switchover}, {"failover to it", e.Failover}, {"drain it", e.Drain}} {
		fmt.Fprintf(&b, "\n%s\n", part.name)
		for _, c := range part.checks {
			mark := "ok"
			if !c.OK {
				mark = "NO"
			}
			line := fmt.Sprintf("  %-2s  %-20s %s", mark, c.Rule, c.Detail)
			if !c.OK && c.Forceable {
				line += " [--force " + string(c.Rule) + "]"
			}
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	text := mapLines(b.String())
	first, rest, _ := strings.Cut(text, "\n")
	_, err := io.WriteString(w, bold(first)+"\n"+rest)
	return err
}

func printHistory(w io.Writer, entries []regions.Entry, width int, bold func(string) string) error {
	t := table{head: []string{"WHY", "WHEN", "EVENT", "WHAT", "EPOCH", "PAUSE", "BY"}, right: []bool{false, false, false, false, true, true, false}}
	for _, e := range entries {
		what, pause := string(e.Region), "-"
		if e.To != "" || e.From != "" {
			what = string(e.From) + " → " + string(e.To)
		}
		if e.PauseMS > 0 {
			pause = fmt.Sprintf("%.2f s", e.PauseMS/1000)
		}
		why := e.Why
		if len(e.Overridden) > 0 {
			why += " [forced: " + joinRules(e.Overridden) + "]"
		}
		t.add(why, e.At.Local().Format("01-02 15:04:05"), e.Event, what, fmt.Sprint(e.Epoch), pause, e.By)
	}
	return t.print(w, width, bold)
}

// printEntry tells one operation with its steps.
func printEntry(w io.Writer, e regions.Entry) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s to %s in epoch %d: writes waited for %.2f s\n", e.Event, e.From, e.To, e.Epoch, e.PauseMS/1000)
	for _, m := range e.Steps {
		if m.TookMS > 0 || m.Note != "" {
			fmt.Fprintf(&b, "  %-10s %7.0f ms  %s\n", m.Step, m.TookMS, m.Note)
		}
	}
	_, err := io.WriteString(w, mapLines(b.String()))
	return err
}
