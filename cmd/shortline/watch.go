package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
)

// noLive tells that the service has no live stream, or that something on the way to it does not let one through.
func noLive(err error) bool {
	var p *client.Problem
	return errors.As(err, &p) && (p.Status == http.StatusNotFound || p.Status == http.StatusUpgradeRequired || p.Status == http.StatusNotImplemented)
}

// explainWatch is the error of a watch; the end of its context is none.
func explainWatch(to *target, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, to.explain(err))
}

// follow prints queues as the service sends them, until ctx ends. A store that does not exist, or no service at first, is an
// error; later the watch goes on, and says so once.
func (w *watch) follow(ctx context.Context) error {
	last := map[shortline.StoreID]client.Queue{}
	live, err := w.client.NewLive(client.LiveConfig{Stores: w.ids, On: func(e client.LiveEvent) error {
		switch e.Kind {
		case client.LiveLost:
			if !w.seen {
				return e.Err
			}
			w.lost = true
			_, _ = fmt.Fprintf(w.stderr, "%v; trying on\n", e.Err)
		case client.LiveSnapshot:
			if len(e.Missing) > 0 && !w.seen {
				return fmt.Errorf("%s: there is no such store", e.Missing[0])
			}
			if w.lost {
				_, _ = fmt.Fprintf(w.stderr, "connected to %s\n", e.Server)
			}
			w.seen, w.lost = true, false
			for _, s := range e.Stores {
				if err := w.show(last, s.Queue); err != nil {
					return err
				}
			}
		case client.LiveChanged:
			return w.show(last, e.Queue)
		case client.LiveRemoved:
			delete(last, e.ID)
			_, _ = fmt.Fprintf(w.stderr, "%s: the store is gone\n", e.ID)
		}
		return nil
	}})
	if err != nil {
		return err
	}
	return live.Run(ctx)
}

// show prints a queue unless it is as it was.
func (w *watch) show(last map[shortline.StoreID]client.Queue, q client.Queue) error {
	same := q
	same.AgeS = 0 // it changes all the time
	if before, ok := last[q.ID]; ok && before == same {
		return nil
	}
	last[q.ID] = same
	var err error
	if w.asJSON {
		err = printQueueJSON(w.stdout, q)
	} else {
		_, err = fmt.Fprintln(w.stdout, queueLine(q))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	return nil
}

// nearbyWatch prints the nearest stores of a place, and what changes there.
type nearbyWatch struct {
	app    *app
	client *client.Client
	query  client.NearbyQuery
	asJSON bool
	names  map[shortline.StoreID]string
	seen   bool
}

func (w *nearbyWatch) follow(ctx context.Context) error {
	area := &client.LiveArea{Lat: w.query.Lat, Lng: w.query.Lng, Radius: w.query.Radius, Limit: w.query.Limit}
	live, err := w.client.NewLive(client.LiveConfig{Area: area, On: func(e client.LiveEvent) error {
		switch e.Kind {
		case client.LiveLost:
			if !w.seen {
				return e.Err
			}
			_, _ = fmt.Fprintf(w.app.stderr, "%v; trying on\n", e.Err)
		case client.LiveSnapshot:
			w.seen = true
			return w.table(ctx)
		case client.LiveChanged:
			if w.asJSON {
				return printQueueJSON(w.app.stdout, e.Queue)
			}
			line := queueLine(e.Queue)
			if name := w.names[e.ID]; name != "" {
				line = printable(name) + ", " + line
			}
			_, err := fmt.Fprintln(w.app.stdout, line)
			return err
		}
		return nil
	}})
	if err != nil {
		return err
	}
	return live.Run(ctx)
}

// table asks for the stores with their names and addresses, which the stream does not carry.
func (w *nearbyWatch) table(ctx context.Context) error {
	answer, err := w.client.Nearby(ctx, w.query)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	w.names = map[shortline.StoreID]string{}
	for _, s := range answer.Stores {
		w.names[s.ID] = s.Name
	}
	if w.asJSON {
		return printCompact(w.app.stdout, answer.Raw)
	}
	return printNearby(w.app, answer)
}

// printQueueJSON writes a queue in one line as the API has it.
func printQueueJSON(w io.Writer, q client.Queue) error {
	var v any = q
	if !q.Reported() {
		v = struct {
			ID        shortline.StoreID `json:"id"`
			Length    *int              `json:"length"`
			WaitS     *int              `json:"wait_s"`
			WaitHighS *int              `json:"wait_high_s"`
			UpdatedAt *string           `json:"updated_at"`
			AgeS      *float64          `json:"age_s"`
		}{ID: q.ID}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return printRaw(w, text)
}

// printCompact writes JSON in one line.
func printCompact(w io.Writer, raw []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		return err
	}
	return printRaw(w, line.Bytes())
}
