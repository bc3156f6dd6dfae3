package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/storefile"
)

// importOptions are the flags of import.
type importOptions struct {
	format, rejects string
	columns         []string
	strict, dryRun  bool
}

func newImportCommand(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "load stores from CSV, NDJSON or GeoJSON",
		Long: `Loads stores through the API. FILE may be compressed with gzip; "-" is stdin.

Columns are found by their usual names (lat or latitude, id or "store number",
...). --dry-run shows what is found and changes nothing; --map names a column
that is called otherwise.

A bad row is reported with its line number and skipped; the exit code is 0 all
the same, unless --strict stops at the first one. Importing is safe to repeat: a
store that is there already, the same in every field, counts as unchanged, and
stores that the file does not name stay as they are.`,
		Example: `  shortline import stores.csv --dry-run
  shortline import stores.csv --map id=Filiale --map name=Bezeichnung
  curl -s https://example.com/stores.geojson | shortline import - --format geojson`,
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.format, "format", "", "`format`: csv, ndjson or geojson (default: by the file's extension)")
	flags.StringArrayVar(&o.columns, "map", nil, "read a field from the column of this name, `field=column`; may be given several times.\nfields: "+strings.Join(storefile.Fields(), ", "))
	flags.BoolVar(&o.strict, "strict", false, "stop at the first bad row, with exit code 1; rows before it stay imported")
	flags.BoolVar(&o.dryRun, "dry-run", false, "only read the file and show the columns; nothing is sent")
	flags.StringVar(&o.rejects, "rejects", "", "write every rejected row to this `file`, as NDJSON")
	to := newTarget(a, flags, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		read, err := o.readOptions(args[0])
		if err != nil {
			return usagef(cmd, "%w", err)
		}
		c, err := to.client(func(cfg *client.Config) {
			cfg.Timeout = time.Minute // a busy server takes its time for a thousand rows
			cfg.Attempts = 8          // and may restart meanwhile
		})
		if err != nil {
			return err
		}
		if err := a.importFile(cmd.Context(), args[0], read, o, c, to); err != nil {
			return fmt.Errorf("import %s: %w", args[0], err)
		}
		return nil
	}
	return cmd
}

// readOptions says how to read the file. The error is wrong usage.
func (o importOptions) readOptions(name string) (storefile.Options, error) {
	var read storefile.Options
	var err error
	if o.format != "" {
		if read.Format, err = storefile.ParseFormat(o.format); err != nil {
			return read, fmt.Errorf("--format: %w", err)
		}
	} else {
		var ok bool
		if read.Format, ok = storefile.FormatOf(name); !ok {
			return read, fmt.Errorf("%s does not tell its format; say --format csv, ndjson or geojson", name)
		}
	}
	for _, m := range o.columns {
		field, column, ok := strings.Cut(m, "=")
		field = strings.TrimSpace(field)
		switch {
		case !ok:
			return read, fmt.Errorf("--map %q is not of the form field=column", m)
		case !slices.Contains(storefile.Fields(), field):
			hint := "fields are " + strings.Join(storefile.Fields(), ", ")
			if near := nearest(field, storefile.Fields()); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			return read, fmt.Errorf("--map %s: there is no field %q; %s", m, field, hint)
		}
		if before, twice := read.Columns[field]; twice {
			return read, fmt.Errorf("--map names two columns for %s: %q and %q", field, before, column)
		}
		if read.Columns == nil {
			read.Columns = map[string]string{}
		}
		read.Columns[field] = column
	}
	return read, nil
}

// importFile reads the file and sends its rows, or only reads it.
func (a *app) importFile(ctx context.Context, name string, read storefile.Options, o importOptions, c *client.Client, to *target) (err error) {
	in, err := a.openInput(ctx, name)
	if err != nil {
		return err
	}
	defer in.Close()
	rows, err := storefile.NewReader(in, read)
	if err != nil {
		return err
	}
	if !o.dryRun {
		// Whether anybody is there is better known before the work than after it.
		var unreachable *client.UnreachableError
		if err := quick(c, to).Healthy(ctx); errors.As(err, &unreachable) {
			return to.explain(err)
		}
	}
	rejects, err := createRejects(o.rejects)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := rejects.close(); err == nil {
			err = closeErr
		}
	}()
	im := &importer{app: a, in: in, rows: rows, strict: o.strict, rejects: rejects, client: c, explain: to.explain,
		progress: a.newProgress(in), began: time.Now(), inFlight: map[string]int{}}
	if o.dryRun {
		return im.dryRun(ctx, read.Format)
	}
	return im.run(ctx)
}

// quick is a client like c that gives up sooner.
func quick(c *client.Client, to *target) *client.Client {
	fast, err := to.client(func(cfg *client.Config) { cfg.Attempts, cfg.Timeout = 2, 5*time.Second })
	if err != nil {
		return c
	}
	return fast
}

// input is a file that is read, uncompressed, with a count of the bytes taken from it.
type input struct {
	io.Reader
	file io.Closer
	size int64 // 0: not known
	read atomic.Int64
}

func (in *input) Close() {
	if in.file != nil {
		_ = in.file.Close() // it was only read
	}
}

// counted counts what is read from r.
type counted struct {
	r io.Reader
	n *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// openInput opens a file, or stdin for "-", and unpacks gzip by its first bytes, whatever the name.
func (a *app) openInput(ctx context.Context, name string) (*input, error) {
	in := &input{}
	var source io.Reader = &interruptible{ctx: ctx, r: a.stdin}
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, plainPathError(err)
		}
		in.file, source = f, f
		info, err := f.Stat()
		switch {
		case err != nil:
			in.Close()
			return nil, plainPathError(err)
		case info.IsDir():
			in.Close()
			return nil, errors.New("is a folder; name a file")
		case info.Mode().IsRegular():
			in.size = info.Size()
		}
	}
	buffered := bufio.NewReaderSize(counted{source, &in.read}, 256<<10)
	in.Reader = buffered
	if head, err := buffered.Peek(2); err == nil && head[0] == 0x1f && head[1] == 0x8b {
		unpacked, err := gzip.NewReader(buffered)
		if err != nil {
			in.Close()
			return nil, fmt.Errorf("unpack: %w", err)
		}
		in.Reader = unpacked
	}
	return in, nil
}

// interruptible reads from what may never yield anything, until ctx ends. A read that is under way then is left behind;
// it ends with the program at the latest.
type interruptible struct {
	ctx   context.Context
	r     io.Reader
	ended error
	buf   []byte
}

func (i *interruptible) Read(b []byte) (int, error) {
	if i.ended != nil {
		return 0, i.ended
	}
	if i.buf == nil {
		i.buf = make([]byte, 64<<10)
	}
	var n int
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err = i.r.Read(i.buf[:min(len(b), len(i.buf))])
	}()
	select {
	case <-done:
		return copy(b, i.buf[:n]), err
	case <-i.ctx.Done():
		i.ended = i.ctx.Err()
		return 0, i.ended
	}
}

// plainPathError leaves out the path, which the message has already.
func plainPathError(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
