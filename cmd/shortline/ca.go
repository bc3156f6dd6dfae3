package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shortline/shortline/internal/pki"
)

const caHelp = `Make the certificates with which nodes, database agents and witnesses of one
deployment know each other. Connections between them then are TLS 1.3 with
certificates on both sides; without one of this authority, with the deployment's
name in it, nothing is answered.

  1. shortline ca init                          an authority in ./shortline-ca
  2. shortline ca issue us-east/node-1 …        a certificate for each node
  3. copy ca.pem, NODE.pem and NODE.key to the node, and give it
     --cluster-tls-ca, --cluster-tls-cert and --cluster-tls-key

Keep the folder of the authority off the nodes: whoever has ca.key can make
certificates. Files are read again when they change; nothing has to be restarted.

The authority may be your own as well: a node's certificate needs the URI
spiffe://DEPLOYMENT/REGION/NODE among its names, and both usages, client and
server. Certificates come beside --cluster-key, not instead of it.`

const caRotateHelp = `Replace the authority's key, with no moment at which nodes refuse each other:

  1. shortline ca rotate            a new key; the old authority vouches for it
  2. shortline ca issue …           new certificates for all nodes
  3. copy ca.pem and the certificates to every node, in any order
  4. shortline ca rotate --finish   the old authority ends
  5. copy ca.pem to every node again

Between 1 and 4 old and new certificates are accepted by all nodes. Connections
that are open stay open. If the old key may be in wrong hands, do 1 to 5 at once
and then restart the nodes one after the other.`

func newCACommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "make certificates between nodes", Long: caHelp, Args: cobra.NoArgs}
	var dir string
	cmd.PersistentFlags().StringVar(&dir, "ca-dir", "shortline-ca", "`folder` of the authority")
	cmd.AddCommand(newCAInitCommand(a, &dir), newCAIssueCommand(a, &dir), newCARotateCommand(a, &dir))
	return cmd
}

func newCAInitCommand(a *app, dir *string) *cobra.Command {
	var deployment string
	cmd := &cobra.Command{
		Use: "init", Short: "make an authority", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := pki.Init(*dir, deployment, time.Now()); err != nil {
				return fmt.Errorf("ca init: %w", err)
			}
			_, err := fmt.Fprintf(a.stdout, "%s\nNext: shortline ca issue REGION/NODE\n", filepath.Join(*dir, pki.BundleFile))
			return err
		},
	}
	cmd.Flags().StringVar(&deployment, "deployment", "shortline", "`name` of the deployment, as nodes have it")
	return cmd
}

func newCAIssueCommand(a *app, dir *string) *cobra.Command {
	var out string
	var days int
	cmd := &cobra.Command{
		Use: "issue REGION/NODE...", Short: "make certificates for nodes, agents and witnesses", Args: cobra.MinimumNArgs(1),
		Long: `Makes a certificate and a key for each name, REGION-NODE.pem and REGION-NODE.key in
--out, both of mode 0600, and ca.pem beside them. What is there already is
replaced. The region must be that of the node's --region; the node's own name is
for people and logs.`,
		Example: "  shortline ca issue us-east/node-1 us-east/db eu-west/node-1 eu-west/db\n  shortline ca issue witness/witness --days 90",
		RunE: func(cmd *cobra.Command, args []string) error {
			if days < 1 || days > 3650 {
				return usagef(cmd, "--days %d is not between 1 and 3650", days)
			}
			var names []pki.Name
			for _, arg := range args {
				region, node, ok := strings.Cut(arg, "/")
				if !ok || region == "" || node == "" || strings.Trim(region+node, nameLetters) != "" || strings.Trim(region+node, ".") == "" {
					return usagef(cmd, "%q is no name such as us-east/node-1, of letters, digits, '-', '_' and '.'", arg)
				}
				names = append(names, pki.Name{Region: region, Node: node})
			}
			ca, err := pki.Open(*dir)
			if err != nil {
				return fmt.Errorf("ca issue: %w", err)
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return fmt.Errorf("ca issue: %w", err)
			}
			if err := pki.WriteFile(filepath.Join(out, pki.BundleFile), ca.Trusted()); err != nil {
				return fmt.Errorf("ca issue: %w", err)
			}
			for _, name := range names {
				cert, key, err := ca.Issue(name, time.Duration(days)*24*time.Hour, time.Now())
				if err != nil {
					return fmt.Errorf("ca issue: %w", err)
				}
				base := filepath.Join(out, name.Region+"-"+name.Node)
				for path, text := range map[string][]byte{base + ".key": key, base + ".pem": cert} {
					if err := pki.WriteFile(path, text); err != nil {
						return fmt.Errorf("ca issue: %w", err)
					}
				}
				if _, err := fmt.Fprintf(a.stdout, "--cluster-tls-ca %s --cluster-tls-cert %s.pem --cluster-tls-key %s.key\n", filepath.Join(out, pki.BundleFile), base, base); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", ".", "`folder` for the files")
	cmd.Flags().IntVar(&days, "days", 365, "for how many `days` the certificates are valid")
	return cmd
}

const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

func newCARotateCommand(a *app, dir *string) *cobra.Command {
	var finish bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "replace the authority's key", Long: caRotateHelp, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ca, err := pki.Open(*dir)
			if err != nil {
				return fmt.Errorf("ca rotate: %w", err)
			}
			next := "issue new certificates, copy them and ca.pem to every node, then: shortline ca rotate --finish"
			if finish {
				next = "copy ca.pem to every node"
				err = ca.Finish()
			} else {
				err = ca.Rotate(time.Now())
			}
			if err != nil {
				return fmt.Errorf("ca rotate: %w", err)
			}
			_, err = fmt.Fprintf(a.stdout, "%s\nNext: %s\n", filepath.Join(*dir, pki.BundleFile), next)
			return err
		},
	}
	cmd.Flags().BoolVar(&finish, "finish", false, "end the old authority, once every node has a certificate of the new one")
	return cmd
}
