package app

import (
	"testing"
)

// What counts already is read though people may no longer write it so: an agent must start with what its log holds.
func TestKeptTextIsRead(t *testing.T) {
	text := []byte(`cluster: web
takeover: 1s
nodes:
  alpha: { address: 10.0.0.11 }
  beta:  { address: 10.0.0.12 }
  gamma: { address: 10.0.0.13, role: witness }
groups:
  web:
    nodes: [alpha, beta]
    resources:
      - process: { name: httpd, command: httpd, user: www-data, directory: srv/www }
      - vip: 10.0.0.50/24
`)
	if _, err := readConfig("cluster.yaml", text); err == nil {
		t.Error("a relative directory is taken: this test shows nothing")
	}
	if spec, err := readKept("cluster.yaml", text); err != nil || spec.Group("web") == nil {
		t.Errorf("kept: %v, %v", spec, err)
	}
	if _, err := readKept("cluster.yaml", []byte("cluster: 7 &")); err == nil {
		t.Error("what is no configuration is read")
	}
}
