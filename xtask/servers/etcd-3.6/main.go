// The etcd server as its own module publishes it. `go install` refuses that module because its go.mod
// has replace directives, so there is this wrapper.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
