package edge_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/content"
	invalid "github.com/pb33f/libopenapi-validator/errors"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

// apiDocument is the service's OpenAPI document as a third party reads it.
type apiDocument struct {
	model *v3.Document
	mu    sync.Mutex // held while check works, which is for one goroutine at a time
	check validator.Validator
	valid func() (bool, []*invalid.ValidationError) // whether it is valid OpenAPI
}

var (
	documentsMu sync.Mutex
	documents   = map[string]*apiDocument{} // guarded by documentsMu; by text
)

// readDocument takes the document that the node serves. Nodes of one kind share one, because compiling its schemas is slow.
func readDocument(t testing.TB, n *testNode) *apiDocument {
	t.Helper()
	text := n.with(t, n.plain, http.MethodGet, "/openapi.json", "").want(t, http.StatusOK).body
	documentsMu.Lock()
	defer documentsMu.Unlock()
	if d := documents[string(text)]; d != nil {
		return d
	}
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatalf("read the document: %v", err)
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		t.Fatalf("understand the document: %v", err)
	}
	check, errs := validator.NewValidator(doc, config.WithFormatAssertions(), config.WithStrictMode(),
		config.WithStrictIgnoredHeadersExtra("Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "X-Content-Type-Options", "Strict-Transport-Security", "RateLimit", "RateLimit-Policy"),
		config.WithBodyDecoder("application/x-ndjson", asText), // it takes them for JSON
		config.WithStrictIgnorePaths("$.body.type", "$.body.features", // of GeoJSON, which may have any member
			"$.body.regions[*].database.standbys.*")) // a map by region
	if len(errs) > 0 {
		t.Fatalf("compile the document: %v", errs)
	}
	d := &apiDocument{model: &model.Model, check: check, valid: check.ValidateDocument}
	documents[string(text)] = d
	return d
}

// operation finds what the document says of a call; nil where it says nothing.
func (d *apiDocument) operation(method, path string) *v3.Operation {
	for pair := d.model.Paths.PathItems.First(); pair != nil; pair = pair.Next() {
		if matchPath(pair.Key(), path) {
			if op, ok := pair.Value().GetOperations().Get(strings.ToLower(method)); ok {
				return op
			}
		}
	}
	return nil
}

func matchPath(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(w, g string) bool { return w == g || strings.HasPrefix(w, "{") && g != "" })
}

// checkedTransport holds every exchange with the public port against the document: every answer, and every request that
// the service took for a good one.
type checkedTransport struct {
	t    testing.TB
	node *testNode
	next http.RoundTripper
	once sync.Once
	doc  *apiDocument
}

// lenient is the key of a context whose request is not held against the document, though the service takes it.
type lenient struct{}

// lenientRequest stands among the headers of a request that the document does not allow, but the service lets pass.
const lenientRequest = "lenient"

func (c *checkedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(c.node.api, "http://"+req.URL.Host) {
		return c.next.RoundTrip(req)
	}
	c.once.Do(func() { c.doc = readDocument(c.t, c.node) })
	var sent []byte
	if req.Body != nil {
		var err error
		if sent, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(sent))
	}
	res, err := c.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(got))
	for _, fault := range c.doc.faults(req, sent, res, got) {
		c.t.Errorf("%s %s answered %d, against the document: %s\n\tsent %.300s\n\tgot %.600s", req.Method, req.URL.RequestURI(), res.StatusCode, fault, sent, got)
	}
	return res, nil
}

// faults tells in what an exchange differs from the document.
func (d *apiDocument) faults(req *http.Request, sent []byte, res *http.Response, got []byte) []string {
	method := req.Method
	if method == http.MethodHead { // the document says it once, for GET
		method, got = http.MethodGet, nil
	}
	op := d.operation(method, req.URL.Path)
	if op == nil || req.Method == http.MethodHead {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	shadow := func(body []byte) *http.Request {
		r := req.Clone(context.WithoutCancel(req.Context()))
		r.Method, r.Body = method, io.NopCloser(bytes.NewReader(body))
		return r
	}
	answer := *res
	answer.Header = res.Header.Clone()
	answer.Body = io.NopCloser(bytes.NewReader(got))
	if res.Header.Get("Content-Encoding") == "" {
		if ok, errs := d.check.ValidateHttpResponse(shadow(sent), &answer); !ok {
			all = append(all, explain("answer", errs)...)
		}
	}
	if res.StatusCode < 400 && req.Context().Value(lenient{}) == nil {
		if ok, errs := d.check.ValidateHttpRequestSync(shadow(sent)); !ok {
			all = append(all, explain("request", errs)...)
		}
	}
	declared := op.Responses.Codes.GetOrZero(fmt.Sprint(res.StatusCode))
	if declared == nil {
		return append(all, fmt.Sprintf("the status %d is not in it", res.StatusCode))
	}
	for name := range res.Header { // our own headers are promised
		if declared.Headers == nil || declared.Headers.GetOrZero(name) == nil {
			if strings.HasPrefix(name, "Shortline-") && res.StatusCode < 400 || name == "X-Request-Id" || name == "Shortline-Region" {
				all = append(all, "the header "+name+" is not in it")
			}
		}
	}
	if len(got) > 0 && declared.Content.GetOrZero(res.Header.Get("Content-Type")) == nil {
		all = append(all, fmt.Sprintf("the type %s is not in it", res.Header.Get("Content-Type")))
	}
	return all
}

func explain(what string, errs []*invalid.ValidationError) []string {
	var all []string
	for _, e := range errs {
		text := what + ": " + e.Message + ": " + e.Reason
		for _, s := range e.SchemaValidationErrors {
			text += fmt.Sprintf("; %s at %s", s.Reason, s.KeywordLocation)
		}
		all = append(all, text)
	}
	return all
}

// asText is the decoder of bodies that the document describes as text.
var asText = content.DecoderFunc(func(in *content.DecodeInput) (any, error) {
	text, err := io.ReadAll(in.Body)
	return string(text), err
})
