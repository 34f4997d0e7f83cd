package spireapi

import (
	debugv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/debug/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	loggerv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/logger/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func (a *api) countEntriesOf(of *types.SPIFFEID) int32 {
	a.t.Helper()
	return a.countEntries(&entryv1.CountEntriesRequest_Filter{BySpiffeId: of})
}

func (a *api) logger() loggerv1.LoggerClient { return loggerv1.NewLoggerClient(a.local) }

// notOverTCP proves that a service of the admin socket is unknown to everybody else, admins included.
func notOverTCP(service string, call func(*api, *grpc.ClientConn) error) func(*api) {
	return func(a *api) {
		for _, conn := range []*grpc.ClientConn{a.tcp(nil), a.admin()} {
			refused(a.t, call(a, conn), codes.Unimplemented, "unknown service "+service)
		}
	}
}

func getInfo(a *api, conn *grpc.ClientConn) error {
	_, err := debugv1.NewDebugClient(conn).GetInfo(a.ctx, &debugv1.GetInfoRequest{})
	return err
}

func getLogger(a *api, conn *grpc.ClientConn) error {
	_, err := loggerv1.NewLoggerClient(conn).GetLogger(a.ctx, &loggerv1.GetLoggerRequest{})
	return err
}

func resetLevel(a *api, conn *grpc.ClientConn) error {
	_, err := loggerv1.NewLoggerClient(conn).ResetLogLevel(a.ctx, &loggerv1.ResetLogLevelRequest{})
	return err
}

func check(a *api, conn *grpc.ClientConn) error {
	_, err := grpc_health_v1.NewHealthClient(conn).Check(a.ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

// launched is the level the server was started with; the harness starts it with DEBUG.
func (a *api) launched() types.LogLevel {
	a.t.Helper()
	must(a.t, resetLevel(a, a.local))
	got, err := a.logger().GetLogger(a.ctx, &loggerv1.GetLoggerRequest{})
	must(a.t, err)
	if !a.w.IsForeign() {
		expect(a.t, "level at launch", got.LaunchLevel, types.LogLevel_DEBUG)
	}
	return got.LaunchLevel
}

func (a *api) levels(current, launch types.LogLevel) {
	a.t.Helper()
	got, err := a.logger().GetLogger(a.ctx, &loggerv1.GetLoggerRequest{})
	must(a.t, err)
	expect(a.t, "level", got.CurrentLevel, current)
	expect(a.t, "level at launch", got.LaunchLevel, launch)
}

func (a *api) setLevel(level types.LogLevel) error {
	_, err := a.logger().SetLogLevel(a.ctx, &loggerv1.SetLogLevelRequest{NewLevel: level})
	return err
}

var debugProofs = map[string]proof{
	"GetInfo": {
		success: func(a *api) {
			info, err := debugv1.NewDebugClient(a.local).GetInfo(a.ctx, &debugv1.GetInfoRequest{})
			must(a.t, err)
			expect(a.t, "server's ID", info.SvidChain[0].Id.Path, "/spire/server")
			expect(a.t, "certificates up to the root", len(info.SvidChain), 2)
			if info.FederatedBundlesCount < 1 {
				a.t.Fatal("our own bundle is not counted")
			}
		},
		refusal: notOverTCP("spire.api.server.debug.v1.Debug", getInfo),
		// An answer may be repeated for five seconds.
		boundary: func(a *api) {
			first, err := debugv1.NewDebugClient(a.local).GetInfo(a.ctx, &debugv1.GetInfoRequest{})
			must(a.t, err)
			a.made(entry(id("/node"), fresh("info")))
			second, err := debugv1.NewDebugClient(a.local).GetInfo(a.ctx, &debugv1.GetInfoRequest{})
			must(a.t, err)
			if second.Uptime == first.Uptime {
				expect(a.t, "entries in a repeated answer", second.EntriesCount, first.EntriesCount)
			}
		},
	},
}

var loggerProofs = map[string]proof{
	"GetLogger": {
		success: func(a *api) { a.levels(a.launched(), a.launched()) },
		refusal: notOverTCP("spire.api.server.logger.v1.Logger", getLogger),
		boundary: func(a *api) {
			launch := a.launched()
			must(a.t, a.setLevel(types.LogLevel_WARN))
			a.levels(types.LogLevel_WARN, launch)
			must(a.t, resetLevel(a, a.local))
		},
	},
	"SetLogLevel": {
		success: func(a *api) {
			set, err := a.logger().SetLogLevel(a.ctx, &loggerv1.SetLogLevelRequest{NewLevel: types.LogLevel_WARN})
			must(a.t, err)
			expect(a.t, "level", set.CurrentLevel, types.LogLevel_WARN)
			must(a.t, resetLevel(a, a.local))
		},
		refusal: all(
			func(a *api) {
				refused(a.t, a.setLevel(types.LogLevel_UNSPECIFIED), codes.InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED")
			},
			notOverTCP("spire.api.server.logger.v1.Logger", func(a *api, conn *grpc.ClientConn) error {
				_, err := loggerv1.NewLoggerClient(conn).SetLogLevel(a.ctx, &loggerv1.SetLogLevelRequest{NewLevel: types.LogLevel_WARN})
				return err
			}),
		),
		boundary: func(a *api) {
			launch := a.launched()
			for level := types.LogLevel_PANIC; level <= types.LogLevel_TRACE; level++ {
				must(a.t, a.setLevel(level))
				a.levels(level, launch)
			}
			refused(a.t, a.setLevel(types.LogLevel_TRACE+1), codes.InvalidArgument, "unsupported log level")
			a.levels(types.LogLevel_TRACE, launch)
			must(a.t, resetLevel(a, a.local))
		},
	},
	"ResetLogLevel": {
		success: func(a *api) {
			must(a.t, a.setLevel(types.LogLevel_ERROR))
			reset, err := a.logger().ResetLogLevel(a.ctx, &loggerv1.ResetLogLevelRequest{})
			must(a.t, err)
			expect(a.t, "level", reset.CurrentLevel, reset.LaunchLevel)
		},
		refusal: notOverTCP("spire.api.server.logger.v1.Logger", resetLevel),
		boundary: func(a *api) {
			must(a.t, resetLevel(a, a.local))
			must(a.t, resetLevel(a, a.local))
			a.levels(a.launched(), a.launched())
		},
	},
}

var healthProofs = map[string]proof{
	"Check": {
		success: func(a *api) {
			state, err := grpc_health_v1.NewHealthClient(a.local).Check(a.ctx, &grpc_health_v1.HealthCheckRequest{})
			must(a.t, err)
			expect(a.t, "state", state.Status, grpc_health_v1.HealthCheckResponse_SERVING)
		},
		refusal: notOverTCP("grpc.health.v1.Health", check),
		boundary: func(a *api) {
			_, err := grpc_health_v1.NewHealthClient(a.local).Check(a.ctx, &grpc_health_v1.HealthCheckRequest{Service: "x"})
			refused(a.t, err, codes.InvalidArgument, "per-service health is not supported")
		},
	},
	"Watch": {success: watchIsNotBuilt, refusal: notOverTCP("grpc.health.v1.Health", watch), boundary: watchIsNotBuilt},
	"List":  {success: listIsNotBuilt, refusal: notOverTCP("grpc.health.v1.Health", list), boundary: listIsNotBuilt},
}

func watch(a *api, conn *grpc.ClientConn) error {
	stream, err := grpc_health_v1.NewHealthClient(conn).Watch(a.ctx, &grpc_health_v1.HealthCheckRequest{})
	must(a.t, err)
	_, err = stream.Recv()
	return err
}

func list(a *api, conn *grpc.ClientConn) error {
	_, err := grpc_health_v1.NewHealthClient(conn).List(a.ctx, &grpc_health_v1.HealthListRequest{})
	return err
}

// SPIRE offers Check alone, and so do we.
func watchIsNotBuilt(a *api) {
	refused(a.t, watch(a, a.local), codes.Unimplemented, "method Watch not implemented")
}

func listIsNotBuilt(a *api) {
	refused(a.t, list(a, a.local), codes.Unimplemented, "method List not implemented")
}
