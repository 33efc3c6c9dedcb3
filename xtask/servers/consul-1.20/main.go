// The Consul agent as its own module publishes it. `go install` refuses that module because its go.mod
// has replace directives, so there is this wrapper. Of the commands it has the two that tests run: `consul agent`
// and `consul version`.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"github.com/hashicorp/consul/command/agent"
	"github.com/hashicorp/consul/command/cli"
	"github.com/hashicorp/consul/command/version"
	mcli "github.com/mitchellh/cli"
)

func main() {
	// As Consul's own main does: libraries that use the standard logger would write between the log lines.
	log.SetOutput(io.Discard)
	ui := &cli.BasicUI{
		BasicUi: mcli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr},
	}
	consul := &mcli.CLI{
		Name: "consul",
		Args: os.Args[1:],
		Commands: map[string]mcli.CommandFactory{
			"agent":   func() (mcli.Command, error) { return agent.New(ui), nil },
			"version": func() (mcli.Command, error) { return version.New(ui), nil },
		},
		HelpFunc:   mcli.BasicHelpFunc("consul"),
		HelpWriter: os.Stdout,
	}
	if consul.IsVersion() {
		os.Exit(version.New(ui).Run(nil))
	}
	status, err := consul.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}
