package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/txix-open/isp-kit/cluster"
	"github.com/txix-open/isp-kit/log"
	"go.uber.org/zap/zapcore"
)

// What the module says of itself, and what it wants to be told.
type module struct {
	Name      string                       `json:"name"`
	Version   string                       `json:"version"`
	Address   cluster.AddressConfiguration `json:"address"`
	Endpoints []string                     `json:"endpoints"`
	Metrics   string                       `json:"metrics"`
	// Both are sent as they are.
	Schema json.RawMessage `json:"schema"`
	Config json.RawMessage `json:"config"`

	ReceiveConfig bool     `json:"receive_config"`
	ReceiveRoutes bool     `json:"receive_routes"`
	Requires      []string `json:"requires"`
	// Tell nothing of what the client logs, which takes time.
	Quiet bool `json:"quiet"`
}

// One of: `health` asks for the client's health, `close` ends it, `receive` says what the receiver of configurations does from now on.
type clientCommand struct {
	Command string `json:"command"`
	// Of `receive`: fail with this unless it is empty, after so many milliseconds.
	Error string `json:"error"`
	After int    `json:"after_ms"`
}

func runClient(addresses, description string) error {
	var module module
	if err := json.Unmarshal([]byte(description), &module); err != nil {
		return err
	}
	client := cluster.NewClient(module.info(), module.data(), strings.Split(addresses, ","), logger{module.Quiet})
	receiver := &receiver{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := client.Run(ctx, module.handler(receiver))
		tell("ended", map[string]any{"error": text(err)})
	}()
	err := obeyAll(func(command clientCommand) error {
		switch command.Command {
		case "health":
			tell("health", map[string]any{"error": text(client.Healthcheck(ctx))})
		case "receive":
			receiver.set(command)
		case "close":
			tell("closed", map[string]any{"error": text(client.Close())})
		default:
			return fmt.Errorf("unknown command: %q", command.Command)
		}
		return nil
	})
	// It says when nothing is open, which is as well.
	_ = client.Close()
	cancel()
	<-ended
	return err
}

func (m module) info() cluster.ModuleInfo {
	info := cluster.ModuleInfo{
		ModuleName:       m.Name,
		ModuleVersion:    m.Version,
		LibVersion:       "v1.52.1",
		GrpcOuterAddress: m.Address,
	}
	for _, path := range m.Endpoints {
		endpoint := cluster.EndpointDescriptor{Path: path, Inner: true, Extra: cluster.RequireAdminPermission("read")}
		info.Endpoints = append(info.Endpoints, endpoint)
	}
	if m.Metrics != "" {
		labels := map[string]string{"app": m.Name}
		info.MetricsAutodiscovery = &cluster.MetricsAutodiscovery{Address: m.Metrics, Labels: labels}
	}
	return info
}

func (m module) data() cluster.ConfigData {
	return cluster.ConfigData{Version: m.Version, Schema: m.Schema, Config: m.Config}
}

func (m module) handler(receiver *receiver) *cluster.EventHandler {
	handler := cluster.NewEventHandler()
	if m.ReceiveConfig {
		handler.RemoteConfigReceiver(receiver)
	}
	if m.ReceiveRoutes {
		handler.RoutesReceiver(routes{})
	}
	for _, name := range m.Requires {
		handler.RequireModule(name, hosts{name})
	}
	return handler
}

// Tells of configurations, and fails or dawdles if it is told to.
type receiver struct {
	lock sync.Mutex
	does clientCommand
}

func (r *receiver) set(does clientCommand) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.does = does
}

func (r *receiver) ReceiveConfig(ctx context.Context, config []byte) error {
	fields := map[string]any{"data": string(config)}
	if !utf8.Valid(config) {
		fields["base64"] = base64.StdEncoding.EncodeToString(config)
	}
	tell("config", fields)
	r.lock.Lock()
	does := r.does
	r.lock.Unlock()
	select {
	case <-time.After(time.Duration(does.After) * time.Millisecond):
	case <-ctx.Done():
	}
	if does.Error != "" {
		return errors.New(does.Error)
	}
	return nil
}

type routes struct{}

func (routes) ReceiveRoutes(_ context.Context, routes cluster.RoutingConfig) error {
	// Its own words for the fields are those of the wire.
	tell("routes", map[string]any{"routes": routes})
	return nil
}

type hosts struct {
	module string
}

func (h hosts) Upgrade(hosts []string) {
	tell("hosts", map[string]any{"module": h.module, "hosts": hosts})
}

// Tells of what the client logs: it says there what becomes of its sessions.
type logger struct {
	quiet bool
}

func (l logger) Error(ctx context.Context, message any, fields ...log.Field) {
	l.tell(ctx, "error", message, fields)
}

func (l logger) Warn(ctx context.Context, message any, fields ...log.Field) {
	l.tell(ctx, "warn", message, fields)
}

func (l logger) Info(ctx context.Context, message any, fields ...log.Field) {
	l.tell(ctx, "info", message, fields)
}

func (l logger) Debug(ctx context.Context, message any, fields ...log.Field) {
	l.tell(ctx, "debug", message, fields)
}

func (l logger) tell(ctx context.Context, level string, message any, fields []log.Field) {
	if l.quiet {
		return
	}
	encoder := zapcore.NewMapObjectEncoder()
	for _, field := range log.ContextLogValues(ctx) {
		field.AddTo(encoder)
	}
	for _, field := range fields {
		field.AddTo(encoder)
	}
	tell("log", map[string]any{"level": level, "message": fmt.Sprint(message), "fields": encoder.Fields})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
