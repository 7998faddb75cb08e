package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
)

// conforms checks a value against the part of JSON Schema that Schema uses, and panics on any other.
func conforms(schema map[string]any, value any) error {
	for word := range schema {
		if !slices.Contains([]string{"$schema", "title", "description", "type", "properties", "required", "additionalProperties",
			"propertyNames", "items", "minItems", "enum", "pattern", "anyOf", "oneOf", "minimum", "maximum"}, word) {
			panic("the schema uses a word that this test does not know: " + word)
		}
	}
	for word, exactly := range map[string]bool{"anyOf": false, "oneOf": true} {
		if list, found := schema[word].([]any); found {
			if err := conformsOne(list, value, exactly); err != nil {
				return err
			}
		}
	}
	if enum, found := schema["enum"].([]any); found && !slices.Contains(enum, value) {
		return fmt.Errorf("%v is none of %v", value, enum)
	}
	if err := conformsType(schema["type"], value); err != nil {
		return err
	}
	switch value := value.(type) {
	case string:
		if p, found := schema["pattern"].(string); found && !regexp.MustCompile(p).MatchString(value) {
			return fmt.Errorf("%q does not match %s", value, p)
		}
	case float64:
		if low, found := schema["minimum"].(float64); found && value < low {
			return fmt.Errorf("%v is below %v", value, low)
		}
		if high, found := schema["maximum"].(float64); found && value > high {
			return fmt.Errorf("%v is above %v", value, high)
		}
	case []any:
		return conformsList(schema, value)
	case map[string]any:
		return conformsMap(schema, value)
	}
	return nil
}

func conformsOne(list []any, value any, exactly bool) error {
	fits, errs := 0, []error{}
	for _, s := range list {
		if err := conforms(s.(map[string]any), value); err != nil {
			errs = append(errs, err)
		} else {
			fits++
		}
	}
	if fits == 0 || (exactly && fits != 1) {
		return fmt.Errorf("%v fits %d of the shapes: %v", value, fits, errs)
	}
	return nil
}

func conformsType(types, value any) error {
	if types == nil {
		return nil
	}
	list, isList := types.([]any)
	if !isList {
		list = []any{types}
	}
	for _, t := range list {
		_, isText := value.(string)
		number, isNumber := value.(float64)
		_, isBool := value.(bool)
		_, isList := value.([]any)
		_, isMap := value.(map[string]any)
		if map[any]bool{"string": isText, "number": isNumber, "integer": isNumber && number == float64(int64(number)),
			"boolean": isBool, "array": isList, "object": isMap}[t] {
			return nil
		}
	}
	return fmt.Errorf("%v is no %v", value, types)
}

func conformsList(schema map[string]any, value []any) error {
	if least, found := schema["minItems"].(float64); found && float64(len(value)) < least {
		return fmt.Errorf("a list of %d items, fewer than %v", len(value), least)
	}
	items, found := schema["items"].(map[string]any)
	for i, v := range value {
		if found {
			if err := conforms(items, v); err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
		}
	}
	return nil
}

func conformsMap(schema map[string]any, value map[string]any) error {
	if required, found := schema["required"].([]any); found {
		for _, r := range required {
			if _, has := value[r.(string)]; !has {
				return fmt.Errorf("lacks %v", r)
			}
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for k, v := range value {
		if names, found := schema["propertyNames"].(map[string]any); found {
			if err := conforms(names, k); err != nil {
				return err
			}
		}
		s, known := properties[k].(map[string]any)
		if !known {
			if schema["additionalProperties"] == false {
				return fmt.Errorf("unknown key %q", k)
			}
			s, known = schema["additionalProperties"].(map[string]any)
		}
		if known {
			if err := conforms(s, v); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
		}
	}
	return nil
}

// fromYAML reads YAML as an editor would.
func fromYAML(t *testing.T, text []byte) any {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(asJSON, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func schemaForTest(t *testing.T) map[string]any {
	t.Helper()
	text, err := Schema(testKinds())
	if err != nil {
		t.Fatal(err)
	}
	again, err := Schema(testKinds())
	if err != nil || !bytes.Equal(text, again) {
		t.Fatalf("a second schema differs: %v", err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestSchemaAccepts: what Parse takes, the schema takes too.
func TestSchemaAccepts(t *testing.T) {
	schema := schemaForTest(t)
	for _, c := range readGolden(t, "testdata/good.txt") {
		if err := conforms(schema, fromYAML(t, []byte(c.input))); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestSchemaRefuses: a mistake of form shows in the editor already.
func TestSchemaRefuses(t *testing.T) {
	schema := schemaForTest(t)
	nodes := "cluster: web\nnodes: { a: { address: 10.0.0.1 }, b: { address: 10.0.0.2 }, c: { address: 10.0.0.3 } }\n"
	if err := conforms(schema, fromYAML(t, []byte(nodes))); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"takover: 3s", "takeover: 3", "takeover: 3 s", "key_file: key", "arbiters: [fence]", "links: [{ name: lan }]",
		"links: [{ name: lan, udp: { port: 70000 } }]",
		"groups: { web: {} }",
		"groups: { Web: { resources: [vip: 10.0.0.50/24] } }",
		"groups: { web: { resources: [] } }",
		"groups: { web: { resources: [vip: 10.0.0.50] } }",
		"groups: { web: { resources: [vpi: 10.0.0.50/24] } }",
		"groups: { web: { failover: ask, resources: [vip: 10.0.0.50/24] } }",
		"groups: { web: { restarts: 1.5, resources: [vip: 10.0.0.50/24] } }",
		"groups: { web: { resources: [process: { command: x }] } }",
		"groups: { web: { resources: [process: { command: x, user: u, standby: warm }] } }",
		"groups: { web: { resources: [process: { command: x, user: u, ready: { htpp: x } }] } }",
	} {
		if err := conforms(schema, fromYAML(t, []byte(nodes+bad))); err == nil {
			t.Errorf("the schema takes %s", bad)
		}
	}
}
