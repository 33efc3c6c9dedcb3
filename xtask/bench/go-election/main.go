// The Go client's election, for the bench `election`: two candidates with a client and a session each.
//
// Each line of standard input is the number of milliseconds for which a candidate waits in the queue before the leader
// resigns. The answer is one line: the nanoseconds from the call of Resign to the return of the other's Campaign. They take
// turns in leading.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const (
	ttlSeconds = 10
	patience   = 20 * time.Second
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: %s ENDPOINT PREFIX", os.Args[0]))
	}
	leader, err := newCandidate(os.Args[1], os.Args[2], "a")
	if err != nil {
		fail(err)
	}
	next, err := newCandidate(os.Args[1], os.Args[2], "b")
	if err != nil {
		fail(err)
	}
	if err := leader.campaign(); err != nil {
		fail(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		waits, err := strconv.Atoi(lines.Text())
		if err != nil {
			fail(err)
		}
		took, err := handOver(leader, next, time.Duration(waits)*time.Millisecond)
		if err != nil {
			fail(err)
		}
		fmt.Println(took.Nanoseconds())
		leader, next = next, leader
	}
}

type candidate struct {
	client   *clientv3.Client
	election *concurrency.Election
	prefix   string
	value    string
}

func newCandidate(endpoint, prefix, value string) (*candidate, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: patience})
	if err != nil {
		return nil, err
	}
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttlSeconds))
	if err != nil {
		return nil, err
	}
	return &candidate{client, concurrency.NewElection(session, prefix), prefix, value}, nil
}

func (c *candidate) campaign() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.election.Campaign(ctx, c.value)
}

// handOver lets next wait in the queue, and then leader resign.
func handOver(leader, next *candidate, waits time.Duration) (time.Duration, error) {
	type outcome struct {
		at  time.Time
		err error
	}
	elected := make(chan outcome, 1)
	go func() {
		err := next.campaign()
		elected <- outcome{time.Now(), err}
	}()
	if err := leader.untilTwoQueue(); err != nil {
		return 0, err
	}
	time.Sleep(waits)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	if err := leader.election.Resign(ctx); err != nil {
		return 0, err
	}
	won := <-elected
	return won.at.Sub(began), won.err
}

// untilTwoQueue returns when both candidates have their keys.
func (c *candidate) untilTwoQueue() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		queue, err := c.client.Get(ctx, c.prefix+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || queue.Count >= 2 {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}
