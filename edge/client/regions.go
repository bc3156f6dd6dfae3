package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/shortline/shortline"
)

// RouteAnswer tells which regions a client should use, in order.
type RouteAnswer struct {
	Answer  `json:"-"`
	Regions []struct {
		Name      string  `json:"name"`
		DistanceM float64 `json:"distance_m"`
		Health    string  `json:"health"`
		State     string  `json:"state"`
		URL       string  `json:"url"`
		Use       bool    `json:"use"`
		Why       string  `json:"why"`
	} `json:"regions"`
	Client struct {
		Lat    float64 `json:"lat"`
		Lng    float64 `json:"lng"`
		Source string  `json:"source"` // what the place was taken from: query, header, geoip or region
		Header string  `json:"header,omitempty"`
		Addr   string  `json:"addr,omitempty"`
	} `json:"client"`
	Explanation string `json:"explanation"`
	Region      string `json:"region"`
}

// RegionsAnswer is every region as one node sees it.
type RegionsAnswer struct {
	Answer  `json:"-"`
	Regions []RegionInfo `json:"regions"`
	Primary *string      `json:"primary"` // nil while there is none
	Epoch   uint64       `json:"epoch"`
	Region  string       `json:"region"` // that answered
}

// RegionInfo is one region.
type RegionInfo struct {
	Name   string       `json:"name"`
	Role   string       `json:"role"`
	State  string       `json:"state"`
	Health string       `json:"health"`
	Lat    float64      `json:"lat"`
	Lng    float64      `json:"lng"`
	URL    string       `json:"url"`
	LagS   float64      `json:"lag_s"`
	RTTMS  *float64     `json:"rtt_ms"`
	Nodes  []RegionNode `json:"nodes"`
}

// RegionNode is one node of a region.
type RegionNode struct {
	Name    string   `json:"name"`
	Health  string   `json:"health"`
	URL     string   `json:"url"`
	Addrs   []string `json:"addrs"`
	Version string   `json:"version"`
}

// ExplainRoute asks, as an operator, where a client would be sent: by its address where addr is not empty, else by its
// place.
func (c *Client) ExplainRoute(ctx context.Context, addr string, lat, lng float64) (*RouteAnswer, error) {
	q := url.Values{}
	if addr != "" {
		q.Set("addr", addr)
	} else {
		if err := shortline.CheckCoordinates("lat", lat, "lng", lng); err != nil {
			return nil, err
		}
		q.Set("lat", strconv.FormatFloat(lat, 'g', -1, 64))
		q.Set("lng", strconv.FormatFloat(lng, 'g', -1, 64))
	}
	out := &RouteAnswer{}
	var err error
	out.Answer, _, err = c.do(ctx, call{admin: true, method: http.MethodGet, path: "/admin/v1/route", query: q, repeatable: true}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Regions asks for every region.
func (c *Client) Regions(ctx context.Context) (*RegionsAnswer, error) {
	out := &RegionsAnswer{}
	var err error
	out.Answer, _, err = c.do(ctx, call{method: http.MethodGet, path: "/v1/regions", repeatable: true}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}
