// Registers and watches with go-kit, for tests that see whether it and we see each other.
//
//	go-kit consul register ADDRESS NAME ID HOST PORT TAG...
//	go-kit consul watch ADDRESS NAME TAG...
//	go-kit etcd register ADDRESS KEY VALUE
//	go-kit etcd watch ADDRESS PREFIX
//	go-kit zk register ADDRESS PATH NAME DATA
//	go-kit zk watch ADDRESS PATH
//
// Prints a line of JSON for each step of the registrar and each event of the instancer, and goes on until standard input ends:
// then it deregisters.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/kit/sd/etcdv3"
	"github.com/go-kit/kit/sd/zk"
	"github.com/go-kit/log"
	"github.com/hashicorp/consul/api"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 4 {
		return fmt.Errorf("unknown arguments: %q", arguments)
	}
	backend, action, address, rest := arguments[0], arguments[1], arguments[2], arguments[3:]
	switch backend + " " + action {
	case "consul register":
		registrar, err := consulRegistrar(address, rest)
		if err != nil {
			return err
		}
		return register(registrar)
	case "consul watch":
		client, err := consulClient(address)
		if err != nil {
			return err
		}
		return watch(consul.NewInstancer(client, stderr(), rest[0], rest[1:], true))
	case "etcd register":
		client, err := etcdClient(address)
		if err != nil {
			return err
		}
		if len(rest) != 2 {
			return fmt.Errorf("not key and value: %q", rest)
		}
		service := etcdv3.Service{Key: rest[0], Value: rest[1]}
		return register(etcdv3.NewRegistrar(client, service, stdout()))
	case "etcd watch":
		client, err := etcdClient(address)
		if err != nil {
			return err
		}
		instancer, err := etcdv3.NewInstancer(client, rest[0], stderr())
		if err != nil {
			return err
		}
		return watch(instancer)
	case "zk register":
		if len(rest) != 3 {
			return fmt.Errorf("not path, name and data: %q", rest)
		}
		client, err := zkClient(address)
		if err != nil {
			return err
		}
		// Ends the session, and with it what Deregister has left.
		defer client.Stop()
		service := zk.Service{Path: rest[0], Name: rest[1], Data: []byte(rest[2])}
		return register(zk.NewRegistrar(client, service, stdout()))
	case "zk watch":
		client, err := zkClient(address)
		if err != nil {
			return err
		}
		defer client.Stop()
		instancer, err := zk.NewInstancer(client, rest[0], stderr())
		if err != nil {
			return err
		}
		return watch(instancer)
	default:
		return fmt.Errorf("unknown arguments: %q", arguments)
	}
}

func consulClient(address string) (consul.Client, error) {
	config := api.DefaultConfig()
	config.Address = address
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	return consul.NewClient(client), nil
}

func consulRegistrar(address string, rest []string) (sd.Registrar, error) {
	if len(rest) < 4 {
		return nil, fmt.Errorf("not name, id, host, port and tags: %q", rest)
	}
	client, err := consulClient(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(rest[3])
	if err != nil {
		return nil, err
	}
	registration := api.AgentServiceRegistration{
		Name:    rest[0],
		ID:      rest[1],
		Address: rest[2],
		Port:    port,
		Tags:    rest[4:],
	}
	return consul.NewRegistrar(client, &registration, stdout()), nil
}

func etcdClient(address string) (etcdv3.Client, error) {
	return etcdv3.NewClient(context.Background(), []string{address}, etcdv3.ClientOptions{})
}

func zkClient(address string) (zk.Client, error) {
	return zk.NewClient([]string{address}, stderr())
}

func register(registrar sd.Registrar) error {
	registrar.Register()
	err := untilDismissed()
	registrar.Deregister()
	return err
}

func watch(instancer sd.Instancer) error {
	events := make(chan sd.Event)
	go func() {
		for event := range events {
			tell(event)
		}
	}()
	instancer.Register(events)
	return untilDismissed()
}

func tell(event sd.Event) {
	line := struct {
		Instances []string `json:"instances"`
		Error     string   `json:"error,omitempty"`
	}{Instances: event.Instances}
	if event.Err != nil {
		line.Error = event.Err.Error()
	} else if line.Instances == nil {
		line.Instances = []string{}
	}
	// Fails only if standard output is closed.
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

func untilDismissed() error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// What registrars log, an error or their action, is what the test waits for.
func stdout() log.Logger {
	return log.NewJSONLogger(os.Stdout)
}

func stderr() log.Logger {
	return log.NewLogfmtLogger(os.Stderr)
}
