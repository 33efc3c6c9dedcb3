// A module of isp-kit's cluster package, and a scripted server of its framing (etp), for tests that see whether they and we talk to
// each other.
//
//	isp-kit client ADDRESS,... MODULE
//	isp-kit server ADDRESS
//
// MODULE is an object of JSON, see the type `module`. Each obeys commands on standard input, one object of JSON a line, until that
// ends: then it closes its connections. It prints an object of JSON for each thing that happens, with its time in nanoseconds of the
// system's clock.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 3 && arguments[0] == "client":
		return runClient(arguments[1], arguments[2])
	case len(arguments) == 2 && arguments[0] == "server":
		return runServer(arguments[1])
	default:
		return fmt.Errorf("unknown arguments: %q", arguments)
	}
}

// Events happen in many goroutines.
var output sync.Mutex

// Prints what has happened.
func tell(event string, fields map[string]any) {
	line := map[string]any{"event": event, "at": time.Now().UnixNano()}
	for name, value := range fields {
		line[name] = value
	}
	output.Lock()
	defer output.Unlock()
	// Fails only if standard output is closed.
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

// Hands each command to `obey` until there are no more.
func obeyAll[C any](obey func(C) error) error {
	commands := json.NewDecoder(os.Stdin)
	for {
		var command C
		if err := commands.Decode(&command); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := obey(command); err != nil {
			return err
		}
	}
}
