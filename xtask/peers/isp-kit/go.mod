module ispkit

go 1.24.0

require (
	github.com/txix-open/etp/v4 v4.0.1
	github.com/txix-open/isp-kit v1.52.1
	go.uber.org/zap v1.27.0
)

require (
	github.com/coder/websocket v1.8.13 // indirect
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/modern-go/concurrent v0.0.0-20180306012644-bacd9c7ef1dd // indirect
	github.com/modern-go/reflect2 v1.0.2 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/txix-open/bellows v1.2.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	gopkg.in/natefinch/lumberjack.v2 v2.2.1 // indirect
)
