package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// verdict is how a check ended.
type verdict string

const (
	fine verdict = "OK"
	warn verdict = "WARN"
	fail verdict = "FAIL"
)

// finding is what one check found, and where that is not well, what to do.
type finding struct {
	Check   string  `json:"check"`
	Verdict verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	Fix     string  `json:"fix,omitempty"`
}

// findings are those of a whole look.
type findings []finding

func (f *findings) add(check string, v verdict, fix, format string, args ...any) {
	one := finding{Check: check, Verdict: v, Detail: fmt.Sprintf(format, args...)}
	if v != fine {
		one.Fix = fix
	}
	*f = append(*f, one)
}

func (f findings) count(v verdict) (n int) {
	for _, one := range f {
		if one.Verdict == v {
			n++
		}
	}
	return n
}

// worst is the worst verdict of all.
func (f findings) worst() verdict {
	for _, v := range []verdict{fail, warn} {
		if slices.ContainsFunc(f, func(one finding) bool { return one.Verdict == v }) {
			return v
		}
	}
	return fine
}

// errFindings ends a look that found a fault; what it is has been printed.
var errFindings = errors.New("what is marked FAIL has to be mended first")

// tell prints the findings, and fails where one is a fault.
func (a *app) tell(f findings, output string) error {
	var err error
	if output == "json" {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", " ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(map[string]any{"verdict": f.worst(), "findings": f})
	} else {
		for _, one := range f {
			line := fmt.Sprintf("%-4s  %s: %s\n", one.Verdict, one.Check, printable(one.Detail))
			if one.Fix != "" {
				line += "      → " + printable(one.Fix) + "\n"
			}
			if _, werr := fmt.Fprint(a.stdout, line); werr != nil && err == nil {
				err = werr
			}
		}
		_, werr := fmt.Fprintf(a.stdout, "\n%d fine, %d warnings, %d faults\n", f.count(fine), f.count(warn), f.count(fail))
		err = errors.Join(err, werr)
	}
	if err == nil && f.count(fail) > 0 {
		err = errFindings
	}
	return err
}
