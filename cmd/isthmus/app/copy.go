package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
)

func copyCommand() *cobra.Command {
	var wish CopyWish
	var output string
	c := &cobra.Command{
		Use:   "copy SOURCE TARGET",
		Short: "Make a container or workload again, in another cluster or the same one",
		Long: "Reads an object of one cluster and makes it again in another, or in the same one: images by their digests where\n" +
			"the source's cluster knows them, environment, mounts, networks, limits, health checks, restart policies and labels.\n" +
			"Configs, secrets, networks and claims that it refers to are copied too, unless the target has them already.\n\n" +
			"SOURCE is <cluster>/<namespace>/<kind>/<name>, TARGET is <cluster>/<namespace> or <cluster>/<namespace>/<name>.\n" +
			"Each cluster is the one of the gateway that is asked, or one of its peers, whose policy decides: it must let this\n" +
			"cluster get the source, or create the copy. On a docker gateway the kinds are container, service, config, secret\n" +
			"and network; on a kubernetes gateway pod, deployment, daemonset, statefulset, job, cronjob, service, configmap,\n" +
			"secret and persistentvolumeclaim. Words of the other orchestrator mean the nearest kind.\n\n" +
			"What cannot travel is listed before anything is done: data in volumes, values that policy hides or docker does not\n" +
			"tell, addresses, ports of nodes, paths of hosts. A copy that would lack what it needs is refused; --incomplete\n" +
			"makes it all the same. When a step fails, what was made is taken back.",
		Example: "  isthmus copy west/shop/deployment/web east/shop\n  isthmus copy west/default/container/db east/default/db-2 --dry-run",
		Args:    cobra.ExactArgs(2),
	}
	admin := adminFlag(c)
	c.Flags().BoolVar(&wish.DryRun, "dry-run", false, "list what would be made and what cannot travel, and do nothing")
	c.Flags().BoolVar(&wish.Incomplete, "incomplete", false, "make the copy also where it lacks something that it needs")
	c.Flags().StringVar(&output, "output", "text", "text or json")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(output); err != nil {
			return err
		}
		wish.From, wish.To = args[0], args[1]
		progress := cmd.ErrOrStderr()
		return askCopy(cmd.Context(), *admin, wish, func(e CopyEvent) error {
			switch {
			case e.Step != "":
				fmt.Fprintln(progress, printable(e.Step))
			case output == "json" && e.Done != nil:
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetEscapeHTML(false)
				encoder.SetIndent("", "  ")
				return encoder.Encode(e.Done)
			case e.Plan != nil && output == "text":
				printCopyPlan(cmd.OutOrStdout(), *e.Plan)
			case e.Done != nil && output == "text":
				printCopyEnd(cmd.OutOrStdout(), *e.Done)
			case e.Failed != "":
				return errors.New(printable(e.Failed))
			}
			return nil
		})
	}
	return c
}

// printable quotes what is not printable: a peer's words are not to move the cursor of a terminal.
func printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return text
	}
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func printCopyPlan(w io.Writer, plan replica.Report) {
	for _, l := range plan.Left {
		word := "left"
		if l.Needed {
			word = "needed"
		}
		fmt.Fprintf(w, "%-8s %s %s\n", word, printable(l.Object), printable(l.Left.String()))
	}
	for _, there := range plan.There {
		fmt.Fprintf(w, "%-8s %s is there already, and used as it is\n", "there", printable(there))
	}
}

func printCopyEnd(w io.Writer, done replica.Report) {
	word := "created"
	if done.DryRun {
		word = "create"
	}
	for _, made := range done.Made {
		fmt.Fprintf(w, "%-8s %s\n", word, printable(made))
	}
	for _, loss := range done.Losses {
		fmt.Fprintf(w, "%-8s %s\n", "loss", printable(loss))
	}
	if done.DryRun {
		fmt.Fprintln(w, "nothing was done")
	}
}

// askCopy asks the gateway for a copy, and hands on what it tells. A copy takes as long as it takes.
func askCopy(ctx context.Context, address string, wish CopyWish, tell func(CopyEvent) error) error {
	body, err := json.Marshal(wish)
	if err != nil {
		return fmt.Errorf("write the admin request: %w", err)
	}
	answer, err := adminAnswer(ctx, address, http.MethodPost, "/copies", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e CopyEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("read the gateway's answer: %w", err)
		}
		if err := tell(e); err != nil {
			return err
		}
		if e.Done != nil {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the gateway's answer broke off: %w", err)
	}
	return errors.New("the gateway's answer broke off; the copy may be there or not")
}
