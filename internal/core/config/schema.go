package config

import (
	"encoding/json"
	"fmt"
	"slices"

	"baton/internal/core/cluster"
)

// Schema returns the JSON Schema (draft 2020-12) of the cluster file for editors. It knows the shapes, not
// the rules between the parts of a file: what it accepts, Parse may still refuse.
func Schema(kinds []cluster.KindSpec) ([]byte, error) {
	resources := []map[string]any{}
	for i := range kinds {
		kind := &kinds[i]
		value := mapShape(resourceKeys(kind))
		if main := fieldOf(kind.Fields, kind.Main); main != nil {
			value = anyShape(fieldShape(main), value)
		}
		resources = append(resources, mapShape([]key{{name: kind.Name, doc: kind.Doc, required: true, shape: value}}))
	}
	group := slices.Clone(groupKeys)
	list := listShape(map[string]any{"oneOf": resources})
	list["minItems"] = 1
	keyOf(group, "resources").shape = list
	file := slices.Clone(fileKeys)
	keyOf(file, "groups").shape = namedShape(namePattern, mapShape(group))
	root := mapShape(file)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "baton cluster file"
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the schema of the cluster file: %w", err)
	}
	return append(out, '\n'), nil
}
