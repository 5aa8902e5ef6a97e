// A worker in Go: PRESQUE_URL=http://127.0.0.1:5000 go run worker.go QUEUE. Needs the standard library alone.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

func post(path, body string, found any) {
	answer, err := http.Post(os.Getenv("PRESQUE_URL")+path, "application/json", strings.NewReader(body))
	if err != nil || answer.StatusCode >= 400 {
		fmt.Fprintln(os.Stderr, path, err) // what is not acked comes again
		time.Sleep(time.Second)
		return
	}
	defer answer.Body.Close()
	json.NewDecoder(answer.Body).Decode(found)
}

func main() {
	for {
		var found struct{ Jobs []map[string]any }
		post("/q/"+os.Args[1]+"/lease", `{"wait": 20}`, &found)
		for _, job := range found.Jobs {
			verb, why := "ack", ""
			if name, ok := job["body"].(map[string]any)["name"]; ok {
				fmt.Println("hello,", name)
			} else {
				verb, why = "fail", `, "error": "a greeting needs a name"`
			}
			post(fmt.Sprintf("/j/%v/%v/%v", job["queue"], job["id"], verb), fmt.Sprintf(`{"lease": %q%s}`, job["lease"], why), nil)
		}
	}
}
