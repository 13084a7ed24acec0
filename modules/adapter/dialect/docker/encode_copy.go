package docker

import (
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// headerStat tells of the file that is copied.
const headerStat = "X-Docker-Container-Path-Stat"

// statToDocker is the header's value.
func statToDocker(stat *neutral.FileStat) string {
	text, err := json.Marshal(container.PathStat{Name: stat.Name, Size: stat.Size, Mode: stat.Mode,
		Mtime: stat.Modified.UTC(), LinkTarget: stat.Target})
	if err != nil { // such a struct always marshals
		return ""
	}
	return base64.StdEncoding.EncodeToString(text)
}

// answerStat renders HEAD /containers/{id}/archive.
func answerStat(result neutral.Result) (dialect.Response, error) {
	if result.File == nil {
		return dialect.Response{}, errNoResult
	}
	answer := answerEmpty(http.StatusOK)
	answer.Header.Set(headerStat, statToDocker(result.File))
	return answer, nil
}
