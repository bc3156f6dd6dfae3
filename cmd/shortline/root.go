package main

import (
	"fmt"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const rootHelp = `Shortline answers one question: which store near me has the shortest line?

A node keeps stores with their live queues, and tells in microseconds which are
nearest to a place. Stores report their queues as they change.

The first three steps:

  1. shortline serve                       a node on this machine, data in ./shortline-data
  2. shortline import stores.csv           your stores from CSV, NDJSON or GeoJSON
  3. shortline nearby 40.7580,-73.9855     who is near, and how long is the line?

Then "shortline queue set ID 7" reports a line of seven people, and
"shortline queue watch ID" follows it.

Every setting is a flag, or an environment variable named like it (--server is
SHORTLINE_SERVER), or a line in the YAML file of --config ("server: http://…"),
in this order.`

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "shortline",
		Short:         "which store near me has the shortest line?",
		Long:          rootHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		// Commands below must not have a PersistentPreRun of their own: it would take the place of this one.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.loadSettings(cmd) },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err: err, command: cmd.CommandPath()}
	})
	root.PersistentFlags().String("config", "", "YAML `file` with settings, named like the flags (SHORTLINE_CONFIG)")
	root.AddCommand(
		newCACommand(a),
		newControlCommand(a),
		newServeCommand(a),
		newImportCommand(a),
		newImportLostCommand(a),
		newNearbyCommand(a),
		newQueueCommand(a),
		newKeysCommand(a),
		newRegionCommand(a),
		newDBCommand(a),
		newPlanetCommand(a),
		newRouteCommand(a),
		newPlanCommand(a),
		newConfigCommand(a),
		newDoctorCommand(a),
		newVersionCommand(a),
	)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.stdout, "shortline %s (%s, %s/%s)\n", a.version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// negative is how an argument begins that looks like a flag but is a number or a place: "-1", "-33.87,151.21". No flag
// begins with a digit.
var negative = regexp.MustCompile(`^-\.?[0-9]`)

// shieldNegatives puts a blank before arguments that are negative numbers or places in the south, so that they are not
// taken for flags; whoever reads an argument trims it. The value of a flag and what follows "--" stay as they are.
func shieldNegatives(root *cobra.Command, args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		if arg == "--" {
			copy(out[i:], args[i:])
			break
		}
		out[i] = arg
		if negative.MatchString(arg) && (i == 0 || !takesValue(root, args[i-1])) {
			out[i] = " " + arg
		}
	}
	return out
}

// takesValue tells whether the argument after arg is its value.
func takesValue(root *cobra.Command, arg string) bool {
	name, long := strings.CutPrefix(arg, "--")
	short := !long && len(arg) >= 2 && arg[0] == '-' && !negative.MatchString(arg)
	if !long && !short || strings.Contains(arg, "=") {
		return false
	}
	found := false
	eachFlag(root, func(f *pflag.Flag) {
		if long && f.Name == name || short && f.Shorthand == arg[len(arg)-1:] {
			found = found || f.NoOptDefVal == ""
		}
	})
	return found
}

// eachFlag calls yield with the flags of every command.
func eachFlag(cmd *cobra.Command, yield func(*pflag.Flag)) {
	cmd.Flags().VisitAll(yield)
	cmd.PersistentFlags().VisitAll(yield)
	for _, sub := range cmd.Commands() {
		eachFlag(sub, yield)
	}
}
