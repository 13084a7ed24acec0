package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// adminHeader must be on every admin request that changes something: a browser cannot be made to send it from another
// page without asking first.
const adminHeader = "X-Isthmus-Admin"

// ask makes one admin request; out nil discards the answer.
func ask(ctx context.Context, address, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("write the admin request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	resp, err := adminAnswer(ctx, address, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, adminBody))
	if err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	return nil
}

// adminBody bounds an answer of the admin interface, in bytes.
const adminBody = 64 << 20

// adminAnswer is the answer to one admin request that is no refusal.
func adminAnswer(ctx context.Context, address, method, path string, body io.Reader) (*http.Response, error) {
	address = strings.TrimPrefix(address, "http://")
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, body)
	if err != nil {
		return nil, fmt.Errorf("admin address %q: %w", address, err)
	}
	req.Header.Set(adminHeader, "1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the gateway at %s does not answer (is it running, is --admin right?): %w", address, errors.Unwrap(err))
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, adminBody))
	if err != nil {
		return nil, fmt.Errorf("read the gateway's answer: %w", err)
	}
	var refusal struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &refusal) == nil && refusal.Message != "" {
		return nil, errors.New(refusal.Message)
	}
	return nil, fmt.Errorf("the gateway answered %s", resp.Status)
}
