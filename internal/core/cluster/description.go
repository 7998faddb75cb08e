package cluster

import (
	"maps"
	"reflect"
	"slices"
)

// Restarts names the fields by whose change a resource that runs by one description has to be restarted to
// run by another, sorted; its kind's name if the kind itself changed. Empty: it runs on.
func (r *ResourceSpec) Restarts(other *ResourceSpec) (fields []string) {
	if r.Kind != other.Kind || r.Front != other.Front || r.Effects != other.Effects {
		return []string{other.Kind}
	}
	names := slices.Sorted(maps.Keys(r.Fields))
	for _, name := range slices.Sorted(maps.Keys(other.Fields)) {
		if _, both := r.Fields[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.Contains(other.Live, name) && !reflect.DeepEqual(r.Fields[name], other.Fields[name]) {
			fields = append(fields, name)
		}
	}
	return fields
}
