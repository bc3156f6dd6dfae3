package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// terminalWidth is the number of columns of w, or 0 where it is not a terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}

// isTerminal tells whether w can show what moves and shines.
func (a *app) isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || a.getenv("TERM") == "dumb" {
		return false
	}
	_, height, err := term.GetSize(int(f.Fd()))
	return err == nil && height > 1 // some that are none say 0
}

// bold makes text stand out on a terminal where colours are not unwanted (no-color.org).
func (a *app) bold(text string) string {
	if !a.isTerminal(a.stdout) || a.getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// table is text in columns. The first column gives way where a terminal is too narrow.
type table struct {
	head  []string
	right []bool // which columns are flush right
	rows  [][]string
}

// add appends a row; what it says is made printable.
func (t *table) add(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	t.rows = append(t.rows, cells)
}

// print writes the table, at most width columns wide where width is not 0.
func (t *table) print(w io.Writer, width int, bold func(string) string) error {
	const gap, narrowest = 2, 8
	widths := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, c := range row {
			widths[i] = max(widths[i], runewidth.StringWidth(c))
		}
	}
	total := gap * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	if width > 0 && total > width {
		widths[0] = max(min(widths[0], narrowest), widths[0]-(total-width))
	}
	var out strings.Builder
	line := func(row []string) string {
		var b strings.Builder
		for i, c := range row {
			c = runewidth.Truncate(c, widths[i], "…")
			pad := strings.Repeat(" ", widths[i]-runewidth.StringWidth(c))
			if t.right[i] {
				c = pad + c
			} else {
				c += pad
			}
			if i > 0 {
				b.WriteString(strings.Repeat(" ", gap))
			}
			b.WriteString(c)
		}
		return strings.TrimRight(b.String(), " ")
	}
	out.WriteString(bold(line(t.head)) + "\n")
	for _, row := range t.rows {
		out.WriteString(line(row) + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// printable keeps text from outside from moving the cursor or from breaking the line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}

// distance says metres as people do.
func distance(m float64) string {
	switch {
	case m < 999.5:
		return fmt.Sprintf("%.0f m", m)
	case m < 9_950:
		return fmt.Sprintf("%.1f km", m/1000)
	}
	return fmt.Sprintf("%.0f km", m/1000)
}

// waitRange says from how long to how long somebody waits.
func waitRange(fromS, toS int) string {
	from, to := wholeMinutes(fromS), wholeMinutes(toS)
	switch {
	case toS <= 0:
		return "none"
	case to <= 1:
		return "1 min"
	case to <= 120 && from == to:
		return fmt.Sprintf("%d min", to)
	case to <= 120:
		return fmt.Sprintf("%d-%d min", from, to)
	}
	return fmt.Sprintf("%.1f-%.1f h", float64(fromS)/3600, float64(toS)/3600)
}

func wholeMinutes(s int) int { return max(1, int(math.Round(float64(s)/60))) }

// ago says how long something is past.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < 90*time.Second:
		return fmt.Sprintf("%.0f s ago", d.Seconds())
	case d < 90*time.Minute:
		return fmt.Sprintf("%.0f min ago", d.Minutes())
	case d < 36*time.Hour:
		return fmt.Sprintf("%.0f h ago", d.Hours())
	}
	return fmt.Sprintf("%.0f d ago", d.Hours()/24)
}

// seconds turns a number of seconds of the API into a duration.
func seconds(s float64) time.Duration {
	return time.Duration(min(max(s, 0), 1e9) * float64(time.Second))
}
