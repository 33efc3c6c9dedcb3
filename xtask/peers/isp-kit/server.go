package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/txix-open/etp/v4"
	"github.com/txix-open/etp/v4/msg"
)

const (
	// As the config service reads.
	readLimit = 4 * 1024 * 1024
	// Longer than a client takes on a busy machine.
	soon = 20 * time.Second
)

// One of: `answer` says what happens from now on when an event comes, `send` sends one, `close` ends a connection, `shutdown` all.
type serverCommand struct {
	Command string `json:"command"`
	// The connection; of `send` and `close` all if it is empty.
	Connection string `json:"connection"`
	// Of the event.
	Name string `json:"name"`
	bytes
	// Of `answer`: events that are sent before the answer.
	Before []event `json:"before"`
	// Of `answer`: after so many milliseconds, or not at all if that is negative.
	After int `json:"after_ms"`
	// Of `send`: whether the client is to acknowledge.
	Ack bool `json:"ack"`
}

type event struct {
	Name string `json:"name"`
	bytes
}

// Text, or bytes that are none.
type bytes struct {
	Data   string `json:"data"`
	Base64 string `json:"base64"`
}

func (b bytes) get() []byte {
	if decoded, err := base64.StdEncoding.DecodeString(b.Base64); err == nil && len(decoded) > 0 {
		return decoded
	}
	return []byte(b.Data)
}

type server struct {
	etp     *etp.Server
	lock    sync.Mutex
	answers map[string]serverCommand
}

func runServer(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &server{
		etp:     etp.NewServer(etp.WithServerReadLimit(readLimit)),
		answers: map[string]serverCommand{},
	}
	for _, name := range []string{"MODULE:SEND_CONFIG_SCHEMA", "MODULE:SEND_REQUIREMENTS", "MODULE:READY"} {
		server.answers[name] = serverCommand{bytes: bytes{Data: "ok"}}
	}
	server.etp.OnConnect(func(conn *etp.Conn) {
		request := conn.HttpRequest()
		tell("connected", map[string]any{
			"connection": conn.Id(), "path": request.URL.Path, "query": request.URL.RawQuery, "headers": request.Header,
		})
	})
	server.etp.OnDisconnect(func(conn *etp.Conn, err error) {
		tell("disconnected", map[string]any{
			"connection": conn.Id(), "normal": etp.IsNormalClose(err), "error": text(err),
		})
	})
	server.etp.OnError(func(_ *etp.Conn, err error) {
		tell("error", map[string]any{"error": text(err)})
	})
	server.etp.OnUnknownEvent(etp.HandlerFunc(server.handle))
	serving := &http.Server{Handler: server.etp, ReadHeaderTimeout: soon}
	ended := make(chan error, 1)
	go func() {
		ended <- serving.Serve(listener)
	}()
	tell("listening", map[string]any{"address": listener.Addr().String()})
	err = obeyAll(server.obey)
	server.etp.Shutdown()
	_ = serving.Close()
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		return served
	}
	return err
}

func (s *server) obey(command serverCommand) error {
	switch command.Command {
	case "answer":
		s.lock.Lock()
		s.answers[command.Name] = command
		s.lock.Unlock()
		// Modules ask beside this: one that is to be answered so is begun after it.
		tell("answers", map[string]any{"name": command.Name})
	case "send":
		for _, conn := range s.connections(command.Connection) {
			s.send(conn, command)
		}
	case "close":
		for _, conn := range s.connections(command.Connection) {
			_ = conn.Close()
		}
	case "shutdown":
		s.etp.Shutdown()
		tell("shutdown", nil)
	default:
		return fmt.Errorf("unknown command: %q", command.Command)
	}
	return nil
}

func (s *server) connections(id string) []*etp.Conn {
	if id == "" {
		return s.etp.Rooms().AllConns()
	}
	if conn, ok := s.etp.Rooms().Get(id); ok {
		return []*etp.Conn{conn}
	}
	return nil
}

func (s *server) send(conn *etp.Conn, command serverCommand) {
	if !command.Ack {
		emit(conn, event{command.Name, command.bytes})
		return
	}
	// The next command is not to wait for the client.
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		answer, err := conn.EmitWithAck(ctx, command.Name, command.get())
		fields := message(conn, command.Name, answer)
		fields["error"] = text(err)
		tell("acknowledged", fields)
	}()
}

func emit(conn *etp.Conn, event event) {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := conn.Emit(ctx, event.Name, event.get()); err != nil {
		tell("error", map[string]any{"error": text(err)})
	}
}

func (s *server) handle(ctx context.Context, conn *etp.Conn, received msg.Event) []byte {
	fields := message(conn, received.Name, received.Data)
	fields["ack"] = int64(received.AckId)
	tell("received", fields)
	s.lock.Lock()
	answer := s.answers[received.Name]
	s.lock.Unlock()
	for _, event := range answer.Before {
		emit(conn, event)
	}
	if answer.After < 0 {
		// Until the connection has ended: its context is that of its request.
		<-ctx.Done()
		return nil
	}
	select {
	case <-time.After(time.Duration(answer.After) * time.Millisecond):
	case <-ctx.Done():
	}
	return answer.get()
}

func message(conn *etp.Conn, name string, data []byte) map[string]any {
	fields := map[string]any{"connection": conn.Id(), "name": name, "data": string(data)}
	if !utf8.Valid(data) {
		fields["base64"] = base64.StdEncoding.EncodeToString(data)
	}
	return fields
}
