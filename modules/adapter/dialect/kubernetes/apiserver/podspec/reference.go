package podspec

import (
	"bytes"
	"path"
	"slices"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/expansion"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Reference is a value of a config map or a secret, or all of them.
type Reference struct {
	Kind     neutral.Kind // KindConfig, KindSecret
	Name     string
	Key      string // "" is all
	Optional bool   // it is left out where it is not there
	Path     *field.Path
}

// Variable is one of the environment, or several that come of all values of one object.
type Variable struct {
	Name  string // of several, what each name begins with
	Value string // which may refer to variables before it
	From  *Reference
}

// File is a value that is mounted as a file. It has its own path, or, of all values, the folder of files named by keys.
type File struct {
	Reference
	Target string
	Mode   uint32
}

// Claim is a claim that is mounted.
type Claim struct {
	Name string
	Path *field.Path
}

// Source knows config maps and secrets.
type Source interface {
	// Keys are those of an object; ok is false where there is no such object.
	Keys(kind neutral.Kind, name string) (keys []string, ok bool)
	// Value is one of its values. An error says why it cannot be had.
	Value(kind neutral.Kind, name, key string) ([]byte, error)
	// Stored is the name under which the orchestrator has the value, to be mounted by.
	Stored(kind neutral.Kind, name, key string) string
}

// Refers tells whether the container is whole only after Resolve.
func (r *Result) Refers() bool {
	return slices.ContainsFunc(r.Members, func(m Result) bool { return m.Refers() }) || len(r.Files) > 0 || slices.ContainsFunc(r.Variables, func(v Variable) bool { return v.From != nil })
}

// Resolve makes the container whole: its variables, what they are in its command, and the files that are mounted. It may
// be called again when what is referred to has changed.
func (r *Result) Resolve(source Source) field.ErrorList {
	if len(r.Members) > 0 {
		var errs field.ErrorList
		for i := range r.Members {
			errs = append(errs, r.Members[i].Resolve(source)...)
		}
		return errs
	}
	errs := r.expand(source)
	r.Container.Files = nil
	for _, file := range r.Files {
		keys, failed := file.keys(source)
		errs = append(errs, failed...)
		for _, key := range keys {
			target := file.Target
			if file.Key == "" {
				target = path.Join(target, key)
			}
			mounted := neutral.MountedFile{Kind: file.Kind, Name: source.Stored(file.Kind, file.Name, key), Target: target, Mode: file.Mode}
			at := slices.IndexFunc(r.Container.Files, func(f neutral.MountedFile) bool { return f.Target == target })
			if at < 0 {
				r.Container.Files = append(r.Container.Files, mounted)
			} else {
				r.Container.Files[at] = mounted // as the later of two sources does in a projected volume
			}
		}
	}
	return errs
}

// keys are those that are referred to and there.
func (r *Reference) keys(source Source) ([]string, field.ErrorList) {
	keys, ok := source.Keys(r.Kind, r.Name)
	switch {
	case !ok && r.Optional:
		return nil, nil
	case !ok:
		return nil, field.ErrorList{field.NotFound(r.Path.Child("name"), r.Name)}
	case r.Key == "":
		keys = slices.Clone(keys)
		slices.Sort(keys)
		return keys, nil
	case slices.Contains(keys, r.Key):
		return []string{r.Key}, nil
	case r.Optional:
		return nil, nil
	}
	return nil, field.ErrorList{field.NotFound(r.Path.Child("key"), r.Key)}
}

// expand makes the environment, and the command, which may refer to it. Without a source, what is referred to elsewhere
// is left out.
func (r *Result) expand(source Source) field.ErrorList {
	var errs field.ErrorList
	names, values := []string{}, map[string]string{}
	left := expansion.Budget
	set := func(name, value string) {
		if left -= len(value); left < 0 {
			return
		}
		if _, ok := values[name]; !ok {
			names = append(names, name)
		}
		values[name] = value
	}
	for _, v := range r.Variables {
		if left < 0 {
			break
		}
		if v.From == nil {
			set(v.Name, expansion.Expand(v.Value, values))
			continue
		}
		if source == nil {
			continue
		}
		keys, failed := v.From.keys(source)
		errs = append(errs, failed...)
		for _, key := range keys {
			value, err := source.Value(v.From.Kind, v.From.Name, key)
			switch {
			case err != nil:
				errs = append(errs, field.Forbidden(v.From.Path, err.Error()))
			case !utf8.Valid(value) || bytes.IndexByte(value, 0) >= 0:
				if v.From.Key != "" { // of all values, those that are no text are left out
					errs = append(errs, field.Forbidden(v.From.Path, "the value is no text, and cannot be a variable"))
				}
			case v.From.Key == "":
				set(v.Name+key, string(value))
			default:
				set(v.Name, string(value))
			}
		}
	}
	c := &r.Container
	if left < 0 {
		return append(errs, field.Forbidden(r.env, "the variables become too long when they are expanded"))
	}
	c.Env = nil
	for _, name := range names {
		c.Env = append(c.Env, name+"="+values[name])
	}
	c.Entrypoint, c.Command = expansion.ExpandAll(r.command, values), expansion.ExpandAll(r.args, values)
	return errs
}
