package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

// Operator carries out the verbs of people who run the regions, wherever the control plane is led from. A *regions.RefusedError
// says that a rule speaks against it, regions.RuleNoLeader that nobody leads. With any other error a verb may have been done.
type Operator interface {
	Cluster(ctx context.Context) (regions.Cluster, error)
	Explain(ctx context.Context, region regions.ID) (regions.Explanation, error)
	// History is what happened, oldest first.
	History(ctx context.Context) ([]regions.Entry, error)
	// Do refuses by its Outcome: not accepted, with the rules that speak against it.
	Do(ctx context.Context, v regions.Verb) (regions.Outcome, error)
}

// operateLimit bounds a verb: it begins something and does not wait for its end.
const operateLimit = 10 * time.Second

// VerbBody is what every verb takes.
type VerbBody struct {
	Reason  string         `json:"reason,omitempty" maxLength:"500" doc:"Why, for the history"`
	DryRun  bool           `json:"dry_run,omitempty" doc:"Say what would happen and change nothing"`
	Force   []regions.Rule `json:"force,omitempty" maxItems:"20" doc:"Rules to override, by name"`
	Confirm string         `json:"confirm,omitempty" maxLength:"32" doc:"The region's name, for whatever is forced"`
}

// SwitchoverBody asks for a planned change of the primary.
type SwitchoverBody struct {
	To regions.ID `json:"to" minLength:"1" maxLength:"32" doc:"The region that is to become primary"`
	VerbBody
}

// FailoverBody asks for a change of the primary without the old one.
type FailoverBody struct {
	To            regions.ID `json:"to" minLength:"1" maxLength:"32" doc:"The region that is to become primary; of the standbys the one with the most wins"`
	AllowDataLoss bool       `json:"allow_data_loss,omitempty" doc:"Also where acknowledged writes could be lost; needs confirm"`
	VerbBody
}

// HistoryAnswer lists what happened, newest first.
type HistoryAnswer struct {
	History []regions.Entry `json:"history"`
}

// operateRoutes are the calls of operators.
func (s *Server) operateRoutes(guard echo.MiddlewareFunc) []route {
	problems := []problemKind{kindMalformed, kindInvalid, kindTooLarge, kindMedia, kindRefused, kindNoLeader, kindUnknown}
	region := &huma.Param{Name: "region", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}, Description: "A region's name"}
	verb := func(path string, name regions.VerbName, summary, description string, body any, params ...*huma.Param) route {
		in := jsonBody(body)
		_, optional := body.(VerbBody)
		in.Required = !optional
		return route{http.MethodPost, path, guard(s.verb(name)), operation{id: string(name), tag: "Regions", summary: summary, description: description,
			params: params, body: in, scope: shortline.ScopeAdmin, answer: regions.Outcome{}, problems: problems}}
	}
	read := []problemKind{kindMalformed, kindNoLeader}
	return []route{
		{http.MethodGet, "/admin/v1/cluster", guard(s.cluster), operation{id: "cluster", tag: "Regions", summary: "All regions as the control plane has them",
			description: "Who is primary, who confirms writes, what each database says, what is under way, and what would happen if the primary region failed now.",
			scope:       shortline.ScopeAdmin, answer: regions.Cluster{}, problems: read}},
		{http.MethodGet, "/admin/v1/regions/:region/explain", guard(s.explain), operation{id: "explainRegion", tag: "Regions", summary: "Why a region can or cannot be primary now",
			params: []*huma.Param{region}, scope: shortline.ScopeAdmin, answer: regions.Explanation{}, problems: append(read, kindNotFound)}},
		{http.MethodGet, "/admin/v1/history", guard(s.history), operation{id: "regionHistory", tag: "Regions", summary: "What happened to the regions, newest first",
			scope: shortline.ScopeAdmin, answer: HistoryAnswer{}, problems: read}},
		verb("/admin/v1/regions/:region/drain", regions.VerbDrain, "Take a region out of service", "Its clients are sent elsewhere, it stops confirming writes, and then it is drained.", VerbBody{}, region),
		verb("/admin/v1/regions/:region/undrain", regions.VerbUndrain, "Put a region back into service", "Also lets a region become primary again that came back from a failure.", VerbBody{}, region),
		verb("/admin/v1/switchover", regions.VerbSwitchover, "Move the primary to another region, without loss", "Answers once it has begun; its end is in the history.", SwitchoverBody{}),
		verb("/admin/v1/failover", regions.VerbFailover, "Make another region primary while the old one is gone", "Answers once it has begun; its end is in the history.", FailoverBody{}),
		verb("/admin/v1/pause", regions.VerbPause, "Let no failover happen by itself", "", VerbBody{}),
		verb("/admin/v1/resume", regions.VerbResume, "Let failovers happen by themselves again", "", VerbBody{}),
		verb("/admin/v1/ack", regions.VerbAck, "Acknowledge the last automatic failover, so that another may come", "", VerbBody{}),
	}
}

// verb answers one of the verbs.
func (s *Server) verb(name regions.VerbName) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := noParameters(c.Request().URL.RawQuery); err != nil {
			return err
		}
		v, err := s.readVerb(c, name)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Request().Context(), operateLimit)
		defer cancel()
		out, err := s.operator.Do(ctx, v)
		var rule *regions.RefusedError
		switch {
		case errors.As(err, &rule):
			return err
		case err != nil:
			return &apiError{kind: kindUnknown, detail: "the verb may or may not have been carried out; look at the history: " + err.Error(), cause: err}
		case !out.Accepted && !v.DryRun:
			return refused(out.Blockers...)
		}
		return s.answer(c, http.StatusOK, "", out)
	}
}

// readVerb reads a verb's body, which may be missing where nothing has to be said.
func (s *Server) readVerb(c echo.Context, name regions.VerbName) (regions.Verb, error) {
	var to *SwitchoverBody
	var over *FailoverBody
	var into any
	plain := &VerbBody{}
	switch name {
	case regions.VerbSwitchover:
		to = &SwitchoverBody{}
		plain, into = &to.VerbBody, to
	case regions.VerbFailover:
		over = &FailoverBody{}
		plain, into = &over.VerbBody, over
	default:
		into = plain
	}
	if c.Request().ContentLength != 0 {
		body, err := readBody(c, 64<<10)
		if err != nil {
			return regions.Verb{}, err
		}
		if err := decode(body, into); err != nil {
			return regions.Verb{}, err
		}
	}
	v := regions.Verb{Verb: name, Region: regions.ID(pathParam(c, "region")), By: s.whoAsks(c), Reason: strings.TrimSpace(plain.Reason), DryRun: plain.DryRun, Force: plain.Force, Confirm: plain.Confirm}
	switch {
	case to != nil:
		v.To = to.To
	case over != nil:
		v.To, v.AllowDataLoss = over.To, over.AllowDataLoss
	}
	switch {
	case len(v.Reason) > 500:
		return v, invalid("reason", "is longer than 500 characters")
	case len(v.Force) > 20:
		return v, invalid("force", "names more than 20 rules")
	case (to != nil || over != nil) && v.To == "":
		return v, invalid("to", "is missing; name the region that is to become primary")
	}
	return v, nil
}

// whoAsks is for the history.
func (s *Server) whoAsks(c echo.Context) string {
	if key, err := s.bearer(c.Request()); err == nil && key != nil {
		return fmt.Sprintf("%s (key %s)", key.Name, key.ID)
	}
	return "operator at the admin port of a node in " + s.cfg.Region
}

// refused is the 409 for rules.
func refused(blockers ...*regions.RefusedError) *apiError {
	var text []string
	for _, b := range blockers {
		text = append(text, b.Error())
	}
	return &apiError{kind: kindRefused, detail: strings.Join(text, "; "), blockers: blockers}
}

func (s *Server) cluster(c echo.Context) error {
	return operated(s, c, func(ctx context.Context) (regions.Cluster, error) { return s.operator.Cluster(ctx) })
}

func (s *Server) explain(c echo.Context) error {
	id := regions.ID(pathParam(c, "region"))
	return operated(s, c, func(ctx context.Context) (regions.Explanation, error) {
		e, err := s.operator.Explain(ctx, id)
		if err == nil && len(e.Drain) > 0 && e.Drain[0].Rule == regions.RuleUnknownRegion && !e.Drain[0].OK {
			err = fmt.Errorf("region %s: %w", clip(string(id)), shortline.ErrNotFound)
		}
		return e, err
	})
}

func (s *Server) history(c echo.Context) error {
	return operated(s, c, func(ctx context.Context) (HistoryAnswer, error) {
		entries, err := s.operator.History(ctx)
		out := HistoryAnswer{History: make([]regions.Entry, 0, len(entries))}
		for i := len(entries) - 1; i >= 0; i-- {
			out.History = append(out.History, entries[i])
		}
		return out, err
	})
}

// operated answers a question to the operator's side.
func operated[T any](s *Server, c echo.Context, ask func(context.Context) (T, error)) error {
	if err := noParameters(c.Request().URL.RawQuery); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), operateLimit)
	defer cancel()
	out, err := ask(ctx)
	if err != nil {
		return err
	}
	return s.answer(c, http.StatusOK, "", out)
}

// alone is the Operator of a deployment of one region, which is primary for good.
type alone struct {
	region regions.ID
	now    func() time.Time
}

func (a alone) situation() regions.Situation {
	return regions.Situation{State: regions.Single(string(a.region), a.region, geo.Point{}, 1, a.now().UTC()), Led: 1}
}

func (a alone) Cluster(context.Context) (regions.Cluster, error) {
	c := a.situation().Cluster(regions.Policy{}, "", a.now().UTC())
	c.Risk, c.LeaseS = nil, nil
	return c, nil
}

func (a alone) Explain(_ context.Context, id regions.ID) (regions.Explanation, error) {
	return a.situation().Explain(id, regions.Policy{}, regions.Room{}), nil
}

func (a alone) History(context.Context) ([]regions.Entry, error) { return nil, nil }

func (a alone) Do(_ context.Context, v regions.Verb) (regions.Outcome, error) {
	s := a.situation()
	out := regions.Outcome{Verb: v.Verb, Region: v.Names(), DryRun: v.DryRun, Plan: s.Plan(v, regions.Policy{}, regions.Room{}),
		Blockers: s.VerbBlockers(v, regions.Policy{}, regions.Room{})}
	if len(out.Blockers) == 0 {
		out.Blockers = []*regions.RefusedError{{Rule: regions.RuleSingleRegion, Detail: "there is no control plane: " + string(a.region) + " is the only region"}}
	}
	return out, nil
}
