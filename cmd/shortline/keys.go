package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
)

func newKeysCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "create, list, rotate and revoke API keys"}
	cmd.AddCommand(newKeysCreateCommand(a), newKeysListCommand(a), newKeysRotateCommand(a), newKeysRevokeCommand(a))
	return cmd
}

func newKeysCreateCommand(a *app) *cobra.Command {
	var name, expires string
	var scopes, stores []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create --name NAME --scope SCOPE...",
		Short: "create a key and print it, once",
		Long: `Creates an API key and prints it. Only its hash is kept: it is shown this once.

Scopes:
  queue:write   report queues: of all stores, or of those of --store
  stores:write  create, change, delete and import stores
  read          read, where the service asks for a key to read
  admin         everything`,
		Example: `  shortline keys create --name "till 4" --scope queue:write --store 1001-100019
  export SHORTLINE_KEY=$(shortline keys create --name import --scope stores:write)`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "name", "", "`name` of who or what the key is for")
	flags.StringSliceVar(&scopes, "scope", nil, "`scope` that the key has; may be given several times")
	flags.StringSliceVar(&stores, "store", nil, "`id` of a store that queue:write is for; may be given several times (default: all)")
	flags.StringVar(&expires, "expires", "", "when the key ends by itself: after a `time` such as 90d or 12h, or at the end of a day such as 2027-12-31 (default: never)")
	flags.BoolVar(&asJSON, "json", false, "print what the API answered")
	to := newAdminTarget(a, flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		spec := client.KeySpec{Name: name}
		for _, s := range scopes {
			spec.Scopes = append(spec.Scopes, shortline.Scope(s))
		}
		for _, s := range stores {
			spec.Stores = append(spec.Stores, shortline.StoreID(s))
		}
		check := shortline.Key{Name: strings.TrimSpace(name), Scopes: spec.Scopes, Stores: spec.Stores}
		if err := check.Validate(); err != nil {
			return usagef(cmd, "%w", err)
		}
		if expires != "" {
			at, err := parseExpiry(expires, time.Now())
			if err != nil {
				return usagef(cmd, "--expires %w", err)
			}
			spec.ExpiresAt = &at
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		answer, err := c.CreateKey(cmd.Context(), spec)
		if err != nil {
			return fmt.Errorf("keys create: %w", to.explain(err))
		}
		if asJSON {
			return printRaw(a.stdout, answer.Raw)
		}
		if _, err := fmt.Fprintln(a.stdout, printable(answer.Secret)); err != nil {
			return fmt.Errorf("keys create: the key %s could not be printed, revoke it: %w", answer.ID, err)
		}
		_, err = fmt.Fprintf(a.stderr, "This is the key %s; keep it now, it will not be shown again.\n", printable(string(answer.ID)))
		return err
	}
	return cmd
}

func newKeysListCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "list", Short: "list the keys, revoked ones too", Long: `Lists the keys, revoked and expired ones too, with the hour (UTC) in which each was
last used at any node of any region. That is written once a minute; a live
connection counts when it is opened.`, Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what the API answered")
	to := newAdminTarget(a, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		answer, err := c.Keys(cmd.Context())
		if err != nil {
			return fmt.Errorf("keys list: %w", to.explain(err))
		}
		if asJSON {
			return printRaw(a.stdout, answer.Raw)
		}
		t := table{head: []string{"NAME", "ID", "SCOPES", "STORES", "CREATED", "LAST USED", "EXPIRES", "REVOKED"}, right: make([]bool, 8)}
		for _, k := range answer.Keys {
			revoked, expires, used := "-", "-", "-"
			if k.LastUsedAt != nil {
				used = k.LastUsedAt.Format("2006-01-02 15h")
			}
			if k.ExpiresAt != nil {
				expires = k.ExpiresAt.Format(time.DateOnly)
			}
			if k.RevokedAt != nil {
				revoked = k.RevokedAt.Format(time.DateOnly)
			}
			t.add(k.Name, string(k.ID), joinScopes(k.Scopes), storesText(k.Stores), k.CreatedAt.Format(time.DateOnly), used, expires, revoked)
		}
		return t.print(a.stdout, terminalWidth(a.stdout), a.bold)
	}
	return cmd
}

// parseExpiry reads "90d", "12h" or "2027-12-31", of which the whole day still counts, in UTC.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	at, err := time.Parse(time.DateOnly, text)
	if err == nil {
		at = at.Add(24 * time.Hour)
	} else if number, ok := strings.CutSuffix(text, "d"); ok {
		var days int
		if days, err = strconv.Atoi(number); err == nil {
			at = now.Add(time.Duration(days) * 24 * time.Hour)
		}
	} else {
		var d time.Duration
		d, err = time.ParseDuration(text)
		at = now.Add(d)
	}
	switch {
	case err != nil:
		return at, fmt.Errorf("%q is no time such as 90d, 12h or 2027-12-31", text)
	case !at.After(now):
		return at, fmt.Errorf("%q is not in the future", text)
	}
	return at.UTC().Truncate(time.Second), nil
}

func newKeysRotateCommand(a *app) *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use: "rotate ID", Short: "create a successor of a key, which ends after a while", Args: cobra.ExactArgs(1),
		Long: `Creates a key that may do what the key ID may, and prints it, once. The old one
goes on for --overlap, so that whoever uses it can change over.`,
		Example: "  shortline keys rotate abcdefghijkmnpqr --overlap 72h",
	}
	cmd.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old key goes on, at most 2160h")
	to := newAdminTarget(a, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if overlap < 0 || overlap > 90*24*time.Hour {
			return usagef(cmd, "--overlap %v is not between 0 and 2160h", overlap)
		}
		if args[0] == "" || strings.ContainsAny(args[0], "/.") {
			return usagef(cmd, "%q is not the id of a key; see: shortline keys list", args[0])
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		answer, err := c.RotateKey(cmd.Context(), shortline.KeyID(args[0]), overlap)
		if errors.Is(err, shortline.ErrNotFound) {
			return fmt.Errorf("keys rotate: there is no key %s; see: shortline keys list", args[0])
		}
		if err != nil {
			return fmt.Errorf("keys rotate %s: %w", args[0], to.explain(err))
		}
		if _, err := fmt.Fprintln(a.stdout, printable(answer.Secret)); err != nil {
			return fmt.Errorf("keys rotate: the key %s could not be printed, revoke it: %w", answer.ID, err)
		}
		_, err = fmt.Fprintf(a.stderr, "This is the key %s; keep it now, it will not be shown again. %s ends in %v.\n", printable(string(answer.ID)), args[0], overlap)
		return err
	}
	return cmd
}

func joinScopes(scopes []shortline.Scope) string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = string(s)
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

func storesText(stores []shortline.StoreID) string {
	switch len(stores) {
	case 0:
		return "all"
	case 1:
		return string(stores[0])
	}
	return fmt.Sprintf("%s and %d more", stores[0], len(stores)-1)
}

func newKeysRevokeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "revoke ID", Short: "end a key for good", Args: cobra.ExactArgs(1)}
	to := newAdminTarget(a, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := args[0]
		if known, _, err := shortline.ParseKey(id); err == nil {
			id = string(known) // the whole key was given
		}
		if id == "" || strings.ContainsAny(id, "/.") {
			return usagef(cmd, "%q is not the id of a key; see: shortline keys list", id)
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		answer, err := c.RevokeKey(cmd.Context(), shortline.KeyID(id))
		if errors.Is(err, shortline.ErrNotFound) {
			return fmt.Errorf("keys revoke: there is no key %s; see: shortline keys list", id)
		}
		if err != nil {
			return fmt.Errorf("keys revoke %s: %w", id, to.explain(err))
		}
		_, err = fmt.Fprintf(a.stdout, "revoked %s (%s)\n", printable(string(answer.ID)), printable(answer.Name))
		return err
	}
	return cmd
}
