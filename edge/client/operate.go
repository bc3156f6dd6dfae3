package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// AdminGet reads what is at a path below /admin/v1/ into into.
func (c *Client) AdminGet(ctx context.Context, path string, into any) (Answer, error) {
	answer, _, err := c.do(ctx, call{admin: true, method: http.MethodGet, path: "/admin/v1/" + path, repeatable: true}, into)
	return answer, err
}

// AdminPost sends an operator's verb to a path below /admin/v1/. It is sent once: where no answer comes, it may have been
// carried out. What a rule refuses is a *Problem with that Rule.
func (c *Client) AdminPost(ctx context.Context, path string, body, into any) (Answer, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", path, err)
	}
	answer, _, err := c.do(ctx, call{admin: true, method: http.MethodPost, path: "/admin/v1/" + path, body: text, contentType: "application/json"}, into)
	return answer, err
}
