// Command isthmus is the gateway of a container cluster and its tools.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/isthmus-mesh/isthmus/cmd/isthmus/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := app.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
