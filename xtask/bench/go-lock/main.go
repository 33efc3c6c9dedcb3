// The lock of Consul's Go client, for the bench `consul`: two candidates with a client each.
//
// Each line of standard input is the number of milliseconds for which a candidate waits before the leader unlocks. The answer is
// one line: the nanoseconds from the call of Unlock to the return of the other's Lock. They take turns in leading.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	sessionTTL = "10s"
	patience   = 20 * time.Second
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: %s ADDRESS KEY", os.Args[0]))
	}
	leader, err := newCandidate(os.Args[1], os.Args[2], "bench-a")
	if err != nil {
		fail(err)
	}
	next, err := newCandidate(os.Args[1], os.Args[2], "bench-b")
	if err != nil {
		fail(err)
	}
	if err := leader.acquire(); err != nil {
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
	client *api.Client
	lock   *api.Lock
	name   string
}

func newCandidate(address, key, name string) (*candidate, error) {
	config := api.DefaultConfig()
	config.Address = address
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	lock, err := client.LockOpts(&api.LockOptions{
		Key:         key,
		Value:       []byte(name),
		SessionTTL:  sessionTTL,
		SessionName: name,
	})
	if err != nil {
		return nil, err
	}
	return &candidate{client, lock, name}, nil
}

// acquire returns when the candidate leads.
func (c *candidate) acquire() error {
	stop := make(chan struct{})
	timer := time.AfterFunc(patience, func() { close(stop) })
	defer timer.Stop()
	lost, err := c.lock.Lock(stop)
	if err == nil && lost == nil {
		err = errors.New("the lock was not had in time")
	}
	return err
}

// handOver lets next wait, and then leader unlock.
func handOver(leader, next *candidate, waits time.Duration) (time.Duration, error) {
	type outcome struct {
		at  time.Time
		err error
	}
	elected := make(chan outcome, 1)
	go func() {
		err := next.acquire()
		elected <- outcome{time.Now(), err}
	}()
	if err := next.untilItHasASession(); err != nil {
		return 0, err
	}
	time.Sleep(waits)
	began := time.Now()
	if err := leader.lock.Unlock(); err != nil {
		return 0, err
	}
	won := <-elected
	return won.at.Sub(began), won.err
}

// untilItHasASession returns when the candidate has made the session with which it waits.
func (c *candidate) untilItHasASession() error {
	for {
		sessions, _, err := c.client.Session().List(nil)
		if err != nil {
			return err
		}
		for _, session := range sessions {
			if session.Name == c.name {
				return nil
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}
