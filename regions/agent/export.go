package agent

import (
	"context"

	"github.com/shortline/shortline/regions"
)

func (a *Agent) export(ctx context.Context, j *job, me self, fork regions.LSN, u upstream) error {
	return a.note(func(r *rejoin) { r.Saved = true })
}
