package app

import (
	"strings"
	"testing"

	"baton/internal/io/api"
)

func metricDocs(*testing.T) string {
	rows := [][]string{{"metric", "type", "labels", "meaning"}}
	for _, m := range api.MetricList() {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "` `") + "`"
		}
		rows = append(rows, []string{quoted(m.Name), m.Type, labels, m.Help})
	}
	return docsTable(rows)
}
