// Command grpc serves a method over gRPC that needs a session, and calls it.
package main

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessiongrpc"
)

func main() {
	ctx := context.Background()
	store := authority.Memory()
	session(ctx, store)
	site := must(authority.New(authority.Config[state]{Issuer: "https://auth.example", Audience: []string{"orders"}, Store: store,
		Load: func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{"admin"}, nil }}))
	go site.Run(ctx)
	server := must(sessiongrpc.New(sessiongrpc.Config[state]{Sessions: site.Sessions()}))
	s := grpc.NewServer(grpc.UnaryInterceptor(server.Unary), grpc.StreamInterceptor(server.Stream))
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	go s.Serve(listener)
	client := grpc_health_v1.NewHealthClient(must(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))))

	_, err := client.Check(ctx, new(grpc_health_v1.HealthCheckRequest))
	fmt.Println("without a session:", status.Code(err))
	token, _, err := site.Issuer().Issue(ctx, "user-42", state{"admin"})
	if err != nil {
		panic(err)
	}
	answer := must(client.Check(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), new(grpc_health_v1.HealthCheckRequest)))
	fmt.Println("with one:", answer.Status)
}
