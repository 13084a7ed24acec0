package snapshot

import (
	"fmt"
	"net/netip"
	"testing"
)

// BenchmarkBuild builds a snapshot after one service's endpoints changed.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := model()
			m.Services = nil
			for i := range n {
				m.Services = append(m.Services, service(fmt.Sprintf("s%d", i), "west"))
			}
			var builder Builder
			for b.Loop() {
				e := &m.Services[0].Ports[0].Endpoints
				if len(*e) > 0 {
					*e = nil
				} else {
					*e = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80")}
				}
				if _, err := builder.Build(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
