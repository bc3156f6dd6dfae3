package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"
)

const maxJSONBody = 1 << 20

// readBody reads a JSON body of at most limit bytes.
func readBody(c echo.Context, limit int64) ([]byte, error) {
	r := c.Request()
	if err := notCompressed(r); err != nil {
		return nil, err
	}
	if kind := mediaType(r); kind != "" && kind != "application/json" {
		return nil, &apiError{kind: kindMedia, detail: fmt.Sprintf("the body is %q; send application/json", clip(kind))}
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, err
	case err != nil:
		return nil, &apiError{kind: kindMalformed, detail: "the body ended before its time", cause: err}
	case len(bytes.TrimSpace(body)) == 0:
		return nil, malformed("body", "is empty; a JSON object is required")
	case !utf8.Valid(body):
		return nil, malformed("body", "is not valid UTF-8")
	}
	return body, nil
}

// notCompressed refuses bodies that would have to be unpacked, for nobody knows into how much.
func notCompressed(r *http.Request) error {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return &apiError{kind: kindMedia, detail: fmt.Sprintf("the body is compressed (%s); send it as it is", clip(coding))}
	}
	return nil
}

// decode reads one JSON object and nothing else into v, naming what is unknown or of the wrong type.
func decode(body []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil && dec.InputOffset() < int64(len(bytes.TrimRight(body, " \t\r\n"))) {
		return malformed("body", "has more after the JSON object, at byte %d", dec.InputOffset())
	}
	return jsonProblem(err)
}

// jsonProblem puts an error of encoding/json into words that name the field: 422 for a value of the wrong type, 400 for
// what is not JSON or not known here.
func jsonProblem(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return malformed("body", "is not JSON, at byte %d: %v", syntax.Offset, syntax)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return malformed("body", "is not JSON: it ends too early")
	case errors.As(err, &kind):
		field := strings.ReplaceAll(kind.Field, "QueueBody.", "") // the name of what is embedded means nothing to a client
		if field == "" {
			field = "body"
		}
		return invalid(field, "is a JSON %s; %s is required", kind.Value, jsonKind(kind.Type.String()))
	}
	if problem := unknownField(err); problem != nil {
		return problem
	}
	return malformed("body", "cannot be read: %v", err)
}

// unknownField is the refusal of a member that encoding/json did not know, or nil; it has no error type for that.
func unknownField(err error) error {
	_, name, ok := strings.Cut(err.Error(), `unknown field "`)
	if !ok {
		return nil
	}
	return malformed(clip(strings.TrimSuffix(name, `"`)), "is not a field of this call")
}

func jsonKind(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "an array"
	case strings.Contains(goType, "int"):
		return "a whole number"
	case strings.Contains(goType, "float"):
		return "a number"
	case goType == "bool":
		return "true or false"
	case strings.HasSuffix(goType, "string"), strings.HasSuffix(goType, "StoreID"), strings.HasSuffix(goType, "Scope"):
		return "a string"
	}
	return "an object"
}

// answer writes v as JSON with the token, if there is one.
func (s *Server) answer(c echo.Context, status int, token string, v any) error {
	h := c.Response().Header()
	if token != "" {
		h.Set(headerToken, token)
	}
	if h.Get("Cache-Control") == "" {
		h["Cache-Control"] = noStoreHeader
	}
	h["Content-Type"] = jsonHeader
	c.Response().WriteHeader(status)
	if c.Request().Method == http.MethodHead {
		return nil
	}
	if text, ok := v.(jsonText); ok {
		_, err := c.Response().Write(append(text.appendTo(nil), '\n'))
		return err
	}
	return json.NewEncoder(c.Response()).Encode(v)
}
