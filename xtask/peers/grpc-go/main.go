// The peers of gRPC's public interop tests as grpc-go has them, and a client that counts what fails.
//
//	grpc-go server [-max-connection-age D] [-max-connection-age-grace D] [-max-connection-idle D] [-ping-interval D] [-min-ping-interval D]
//	grpc-go client -addresses HOST:PORT,... [-health NAME] CASE...
//	grpc-go load -addresses HOST:PORT,... -callers N [-pause D]
//
// The server prints its address as a line of JSON. The client prints the name of each case that passed, and ends with an error at the
// first that did not. The server and the load go on until standard input ends; the load prints its counts then, as a line of JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// Longer than a case takes on a busy machine.
const soon = 20 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("neither server nor client nor load")
	}
	switch arguments[0] {
	case "server":
		return serve(arguments[1:])
	case "client":
		return callCases(arguments[1:])
	case "load":
		return callUntilDismissed(arguments[1:])
	default:
		return fmt.Errorf("unknown arguments: %q", arguments)
	}
}

func serve(arguments []string) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	var parameters keepalive.ServerParameters
	var enforcement keepalive.EnforcementPolicy
	flags.DurationVar(&parameters.MaxConnectionAge, "max-connection-age", 0, "")
	flags.DurationVar(&parameters.MaxConnectionAgeGrace, "max-connection-age-grace", 0, "")
	flags.DurationVar(&parameters.MaxConnectionIdle, "max-connection-idle", 0, "")
	flags.DurationVar(&parameters.Time, "ping-interval", 0, "")
	flags.DurationVar(&enforcement.MinTime, "min-ping-interval", 0, "")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.KeepaliveParams(parameters), grpc.KeepaliveEnforcementPolicy(enforcement))
	testpb.RegisterTestServiceServer(server, interop.NewTestServer())
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go func() {
		untilDismissed()
		server.Stop()
	}()
	tell(struct {
		Address string `json:"address"`
	}{listener.Addr().String()})
	return server.Serve(listener)
}

func callCases(arguments []string) error {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	addresses := flags.String("addresses", "", "")
	service := flags.String("health", "", "")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	connection, err := dial(*addresses, *service)
	if err != nil {
		return err
	}
	defer connection.Close()
	for _, name := range flags.Args() {
		if err := callCase(connection, name); err != nil {
			return err
		}
		fmt.Println(name)
	}
	return nil
}

// Ends the process if the case fails.
func callCase(connection *grpc.ClientConn, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	client := testpb.NewTestServiceClient(connection)
	switch name {
	case "empty_unary":
		interop.DoEmptyUnaryCall(ctx, client)
	case "large_unary":
		interop.DoLargeUnaryCall(ctx, client)
	case "client_streaming":
		interop.DoClientStreaming(ctx, client)
	case "server_streaming":
		interop.DoServerStreaming(ctx, client)
	case "ping_pong":
		interop.DoPingPong(ctx, client)
	case "empty_stream":
		interop.DoEmptyStream(ctx, client)
	case "timeout_on_sleeping_server":
		interop.DoTimeoutOnSleepingServer(ctx, client)
	case "cancel_after_begin":
		interop.DoCancelAfterBegin(ctx, client)
	case "cancel_after_first_response":
		interop.DoCancelAfterFirstResponse(ctx, client)
	case "custom_metadata":
		interop.DoCustomMetadata(ctx, client)
	case "status_code_and_message":
		interop.DoStatusCodeAndMessage(ctx, client)
	case "special_status_message":
		interop.DoSpecialStatusMessage(ctx, client)
	case "unimplemented_method":
		interop.DoUnimplementedMethod(ctx, connection)
	case "unimplemented_service":
		interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(connection))
	case "gzip":
		interop.DoLargeUnaryCall(ctx, client, grpc.UseCompressor("gzip"))
	default:
		return fmt.Errorf("unknown case: %q", name)
	}
	return nil
}

type counts struct {
	Calls  int `json:"calls"`
	Failed int `json:"failed"`
	// The latest one.
	Error string `json:"error,omitempty"`
}

func callUntilDismissed(arguments []string) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	addresses := flags.String("addresses", "", "")
	callers := flags.Int("callers", 1, "")
	pause := flags.Duration("pause", 0, "")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	connection, err := dial(*addresses, "")
	if err != nil {
		return err
	}
	defer connection.Close()
	client := testpb.NewTestServiceClient(connection)
	ctx, cancel := context.WithCancel(context.Background())
	var all counts
	var lock sync.Mutex
	var running sync.WaitGroup
	for range *callers {
		running.Go(func() {
			for ctx.Err() == nil {
				err := callOnce(client)
				lock.Lock()
				all.Calls++
				if err != nil {
					all.Failed++
					all.Error = err.Error()
				}
				lock.Unlock()
				select {
				case <-time.After(*pause):
				case <-ctx.Done():
				}
			}
		})
	}
	untilDismissed()
	cancel()
	running.Wait()
	tell(all)
	return nil
}

func callOnce(client testpb.TestServiceClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	_, err := client.EmptyCall(ctx, &testpb.Empty{})
	return err
}

// In turn to each of the addresses; if a service is named, only to those that say that it is healthy.
func dial(addresses, service string) (*grpc.ClientConn, error) {
	var state resolver.State
	for address := range strings.SplitSeq(addresses, ",") {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	static := manual.NewBuilderWithScheme("static")
	static.InitialState(state)
	config := `{"loadBalancingConfig": [{"round_robin": {}}]`
	if service != "" {
		config += fmt.Sprintf(`, "healthCheckConfig": {"serviceName": %q}`, service)
	}
	return grpc.NewClient(
		"static:///interop",
		grpc.WithResolvers(static),
		grpc.WithDefaultServiceConfig(config+"}"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
}

func tell(line any) {
	// Fails only if standard output is closed.
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

func untilDismissed() {
	_, _ = io.Copy(io.Discard, os.Stdin)
}
