package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/shortline/shortline"
)

// NearbyQuery asks for the stores around a place. Zero fields are left to the server's defaults.
type NearbyQuery struct {
	Lat, Lng float64 // WGS 84 degrees
	Radius   string  // metres, or with a unit: "800m", "1km", "2mi"
	Limit    int
	Sort     string // "distance", "wait" or "fastest"
	OpenNow  bool
	MaxWait  *time.Duration // whole seconds; nil: any
	Tags     []string       // a store must have every one
	Brand    string
	Cursor   string // of the answer before
	ReadOptions
}

func (q NearbyQuery) values() url.Values {
	v := url.Values{
		"lat": {strconv.FormatFloat(q.Lat, 'f', -1, 64)},
		"lng": {strconv.FormatFloat(q.Lng, 'f', -1, 64)},
	}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("radius", q.Radius)
	set("sort", q.Sort)
	set("brand", q.Brand)
	set("cursor", q.Cursor)
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.OpenNow {
		v.Set("open_now", "true")
	}
	if q.MaxWait != nil {
		v.Set("max_wait", strconv.FormatInt(int64(*q.MaxWait/time.Second), 10))
	}
	if len(q.Tags) > 0 {
		v["tag"] = q.Tags
	}
	return v
}

// NearbyAnswer is a page of stores in the order asked for.
type NearbyAnswer struct {
	Answer     `json:"-"`
	Stores     []NearbyStore `json:"stores"`
	Region     string        `json:"region"`
	AsOf       time.Time     `json:"as_of"`
	LagS       float64       `json:"lag_s"` // how far the region may be behind the primary
	NextCursor *string       `json:"next_cursor"`
}

// NearbyStore is one store of a NearbyAnswer.
type NearbyStore struct {
	ID        shortline.StoreID  `json:"id"`
	Name      string             `json:"name"`
	Brand     string             `json:"brand,omitempty"`
	Lat       float64            `json:"lat"`
	Lng       float64            `json:"lng"`
	DistanceM float64            `json:"distance_m"`
	Address   *shortline.Address `json:"address,omitempty"`
	Open      *bool              `json:"open"`  // nil: not known
	Queue     *NearbyQueue       `json:"queue"` // nil: never reported, which is not the same as empty
}

// NearbyQueue is the live queue of a NearbyStore.
type NearbyQueue struct {
	Length      int       `json:"length"`
	WaitS       int       `json:"wait_s"`
	WaitHighS   int       `json:"wait_high_s"`
	UsualLength *float64  `json:"usual_length"` // nil until known
	UpdatedAt   time.Time `json:"updated_at"`
	AgeS        float64   `json:"age_s"`
}

// Nearby returns the stores around a place.
func (c *Client) Nearby(ctx context.Context, q NearbyQuery) (*NearbyAnswer, error) {
	out := &NearbyAnswer{}
	var err error
	out.Answer, _, err = c.do(ctx, call{method: http.MethodGet, path: "/v1/nearby", query: q.values(), repeatable: true,
		read: true, consistency: q.Consistency}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// StoreAnswer is one store.
type StoreAnswer struct {
	Answer `json:"-"`
	shortline.Store
}

// Created tells after PutStore that the store is new.
func (a *StoreAnswer) Created() bool { return a.Status == http.StatusCreated }

// Store returns one store. An unknown id is shortline.ErrNotFound.
func (c *Client) Store(ctx context.Context, id shortline.StoreID, o ReadOptions) (*StoreAnswer, error) {
	path, err := storePath(id, "")
	if err != nil {
		return nil, err
	}
	out := &StoreAnswer{}
	out.Answer, _, err = c.do(ctx, call{method: http.MethodGet, path: path, repeatable: true, read: true, consistency: o.Consistency}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// PutStore creates the store or replaces the whole of it, and returns what is stored now.
func (c *Client) PutStore(ctx context.Context, s shortline.Store) (*StoreAnswer, error) {
	path, err := storePath(s.ID, "")
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", s.ID, err)
	}
	out := &StoreAnswer{}
	out.Answer, _, err = c.do(ctx, call{method: http.MethodPut, path: path, body: body, contentType: "application/json", repeatable: true}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteStore removes the store and its queue. An unknown id is shortline.ErrNotFound, unless the call had to be sent
// again: then it was most likely deleted by the first time, and DeleteStore returns nil.
func (c *Client) DeleteStore(ctx context.Context, id shortline.StoreID) error {
	path, err := storePath(id, "")
	if err != nil {
		return err
	}
	ans, attempts, err := c.do(ctx, call{method: http.MethodDelete, path: path, repeatable: true}, nil)
	if err != nil && ans.Status == http.StatusNotFound && attempts > 1 {
		return nil
	}
	return err
}

// storePath refuses ids that would lead to another path.
func storePath(id shortline.StoreID, rest string) (string, error) {
	if _, err := shortline.ParseStoreID(string(id)); err != nil {
		return "", err
	}
	return "/v1/stores/" + string(id) + rest, nil
}

// ImportFormat is the media type of an import.
type ImportFormat string

// The formats.
const (
	NDJSON  ImportFormat = "application/x-ndjson"
	CSV     ImportFormat = "text/csv"
	GeoJSON ImportFormat = "application/geo+json"
)

// ImportAnswer tells what became of the rows.
type ImportAnswer struct {
	Answer    `json:"-"`
	Imported  int           `json:"imported"`
	Created   int           `json:"created"`
	Updated   int           `json:"updated"`
	Unchanged int           `json:"unchanged"`
	Rejected  int           `json:"rejected"`
	Errors    []RejectedRow `json:"errors"`
	// ErrorsTruncated: not every rejected row is in Errors.
	ErrorsTruncated bool `json:"errors_truncated"`
}

// RejectedRow is a row that was skipped.
type RejectedRow struct {
	Line   int                    `json:"line"` // of the body, counted from 1
	ID     string                 `json:"id,omitempty"`
	Errors []shortline.FieldError `json:"errors"`
}

// Import streams stores from body to the server, which commits them as they come, 1,000 at a time. It is sent once;
// after an error some of the rows may be in, and importing the same again is safe: what is there counts as unchanged.
// It is given up when for Config.Timeout the server neither takes more nor answers; a slow body may take its time.
func (c *Client) Import(ctx context.Context, format ImportFormat, body io.Reader) (*ImportAnswer, error) {
	return c.importCall(ctx, call{stream: body, contentType: string(format)})
}

// ImportBytes imports a piece that is held in memory, and sends it again like any other safe call. A row that was
// written by an attempt whose answer was lost counts as unchanged. The body must not be changed afterwards.
func (c *Client) ImportBytes(ctx context.Context, format ImportFormat, body []byte) (*ImportAnswer, error) {
	return c.importCall(ctx, call{body: body, contentType: string(format), repeatable: true})
}

func (c *Client) importCall(ctx context.Context, cl call) (*ImportAnswer, error) {
	cl.method, cl.path = http.MethodPost, "/v1/stores:import"
	out := &ImportAnswer{}
	var err error
	out.Answer, _, err = c.do(ctx, cl, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Healthy returns nil when the server can serve reads.
func (c *Client) Healthy(ctx context.Context) error {
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: "/healthz", repeatable: true}, nil)
	return err
}
