// Package replica copies objects between clusters, or within one, in the words of one dialect: what is read of an object
// by the dialect's API is made again by it. What a cluster of another orchestrator tells and takes in these words is
// translated there, so a copy can do nothing that its maker could not have done by hand.
package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// Side is the API of a cluster. Do's error says that it gave no answer.
type Side struct {
	Cluster string
	Foreign bool // it runs another orchestrator than the dialect's
	Do      func(ctx context.Context, req dialect.Request) (dialect.Response, error)
}

// Options are what a copy may be told.
type Options struct {
	DryRun bool
	// Incomplete says that a copy is made also where it lacks something that it needs.
	Incomplete bool
}

// Report is what came of a copy, or would come of it.
type Report struct {
	From   string   `json:"from"`
	To     string   `json:"to"`
	Made   []string `json:"made,omitempty"`  // objects, in their order; of a dry run those that would be
	There  []string `json:"there,omitempty"` // objects that the copy refers to and that were there before
	Left   []Left   `json:"left,omitempty"`
	Losses []string `json:"losses,omitempty"` // what the target's cluster said of its translation
	DryRun bool     `json:"dryRun,omitempty"`
}

// Left is what did not travel with one of the objects.
type Left struct {
	Object string `json:"object"`
	dialect.Left
}

// IncompleteError is the refusal of a copy that would lack what it needs.
type IncompleteError struct{ Left []Left }

func (e *IncompleteError) Error() string {
	var lines []string
	for _, l := range e.Left {
		lines = append(lines, l.Object+": "+l.Left.String())
	}
	return "the copy would lack what it needs (" + strings.Join(lines, "; ") + "); --incomplete makes it all the same"
}

// Progress is told how a copy goes on.
type Progress struct {
	// Step is what is done next.
	Step func(string)
	// Plan is what would be made and what is left behind, before anything is done.
	Plan func(Report)
}

// Copy makes a copy.
func Copy(ctx context.Context, of dialect.Replicator, from, to Side, source dialect.ObjectRef, place dialect.Place, options Options,
	progress Progress) (Report, error) {
	tell := progress.Step
	c := &copying{replicator: of, from: from, to: to, options: options, tell: tell}
	place.Cluster, place.Foreign, place.Origin = to.Cluster, to.Foreign, from.Foreign
	c.report = Report{From: source.String(), DryRun: options.DryRun}
	tell("reading " + source.String())
	draft, err := of.Replicate(ctx, c.read, source, place)
	if err != nil {
		return c.report, about(source.String(), err)
	}
	c.report.To = draft.Object.String()
	if c.report.To == c.report.From {
		return c.report, fault.New(fault.Invalid, "a copy in the namespace of its source needs another name: %s/%s/NEWNAME", place.Cluster, place.Namespace)
	}
	c.note(draft)
	if there, _, err := c.there(ctx, draft.Get); err != nil {
		return c.report, about(draft.Object.String(), err)
	} else if there {
		return c.report, fault.New(fault.Conflict, "%s is there already: give the copy another name, or remove it first", draft.Object)
	}
	needs, err := c.needs(ctx, &draft)
	if err != nil {
		return c.report, err
	}
	var lacking []Left
	for _, l := range c.report.Left {
		if l.Needed {
			lacking = append(lacking, l)
		}
	}
	plan := c.report
	for _, d := range append(needs, draft) {
		plan.Made = append(plan.Made, d.Object.String())
	}
	progress.Plan(plan)
	if options.DryRun {
		return plan, nil
	}
	if len(lacking) > 0 && !options.Incomplete {
		return c.report, &IncompleteError{lacking}
	}
	return c.report, c.carryOut(ctx, draft, needs)
}

type copying struct {
	replicator dialect.Replicator
	from, to   Side
	options    Options
	tell       func(string)
	report     Report
	made       []dialect.Draft
}

func about(what string, err error) error {
	f := fault.Of(err)
	return fault.Wrap(f.Kind, err, "%s: %s", what, f.Message)
}

func (c *copying) note(draft dialect.Draft) {
	for _, l := range draft.Left {
		c.report.Left = append(c.report.Left, Left{Object: draft.Object.String(), Left: l})
	}
}

// read asks the source's API.
func (c *copying) read(ctx context.Context, req dialect.Request) (dialect.Response, error) {
	return ask(ctx, c.from, req)
}

// ask asks an API, and makes an error of an answer that is one.
func ask(ctx context.Context, side Side, req dialect.Request) (dialect.Response, error) {
	response, err := side.Do(ctx, req)
	if err != nil {
		return response, err
	}
	if response.Status >= http.StatusMultipleChoices {
		return response, Refused(response)
	}
	return response, nil
}

// Refused is what an API said in its own words.
func Refused(response dialect.Response) error {
	var said struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(response.Body, &said); err != nil || said.Message == "" {
		said.Message = fmt.Sprintf("the API answered with status %d", response.Status)
	}
	return fault.New(fault.FromStatus(response.Status), "%s", strings.TrimSpace(said.Message))
}

// there tells whether an object is at the target. Who may not read it there finds out by making it.
func (c *copying) there(ctx context.Context, get dialect.Request) (bool, []byte, error) {
	response, err := ask(ctx, c.to, get)
	switch {
	case err == nil:
		return true, response.Body, nil
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Denied):
		return false, nil, nil
	}
	return false, nil, err
}

// needs are the drafts of what the copy refers to and what is not at its target. A reference to what cannot be made is
// taken out of the copy, where its orchestrator does not let it wait.
func (c *copying) needs(ctx context.Context, draft *dialect.Draft) ([]dialect.Draft, error) {
	var drafts []dialect.Draft
	for _, need := range draft.Needs {
		c.tell("reading " + need.String() + ", which it refers to")
		namespace := draft.Object.Namespace
		if need.Bind != nil || need.Kind == "network" {
			namespace = need.Namespace // these have whole names
		}
		place := dialect.Place{Cluster: c.to.Cluster, Namespace: namespace, Name: need.Name, Foreign: c.to.Foreign, Origin: c.from.Foreign}
		made, err := c.replicator.Replicate(ctx, c.read, need.ObjectRef, place)
		missing := ""
		switch {
		case err == nil:
		case fault.Is(err, fault.NotFound), fault.Is(err, fault.Denied), fault.Is(err, fault.Unsupported):
			missing = fault.Of(err).Message
			made.Object = dialect.ObjectRef{Cluster: c.to.Cluster, Namespace: namespace, Kind: need.Kind, Name: need.Name}
			made.Get = dialect.Request{}
		default:
			return nil, about(need.String(), err)
		}
		if made.Get.Path != "" {
			there, found, err := c.there(ctx, made.Get)
			if err != nil {
				return nil, about(made.Object.String(), err)
			}
			if there {
				c.report.There = append(c.report.There, made.Object.String())
				if need.Bind != nil {
					if err := need.Bind(draft.Body, found); err != nil {
						return nil, about(made.Object.String(), err)
					}
				}
				continue
			}
		}
		lacks := missing != ""
		for i, l := range made.Left {
			lacks = lacks || l.Needed
			made.Left[i].Needed = l.Needed && !need.Optional
		}
		if missing != "" {
			made.Left = append(made.Left, dialect.Left{Field: "all of it", Reason: missing, Needed: !need.Optional})
		}
		c.note(made)
		if lacks {
			if need.Drop != nil {
				need.Drop(draft.Body)
			}
			continue
		}
		if need.Bind != nil {
			made.After = append(made.After, made.Get)
			made.Found = func(answer []byte) error { return need.Bind(draft.Body, answer) }
		}
		drafts = append(drafts, made)
	}
	return drafts, nil
}

// undoing bounds how long what a failed copy made is taken back.
const undoing = 30 * time.Second

// carryOut makes everything, and takes back what it made when a step fails: there is a whole copy or none.
func (c *copying) carryOut(ctx context.Context, draft dialect.Draft, needs []dialect.Draft) error {
	for _, d := range append(needs, draft) {
		if err := c.make(ctx, d); err != nil {
			return errors.Join(about(d.Object.String(), err), c.undo(ctx))
		}
	}
	return nil
}

func (c *copying) make(ctx context.Context, d dialect.Draft) error {
	raw, err := json.Marshal(d.Body)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the draft could not be written")
	}
	d.Create.Body = raw
	c.tell("creating " + d.Object.String())
	response, err := ask(ctx, c.to, d.Create)
	if d.Pull != nil && fault.Is(err, fault.NotFound) && strings.Contains(strings.ToLower(fault.Of(err).Message), "no such image") {
		c.tell("pulling its image")
		if err := pull(ctx, c.to, *d.Pull); err != nil {
			return err
		}
		response, err = ask(ctx, c.to, d.Create)
	}
	if err != nil {
		return err
	}
	c.made = append(c.made, d)
	c.report.Made = append(c.report.Made, d.Object.String())
	c.report.Losses = append(c.report.Losses, told(response)...)
	for _, after := range d.After {
		if after.Method != http.MethodGet {
			c.tell("starting " + d.Object.String())
		}
		answer, err := ask(ctx, c.to, after)
		if err != nil {
			return err
		}
		if d.Found != nil && after.Method == http.MethodGet {
			if err := d.Found(answer.Body); err != nil {
				return err
			}
		}
	}
	return nil
}

// undo takes back what was made, the last first.
func (c *copying) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoing)
	defer cancel()
	var errs []error
	for i := len(c.made) - 1; i >= 0; i-- {
		d := c.made[i]
		c.tell("taking back " + d.Object.String())
		if _, err := ask(ctx, c.to, d.Remove); err != nil && !fault.Is(err, fault.NotFound) {
			errs = append(errs, fault.Wrap(fault.Of(err).Kind, err, "%s was made and could not be taken back: %s", d.Object, fault.Of(err).Message))
		}
	}
	c.made, c.report.Made = nil, nil
	return errors.Join(errs...)
}

// pull fetches an image. Its answer is a stream whose last line may be an error.
func pull(ctx context.Context, side Side, req dialect.Request) error {
	response, err := ask(ctx, side, req)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(response.Body)) {
		var event struct {
			Error string `json:"error"`
		}
		if json.Unmarshal([]byte(line), &event) == nil && event.Error != "" {
			return fault.New(fault.NotFound, "%s", event.Error)
		}
	}
	return nil
}

// told are the warnings of an answer.
func told(response dialect.Response) []string {
	var said struct {
		Warnings []string
	}
	_ = json.Unmarshal(response.Body, &said) // an answer without any is none
	for _, warning := range response.Header.Values("Warning") {
		_, text, ok := strings.Cut(warning, `"`)
		if ok {
			said.Warnings = append(said.Warnings, strings.TrimSuffix(text, `"`))
		}
	}
	return said.Warnings
}
