package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/regions"
)

// program writes an operator's program that answers status from a file and does for the other verbs what the given shell code says.
func program(t *testing.T, verbs string) (e *Exec, say func(status string)) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "command")
	script := "#!/bin/sh\nD=" + dir + "\ncat > $D/request\ncase $1 in\nstatus) cat $D/status;;\n" + verbs + "\nesac\n"
	check(t, os.WriteFile(path, []byte(script), 0o700))
	say = func(status string) { check(t, os.WriteFile(filepath.Join(dir, "status"), []byte(status), 0o600)) }
	say(execStandby)
	e, err := NewExec(ExecConfig{Region: "eu-west", Dir: filepath.Join(dir, "agent"), Command: []string{path}, Timeout: 5 * time.Second,
		BeginEpoch: func(_ context.Context, epoch uint64, fork regions.LSN) error {
			if epoch != 2 || fork != 0x3000010 {
				return errors.New("another epoch or fork")
			}
			say(execPrimary)
			return nil
		}})
	check(t, err)
	return e, say
}

const (
	execStandby  = `{"role":"standby","system":"7","epoch":1,"timeline":1,"position":"0/3000000","upstream":"us-east","streaming":true}`
	execDetached = `{"role":"standby","system":"7","epoch":1,"timeline":1,"position":"0/3000010"}`
	execPromoted = `{"role":"primary","system":"7","epoch":1,"timeline":2,"position":"0/3000080"}`
	execPrimary  = `{"role":"primary","system":"7","epoch":2,"timeline":2,"position":"0/3000100","sync":["ap-south"],"standbys":{"ap-south":"0/3000100"}}`
	execFollows  = `{"role":"standby","system":"7","epoch":2,"timeline":3,"position":"0/3000110","upstream":"ap-south","streaming":true}`
)

func TestExec(t *testing.T) {
	t.Parallel()
	e, _ := program(t, `detach) echo '`+execDetached+`' > $D/status; echo '{}';;
promote) grep -q .standby., $D/status && echo '`+execPromoted+`' > $D/status; echo '{"fork":"0/3000010"}';;
set-sync|read-only|checkpoint) echo '{}';;
follow) echo '`+execFollows+`' > $D/status; echo '{}';;`)
	ctx := deadline(t)
	o := regions.Order{Epoch: 2, Attempt: 1, Term: 3}
	s, err := e.Status(ctx)
	if check(t, err); s.Role != regions.RoleStandby || s.Position != 0x3000000 || s.Upstream != "us-east" {
		t.Errorf("status: %+v", s)
	}
	s, err = e.Detach(ctx, o)
	if check(t, err); s.Position != 0x3000010 || s.Order != o {
		t.Errorf("detached: %+v", s)
	}
	p, err := e.Promote(ctx, o, 2)
	if check(t, err); p != (regions.Promotion{Epoch: 2, Fork: 0x3000010, Timeline: 2}) {
		t.Errorf("promoted: %+v", p)
	}
	again, err := e.Promote(ctx, o, 2)
	if check(t, err); again != p {
		t.Errorf("promoted again: %+v", again)
	}
	_, err = e.SetSync(ctx, o, []regions.ID{"ap-south"})
	check(t, err)
	_, err = e.ReadOnly(ctx, o, false)
	check(t, err)
	check(t, e.Checkpoint(ctx, o))
	if _, err := e.Detach(ctx, regions.Order{Epoch: 1, Attempt: 9}); !errors.Is(err, regions.ErrOldOrder) {
		t.Errorf("an older order: %v", err)
	}
	s, err = e.Follow(ctx, regions.Order{Epoch: 3}, "ap-south", 0x3000010)
	if check(t, err); s.Upstream != "ap-south" {
		t.Errorf("follows: %+v", s)
	}
	request, err := os.ReadFile(filepath.Join(filepath.Dir(e.cfg.Command[0]), "request"))
	if check(t, err); !strings.Contains(string(request), `"verb":"status"`) {
		t.Errorf("the last request: %s", request)
	}
}

// A program that hangs, fails or lies is refused with the reason, and nothing is concluded from it.
func TestExecRefuses(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := regions.Order{Epoch: 2, Attempt: 1}
	detach := func(e *Exec) error { _, err := e.Detach(ctx, o); return err }
	status := func(e *Exec) error { _, err := e.Status(ctx); return err }
	promote := func(e *Exec) error { _, err := e.Promote(ctx, o, 2); return err }
	for _, test := range []struct {
		name, verbs, first, second string
		do                         func(*Exec) error
		want                       string
	}{
		{"hangs", "detach) sleep 100 & wait;;", execStandby, execStandby, detach, "has not ended after"},
		{"fails", "detach) echo no such instance >&2; exit 1;;", execStandby, execStandby, detach, "no such instance"},
		{"prints nothing", "detach) ;;", execStandby, execStandby, detach, "cannot be read"},
		{"prints too much", "detach) head -c 2000000 /dev/zero;;", execStandby, execStandby, detach, "more than"},
		{"prints a field that is not known", "", execStandby, `{"rule":"primary"}`, status, "unknown field"},
		{"says that it detached", "detach) echo '{}';;", execStandby, execStandby, detach, `streams from "us-east"`},
		{"a position that goes back", "", execStandby, strings.Replace(execStandby, "0/3000000", "0/2FFFFFF", 1), status, "went back"},
		{"a timeline that goes back", "", execPrimary, execStandby, status, "timeline went back"},
		{"another server", "", execStandby, strings.Replace(execStandby, `"7"`, `"8"`, 1), status, "database system"},
		{"no position", "", execStandby, `{"role":"standby","system":"7","timeline":1,"position":"lots"}`, status, "is none"},
		{"a primary that streams", "", execStandby, strings.Replace(execStandby, `"standby"`, `"primary"`, 1), status, "cannot stream"},
		{"a standby that is ahead", "", execPrimary, strings.Replace(execPrimary, `"ap-south":"0/3000100"`, `"ap-south":"0/4000100"`, 1), status, "past the primary's own"},
		{"a role that is none", "", execStandby, `{"role":"leader","system":"7","timeline":1,"position":"0/3000000"}`, status, "is not primary"},
		{"says that it promoted", "promote) echo '{\"fork\":\"0/3000010\"}';;", execDetached, execDetached, promote, "the server is a standby"},
		{"promotes what still streams", "promote) exit 1;;", execStandby, execStandby, promote, "detach it first"},
		{"a fork far away", "promote) echo '" + execPromoted + "' > $D/status; echo '{\"fork\":\"0/9000010\"}';;", execDetached, execDetached, promote, "tells the fork"},
		{"no fork", "promote) echo '" + execPromoted + "' > $D/status; echo '{}';;", execDetached, execDetached, promote, "did not tell the fork"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, say := program(t, test.verbs)
			say(test.first)
			if _, err := e.Status(ctx); err != nil {
				t.Fatal(err)
			}
			if test.name == "hangs" {
				e.cfg.Timeout = 300 * time.Millisecond
			}
			e.last.At = time.Time{} // asks again
			say(test.second)
			if err := test.do(e); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// A standby whose position still moves after it was detached is not detached.
func TestExecGoesOnReceiving(t *testing.T) {
	t.Parallel()
	e, _ := program(t, `detach) touch $D/detached; echo '{}';;`)
	script, err := os.ReadFile(e.cfg.Command[0])
	check(t, err)
	moving := strings.Replace(string(script), "status) cat $D/status;;", `status) echo x >> $D/count; n=$(wc -l < $D/count)
echo '{"role":"standby","system":"7","epoch":1,"timeline":1,"position":"0/300000'$n'"}';;`, 1)
	check(t, os.WriteFile(e.cfg.Command[0], []byte(moving), 0o700))
	if _, err := e.Detach(deadline(t), regions.Order{Epoch: 2}); err == nil || !strings.Contains(err.Error(), "still moves") {
		t.Error(err)
	}
}
