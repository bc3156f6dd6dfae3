package replication

import "testing"

func TestLineageBegin(t *testing.T) {
	for name, c := range map[string]struct {
		head    Head
		lineage *Lineage
		want    verdict
		known   uint64
	}{
		"nobody knows of forks":             {Head{Epoch: 3, LSN: 50}, nil, verdictFollow, 0},
		"nothing is known yet":              {Head{Epoch: 1, LSN: 50}, &Lineage{}, verdictFollow, 1},
		"of the newest epoch":               {Head{Epoch: 2, LSN: 150}, &Lineage{2, 120}, verdictFollow, 2},
		"further than the control plane":    {Head{Epoch: 3, LSN: 150}, &Lineage{2, 120}, verdictFollow, 3},
		"before the fork":                   {Head{Epoch: 1, LSN: 120}, &Lineage{2, 120}, verdictFollow, 2},
		"past the fork":                     {Head{Epoch: 1, LSN: 121}, &Lineage{2, 120}, verdictLost, 2},
		"the epoch lost nothing":            {Head{Epoch: 1, LSN: 121}, &Lineage{2, NoFork}, verdictFollow, 2},
		"there was another fork in between": {Head{Epoch: 1, LSN: 100}, &Lineage{3, 120}, verdictLost, 3},
	} {
		h, v, reason := beginHistory(c.head, c.lineage)
		if v != c.want || h.known != c.known || (reason != "") != (v != verdictFollow) {
			t.Errorf("%s: verdict %d, known %d, %q; want verdict %d, known %d", name, v, h.known, reason, c.want, c.known)
		}
	}
}

func TestLineageJudge(t *testing.T) {
	before := history{forks: true, known: 1, epoch: 1, lsn: 100, horizon: 20}
	for name, c := range map[string]struct {
		head    Head
		lineage Lineage
		want    verdict
	}{
		"nothing new":                                {Head{1, 20, 20, 100, 0}, Lineage{1, 0}, verdictFollow},
		"further":                                    {Head{1, 25, 26, 110, 0}, Lineage{1, 0}, verdictFollow},
		"the horizon is held back":                   {Head{1, 18, 26, 110, 0}, Lineage{1, 0}, verdictFollow},
		"an older lineage":                           {Head{1, 25, 26, 110, 0}, Lineage{}, verdictFollow},
		"a smaller epoch":                            {Head{0, 25, 26, 110, 0}, Lineage{1, 0}, verdictResync},
		"smaller transactions":                       {Head{1, 15, 19, 110, 0}, Lineage{1, 0}, verdictResync},
		"a smaller position":                         {Head{1, 25, 26, 99, 0}, Lineage{1, 0}, verdictResync},
		"an epoch of which nothing is known":         {Head{2, 25, 26, 110, 0}, Lineage{1, 0}, verdictWait},
		"an epoch that forked where memory is":       {Head{2, 25, 26, 110, 0}, Lineage{2, 100}, verdictFollow},
		"an epoch that forked later":                 {Head{2, 25, 26, 130, 0}, Lineage{2, 120}, verdictFollow},
		"an epoch that forked before":                {Head{2, 25, 26, 110, 0}, Lineage{2, 99}, verdictResync},
		"two epochs at once":                         {Head{3, 25, 26, 110, 0}, Lineage{3, 105}, verdictResync},
		"a database that is past the fork":           {Head{1, 25, 26, 110, 0}, Lineage{2, 105}, verdictLost},
		"a database that has not come to the fork":   {Head{1, 25, 26, 105, 0}, Lineage{2, 105}, verdictFollow},
		"a database ahead, and a fork behind memory": {Head{1, 25, 26, 110, 0}, Lineage{2, 99}, verdictResync},
		"an epoch that lost nothing":                 {Head{2, 25, 26, 110, 0}, Lineage{2, NoFork}, verdictFollow},
	} {
		h := before
		v, reason := h.judge(c.head, &c.lineage)
		if v != c.want || (reason != "") != (v != verdictFollow) {
			t.Errorf("%s: verdict %d (%s), want %d", name, v, reason, c.want)
		}
		if noted := h.lsn == c.head.LSN && h.epoch == c.head.Epoch; noted != (v == verdictFollow) {
			t.Errorf("%s: verdict %d, and the history is %+v", name, v, h)
		}
	}
	// The same run of a server that has come to the new epoch has all that it ever showed, wherever its position was.
	before.server = 7
	for name, c := range map[string]struct {
		head    Head
		lineage Lineage
		want    verdict
		server  uint64
	}{
		"it goes on": {Head{1, 25, 26, 110, 7}, Lineage{1, 0}, verdictFollow, 7},
		"it was promoted, the end of its log dropped":  {Head{2, 25, 26, 110, 7}, Lineage{2, 99}, verdictFollow, 7},
		"it was promoted, and is not of the epoch yet": {Head{1, 25, 26, 98, 7}, Lineage{2, 98}, verdictFollow, 7},
		"it is past the fork, and of the old epoch":    {Head{1, 25, 26, 110, 7}, Lineage{2, 99}, verdictLost, 7},
		"it has come through two epochs":               {Head{3, 25, 26, 110, 7}, Lineage{3, 105}, verdictFollow, 7},
		"it was started anew":                          {Head{2, 25, 26, 110, 8}, Lineage{2, 99}, verdictResync, 7},
		"it was started anew in the same epoch":        {Head{1, 25, 26, 110, 8}, Lineage{1, 0}, verdictFollow, 0},
		"it was started anew, before the fork":         {Head{2, 25, 26, 110, 8}, Lineage{2, 100}, verdictFollow, 8},
		"it went back":                                 {Head{1, 15, 19, 110, 7}, Lineage{1, 0}, verdictResync, 7},
	} {
		h := before
		if v, reason := h.judge(c.head, &c.lineage); v != c.want || h.server != c.server {
			t.Errorf("%s: verdict %d (%s), want %d, and the history is %+v", name, v, reason, c.want, h)
		}
	}
	// A node that knows of no forks takes every epoch, and notices only what the head gives away.
	h := history{epoch: 1, lsn: 100, horizon: 20}
	if v, reason := h.judge(Head{5, 25, 26, 110, 0}, nil); v != verdictFollow {
		t.Errorf("without a lineage: %s", reason)
	}
	if v, _ := h.judge(Head{5, 25, 26, 109, 0}, nil); v != verdictResync {
		t.Error("a database that went back is followed")
	}
}
