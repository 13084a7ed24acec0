package app

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules/policy/audit"
)

func auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Read a gateway's audit log"}
	c.AddCommand(&cobra.Command{
		Use:   "unfinished FILE...",
		Short: "Show operations that were sent and whose end is not known",
		Long: "Prints the audit lines of operations that were sent to the orchestrator and whose end no gateway saw, because it\n" +
			"was killed meanwhile. Whether they took effect is for the orchestrator to tell. What began after the last start of\n" +
			"the gateway may be under way and is left out.",
		Example: "  isthmus audit unfinished /var/lib/isthmus/audit.log*",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) (err error) {
			var files []io.Reader
			for _, path := range paths {
				file, openErr := os.Open(path)
				if openErr != nil {
					return openErr
				}
				defer func() { err = errors.Join(err, file.Close()) }()
				files = append(files, file)
			}
			lost, err := audit.Unfinished(files...)
			if err != nil {
				return err
			}
			for _, line := range lost {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			return nil
		},
	})
	return c
}

// auditLines counts the lines of the audit log.
type auditLines struct{ log *audit.Log }

var auditLinesTotal = prometheus.NewDesc("isthmus_audit_lines_total",
	"Lines of the audit log, by outcome: written, or failed.", []string{"outcome"}, nil)

// Describe makes it a Prometheus collector.
func (auditLines) Describe(ch chan<- *prometheus.Desc) { ch <- auditLinesTotal }

// Collect makes it a Prometheus collector.
func (a auditLines) Collect(ch chan<- prometheus.Metric) {
	written, failed := a.log.Stats()
	for outcome, n := range map[string]uint64{"written": written, "failed": failed} {
		ch <- prometheus.MustNewConstMetric(auditLinesTotal, prometheus.CounterValue, float64(n), outcome)
	}
}
